"""Average precision and ROC AUC as if all scores were sorted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsol.evaluation import PixelCurve

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
laws = settings(max_examples=40, deadline=None)


@st.composite
def maps(draw):
    """(score, mask) of one shape with at least one positive.

    Two scores are equal or at least 2^-13 apart: the exact curve then knows their order.
    """
    shape = draw(SHAPES)
    score = draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 8192).map(lambda i: i / 8192))).astype(np.float32)
    mask = draw(hnp.arrays(np.bool_, shape))
    mask.flat[0] = True
    return score, mask


def curve_of(*pairs, **options):
    curve = PixelCurve(**options)
    for score, mask in pairs:
        curve.add(score, mask)
    return curve


def sorted_ap(score, mask):
    """Average precision by sorting, tied scores together: one term per distinct score, from the top."""
    score, mask, area, seen_recall = score.ravel(), mask.ravel(), 0.0, 0.0
    for value in np.unique(score)[::-1]:
        flagged = score >= value
        recall = mask[flagged].sum() / mask.sum()
        area += mask[flagged].mean() * (recall - seen_recall)
        seen_recall = recall
    return area


@laws
@given(maps())
def test_exact_ap_is_that_of_sorting(pair):
    assert curve_of(pair, exact=True).result().exact_ap == pytest.approx(sorted_ap(*pair), abs=1e-12)


@laws
@given(maps())
def test_exact_auc_counts_pairs_of_pixels(pair):
    score, mask = pair
    high, low = score[mask], score[~mask]
    pairs = (high[:, None] > low).sum() + (high[:, None] == low).sum() / 2
    expected = pairs / (high.size * low.size) if high.size and low.size else math.nan
    assert curve_of((score, mask), exact=True).exact_auc() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("spread", [1.0, 0.2, 0.05])
def test_exact_auc_agrees_with_scikit_learn(spread):
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    mask = generator.random((300, 400)) < 0.3
    score = (0.5 + spread * 0.4 * (generator.random(mask.shape) + 0.2 * mask)).astype(np.float32)
    curve = curve_of((score, mask), exact=True)
    theirs = roc_auc_score(mask.ravel(), score.ravel())
    assert curve.exact_auc() == pytest.approx(theirs, abs=1e-5)
    assert curve.counts.roc_auc == pytest.approx(theirs, abs=2e-3)
    assert curve_of((score, mask)).exact_auc() is None
    assert math.isnan(PixelCurve(exact=True).exact_auc())


@pytest.mark.parametrize("spread", [1.0, 0.2, 0.05])
def test_exact_ap_agrees_with_scikit_learn(spread):
    from sklearn.metrics import average_precision_score

    generator = np.random.default_rng(0)
    mask = generator.random((300, 400)) < 0.3
    score = (0.5 + spread * 0.4 * (generator.random(mask.shape) + 0.2 * mask)).astype(np.float32)  # narrow: bins hold many scores
    ours = curve_of((score, mask), exact=True).result()
    theirs = average_precision_score(mask.ravel(), score.ravel())
    assert ours.exact_ap == pytest.approx(theirs, abs=1e-5)  # 0.001 percent points
    if spread < 0.1:
        assert abs(ours.pxap - theirs) > 1e-4  # the binned one cannot tell such scores apart


def test_near_ties_count_as_random_order_and_true_ties_as_ties():
    """Two bins' worth of known cases: the closed form against all orders, and a constant map against its prevalence."""
    from itertools import permutations

    from wsol.evaluation.exact import grouped_average_precision

    positives, negatives = np.array([1, 2, 1]), np.array([1, 3, 0])

    def precision_sum(order, tp, found):
        total = 0.0
        for i, hit in enumerate(order, 1):
            tp += hit
            total += hit * tp / (found + i)
        return total

    orders = list(permutations([1, 1, 0, 0, 0]))
    middle = sum(precision_sum(o, 1, 2) for o in orders) / len(orders)
    expected = (1 * 1 / 2 + middle + 1 * 4 / 8) / 4
    assert grouped_average_precision(positives, negatives, np.array([False, True, False])) == pytest.approx(expected, abs=1e-14)
    assert grouped_average_precision(np.array([3]), np.array([7]), np.array([False])) == pytest.approx(0.3)


def test_harmonic_numbers():
    from wsol.evaluation.exact import harmonic

    n = np.array([0, 1, 2, 63, 64, 65, 1000])
    assert harmonic(n) == pytest.approx([sum(1 / i for i in range(1, k + 1)) for k in n], abs=1e-14)


def test_merging_finds_scores_that_differ_within_a_bin():
    """Each half holds one score and so a true tie; together the bin is mixed, whichever comes first."""
    low, high = np.full((1, 2), 0.7, np.float32), np.nextafter(np.full((1, 2), 0.7, np.float32), np.float32(1))
    one, two = (low, np.array([[True, False]])), (high, np.array([[True, True]]))
    whole = curve_of(one, two, exact=True).exact_ap()
    assert whole == (curve_of(one, exact=True) + curve_of(two, exact=True)).exact_ap()
    assert whole == (curve_of(two, exact=True) + curve_of(one, exact=True)).exact_ap()
    assert whole > 0.75 + 1e-9  # as one tie it would be the prevalence


@laws
@given(maps())
def test_monotone_rescaling_leaves_exact_ap(pair):
    score, mask = pair
    _, rank = np.unique(score, return_inverse=True)
    spread = (rank.reshape(score.shape) / max(rank.max(), 1)).astype(np.float32)  # any increasing function of the scores
    assert curve_of((spread, mask), exact=True).result().exact_ap == pytest.approx(
        curve_of(pair, exact=True).result().exact_ap, abs=1e-12
    )


@laws
@given(maps(), st.integers(-30, 0), st.sampled_from([1, 2, 3]))
def test_powers_and_factors_leave_exact_ap_and_auc(pair, exponent, power):
    """Increasing functions that keep float32 scores apart which were 2^-13 apart."""
    score, mask = pair
    scaled = (score.astype(np.float64) ** power * 2.0**exponent).astype(np.float32)
    before, after = curve_of(pair, exact=True), curve_of((scaled, mask), exact=True)
    assert after.exact_ap() == pytest.approx(before.exact_ap(), abs=1e-12)
    assert after.exact_auc() == pytest.approx(before.exact_auc(), abs=1e-12, nan_ok=True)
