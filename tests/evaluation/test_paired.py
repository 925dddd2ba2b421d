from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wsol.evaluation import PixelCounts, benjamini_hochberg, compare, count_pixels, holm, paired_difference
from wsol.evaluation.pairs import pair_up

BINS = 20


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(generator, patients, *, images=2, methods=2, effect=0.0, scale=1.0, empty=()):
    """Maps of some methods on the same masks. Patients are more or less hard; the first method is better by `effect`, the last
    has its scores raised to a power. Patients in `empty` have no positive pixel."""
    found, names = [[] for _ in range(methods)], []
    for patient in range(patients):
        hard = generator.normal(0, 0.1)
        for _ in range(images):
            positive = 0 if patient in empty else int(generator.integers(5, 60))
            for m, counts in enumerate(found):
                gap = 0.15 + hard + effect * (m == 0) + generator.normal(0, 0.15)
                scores = np.clip(generator.normal(0.45, 0.2, 100) + gap * (np.arange(100) < positive), 0, 0.999)
                at = (scores ** (scale if m == methods - 1 else 1.0) * BINS).astype(int)
                split = [np.bincount(part, minlength=BINS + 1) for part in (at[:positive], at[positive:])]
                counts.append(PixelCounts(*split))
            names.append(f"p{patient}")
    return found, names


def test_pooled_difference_interval_and_p_equal_a_slow_loop():
    """Every replicate and every swap written out with `PixelCounts`: draw or swap whole patients, add up, recompute."""
    (a, b), names = drawn(rng(1), 5, empty={3})
    at = {"threshold_a": 0.45, "threshold_b": 0.6}
    found = paired_difference(a, b, names, "dice", **at, generator=rng(), replicates=60)

    def gap(first, second):
        return PixelCounts.total(first).at(0.45).dice - PixelCounts.total(second).at(0.6).dice

    draws = rng().multinomial(5, np.full(5, 1 / 5), size=60)
    picks = [[i for i, name in enumerate(names) for _ in range(draw[int(name[1])])] for draw in draws]
    replicates = [gap([a[i] for i in pick], [b[i] for i in pick]) for pick in picks]
    sums = [0, 0]
    swapped = []
    for swap in itertools.product([False, True], repeat=5):
        mixed = [
            [(y if swap[int(n[1])] else x) for x, y, n in zip(one, other, names, strict=True)] for one, other in ((a, b), (b, a))
        ]
        at_own = [(0.6 if swap[int(n[1])] else 0.45) for n in names], [(0.45 if swap[int(n[1])] else 0.6) for n in names]
        for side in (0, 1):
            each = [c.at(t) for c, t in zip(mixed[side], at_own[side], strict=True)]
            tp, fp, fn = (sum(getattr(c, name) for c in each) for name in ("tp", "fp", "fn"))
            sums[side] = 2 * tp / (2 * tp + fp + fn)
        swapped.append(sums[0] - sums[1])
    assert found.mean == pytest.approx(gap(a, b), abs=1e-14)
    half = stats.t.ppf(0.975, 4) * np.std(replicates) * np.sqrt(5 / 4)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=1e-12)
    assert found.p == np.mean(np.abs(swapped) >= abs(found.mean) - 1e-12)
    assert found.clusters == 5


def test_pxap_keeps_its_value_and_sees_no_monotone_change_of_scale(make_scene):
    """Scores raised to a power are the same map to PxAP: difference 0 in every replicate and every swap, so p = 1."""
    scenes = [make_scene(seed, levels=10) for seed in range(6)]
    a = [count_pixels(score, mask) for score, mask in scenes]
    b = [count_pixels(score**3, mask) for score, mask in scenes]
    other = [count_pixels(make_scene(seed + 50)[0], mask, bins=200) for seed, (_, mask) in enumerate(scenes)]
    names = ["p", "q", "q", "r", "s", "t"]
    found = paired_difference(a, b, names, generator=rng())
    assert found[:4] == pytest.approx((0.0, 0.0, 0.0, 1.0), abs=1e-12)
    real = paired_difference(a, other, names, generator=rng())
    assert real.mean == pytest.approx(PixelCounts.total(a).pxap - PixelCounts.total(other).pxap, abs=1e-12)
    turned = paired_difference(b, other, names, generator=rng())
    assert turned == pytest.approx(real, abs=1e-12)


def test_scipy_agrees_on_the_mean_over_images():
    """One image per patient: the exact sign-flip test; for many patients its drawn form is near Student's t."""
    (a, b), names = drawn(rng(2), 9, images=1)
    found = paired_difference(a, b, names, "iou", 0.5, 0.4, generator=rng(), average="image")
    x, y = (np.array([c.at(t).iou for c in counts]) for counts, t in ((a, 0.5), (b, 0.4)))
    oracle = stats.permutation_test((x, y), lambda u, v: np.mean(u - v), permutation_type="samples", n_resamples=np.inf)
    assert found.mean == pytest.approx(oracle.statistic)
    assert found.p == pytest.approx(oracle.pvalue)
    (a, b), names = drawn(rng(3), 60, images=1, effect=0.05)
    found = paired_difference(a, b, names, generator=rng(), replicates=4000, average="image")
    x, y = (np.array([c.pxap for c in counts]) for counts in (a, b))
    student = stats.ttest_rel(x, y)
    assert found.p == pytest.approx(student.pvalue, abs=0.02)
    assert (found.low, found.high) == pytest.approx(tuple(student.confidence_interval()), abs=0.03 * (found.high - found.low))


def test_images_of_a_patient_swap_together():
    """Four images of two patients: 2^2 swaps, of which the two that swap none or both are as far; p = 1/2, not 1/8."""
    good, bad = PixelCounts(np.array([0, 0, 9]), np.array([9, 0, 0])), PixelCounts(np.array([9, 0, 0]), np.array([0, 0, 9]))
    found = paired_difference([good] * 4, [bad] * 4, ["a", "a", "b", "b"], generator=rng())
    assert found.p == 0.5
    assert found.mean == pytest.approx(0.5)  # of 1 and of 1/2


def test_swapping_the_methods_turns_the_signs():
    (a, b), names = drawn(rng(4), 14, effect=0.1)
    one, other = (paired_difference(*x, names, "dice", 0.5, 0.5, generator=rng()) for x in ((a, b), (b, a)))
    assert (one.mean, one.low, one.high, one.p) == pytest.approx((-other.mean, -other.high, -other.low, other.p), abs=1e-12)


@pytest.mark.parametrize(("metric", "scale"), [("dice", 1.0), ("pxap", 1.0), ("pxap", 4.0)])
def test_p_values_of_equal_methods_are_not_too_small(metric, scale):
    """Under the null at most a share alpha of p values is <= alpha, and about 95 percent of intervals hold 0 (2.5 standard errors
    allowed), with seven patients and whatever the scale."""
    at = None if metric == "pxap" else 0.5
    found = []
    for seed in range(150):
        (a, b), names = drawn(rng(seed), 7, scale=scale)
        found.append(paired_difference(a, b, names, metric, at, at, generator=rng(seed), replicates=99))
    p = np.array([one.p for one in found])
    for alpha in (0.05, 0.1, 0.2, 0.5):
        assert np.mean(p <= alpha) <= alpha + 2.5 * np.sqrt(alpha * (1 - alpha) / 150)
    assert np.mean([one.low <= 0 <= one.high for one in found]) >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / 150)


def test_holm_holds_the_family_and_a_clear_effect_is_found():
    """Four equal methods, 14 patients: some adjusted p <= 0.1 in at most a tenth of the tables. A better one: nearly always."""
    false, found = 0, 0
    for seed in range(60):
        methods, names = drawn(rng(seed), 14, images=1, methods=4)
        rows = compare(dict(zip("abcd", methods, strict=True)), names, "dice", 0.5, "a", generator=rng(seed), replicates=199)
        false += min(row["p_adjusted"] for row in rows) <= 0.1
        methods, names = drawn(rng(seed), 14, images=1, methods=4, effect=0.4)
        rows = compare(dict(zip("abcd", methods, strict=True)), names, "pxap", None, "a", generator=rng(seed), replicates=199)
        found += max(row["p_adjusted"] for row in rows) <= 0.05
    assert false / 60 <= 0.1 + 2.5 * np.sqrt(0.09 / 60)
    assert found / 60 >= 0.95


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(p_values)
def test_benjamini_hochberg_is_that_of_scipy(p):
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


@given(p_values)
def test_holm_equals_closed_testing(p):
    """A hypothesis is rejected iff every intersection that holds it is, each by Bonferroni: its p is the largest of theirs."""
    indices = range(len(p))
    subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(indices, size)]
    closed = [max(min(1.0, len(s) * min(p[i] for i in s)) for s in subsets if j in s) for j in indices]
    assert holm(p) == pytest.approx(closed)


def test_undefined_p_values_are_no_tests():
    assert holm([0.02, np.nan, 0.03]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert benjamini_hochberg([0.02, np.nan, 0.04]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert holm([]).size == 0
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\] or NaN, got shape \(2,\)"):
        holm([0.1, 1.2])


def test_a_table_says_who_wins_where():
    """Three patients, one without a positive pixel: two wins of two, and the reference is the best unless it is named."""
    good, bad = PixelCounts(np.array([1, 0, 9]), np.array([9, 0, 1])), PixelCounts(np.array([5, 0, 5]), np.array([5, 0, 5]))
    clean = PixelCounts(np.array([0, 0, 0]), np.array([20, 0, 0]))
    methods = {"bad": [bad, bad, clean], "good": [good, good, clean], "same": [good, bad, clean]}
    rows = compare(methods, ["a", "b", "c"], "dice", {"bad": 0.5, "good": 1.0, "same": 0.5}, generator=rng())
    assert [row["name"] for row in rows] == ["bad", "same"]
    assert {row["reference"] for row in rows} == {"good"}
    assert rows[0]["value"] == pytest.approx(20 / 40)
    assert rows[0]["reference_value"] == pytest.approx(36 / 40)
    assert [(row["wins"], row["ties"], row["patients"], row["clusters"]) for row in rows] == [(0, 0, 2, 3), (0, 1, 2, 3)]
    assert rows[0]["p"] == 0.5  # one patient of three has nothing to swap: the same in pairs of swaps
    named = compare(methods, ["a", "b", "c"], "dice", 0.5, "bad", generator=rng(), correction="none")
    assert [(row["name"], row["wins"], row["mean"] > 0) for row in named] == [("good", 2, True), ("same", 1, True)]
    assert all(row["p_adjusted"] == row["p"] for row in named)


def test_another_method_in_the_table_changes_no_interval():
    methods, names = drawn(rng(5), 15, methods=3)
    few = compare({"a": methods[0], "b": methods[1]}, names, "pxap", reference="a", generator=rng(), replicates=99)
    many = compare(
        dict(zip("acb", methods[:1] + methods[2:] + methods[1:2], strict=True)),
        names,
        reference="a",
        generator=rng(),
        replicates=99,
    )
    assert {k: v for k, v in many[1].items() if k != "p_adjusted"} == {k: v for k, v in few[0].items() if k != "p_adjusted"}


def test_where_nothing_can_be_told():
    (a, b), names = drawn(rng(6), 3)
    unknown = paired_difference(a, b, ["", *names[1:]], generator=rng())
    single = paired_difference(a, b, ["a"] * 6, generator=rng())
    assert (unknown.clusters, single.clusters) == (0, 1)
    assert unknown.mean == single.mean == pytest.approx(PixelCounts.total(a).pxap - PixelCounts.total(b).pxap)
    assert all(math.isnan(x) for found in (unknown, single) for x in found[1:4])
    (a, b), names = drawn(rng(6), 3, empty={0, 1, 2})
    for average in ("pooled", "image"):
        (row,) = compare({"a": a, "b": b}, names, "dice", 0.5, generator=rng(), average=average)
        assert [row[k] for k in ("value", "mean", "low", "p", "p_adjusted", "wins", "patients", "clusters")] == [None] * 5 + [
            0,
            0,
            3,
        ]


def test_what_does_not_fit_is_refused():
    (a, b), names = drawn(rng(7), 3)
    with pytest.raises(ValueError, match=r"sample 0 has .* on the same masks, in the same order"):
        paired_difference(a, [b[0] + b[1], *b[1:]], names, generator=rng())
    with pytest.raises(ValueError, match="got 6, 5 and 6"):
        paired_difference(a, b[1:], names, generator=rng())
    with pytest.raises(ValueError, match="did you mean 'dice'"):
        paired_difference(a, b, names, "dic", generator=rng())
    with pytest.raises(ValueError, match="unknown average 'macro'"):
        paired_difference(a, b, names, average="macro", generator=rng())
    with pytest.raises(ValueError, match="iou needs a threshold per method"):
        paired_difference(a, b, names, "iou", 0.5, generator=rng())
    with pytest.raises(ValueError, match="got 2 for 6 samples"):
        paired_difference(a, b, names, "iou", [0.5, 0.5], 0.5, generator=rng())
    with pytest.raises(ValueError, match="is no edge of 20 bins"):
        paired_difference(a, b, names, "iou", 0.51, 0.5, generator=rng())
    with pytest.raises(ValueError, match="two methods or more"):
        compare({"a": a}, names, generator=rng())
    with pytest.raises(ValueError, match="unknown reference 'c'"):
        compare({"a": a, "b": b}, names, reference="c", generator=rng())
    with pytest.raises(ValueError, match="did you mean 'holm'"):
        compare({"a": a, "b": b}, names, correction="holms", generator=rng())


def test_one_threshold_per_sample_is_that_samples():
    (a, b), names = drawn(rng(8), 2)
    each = [0.3, 0.5, 0.6, 0.45]
    pair = pair_up(a, b, names, "dice", (each, 0.5), "pooled")
    assert pair.a.sum(0).tolist() == [sum(getattr(c.at(t), k) for c, t in zip(a, each, strict=True)) for k in ("tp", "fp")] + [
        sum(int(c.positives.sum()) for c in a)
    ]


def test_a_drawn_p_value_is_never_zero():
    """With 14 patients 99 swaps are drawn, and the maps as they are count as one more: the best p is 1 / 100."""
    good, bad = PixelCounts(np.array([0, 0, 9]), np.array([9, 0, 0])), PixelCounts(np.array([9, 0, 0]), np.array([0, 0, 9]))
    names = [str(i) for i in range(14)]
    assert paired_difference([good] * 14, [bad] * 14, names, "iou", 1.0, 1.0, generator=rng(), replicates=99).p == 0.01
