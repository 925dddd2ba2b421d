from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsol.evaluation import PixelCounts, PixelCurve, count_pixels, pixel_average_precision, score_histogram

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
laws = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def maps(draw):
    """(score, mask) of one shape with at least one positive; many scores sit on edges, at 0, at 1, or repeat."""
    shape = draw(SHAPES)
    values = st.one_of(st.integers(0, 1000).map(lambda i: i * 0.001), st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0]))
    score = draw(hnp.arrays(np.float64, shape, elements=values)).astype(np.float32)
    mask = draw(hnp.arrays(np.bool_, shape))
    mask.flat[0] = True
    return score, mask


def curve_of(*pairs, **options):
    curve = PixelCurve(**options)
    for score, mask in pairs:
        curve.add(score, mask)
    return curve


@laws
@given(maps())
def test_bins_and_pxap_equal_the_fields_bit_for_bit(slow, pair):
    oracle = type(slow)()  # a fresh one per example
    oracle.add(*pair)
    counts = count_pixels(*pair)
    assert np.array_equal(np.append(counts.positives, 0), oracle.true)
    assert np.array_equal(np.append(counts.negatives, 0), oracle.false)
    assert counts.pxap == oracle.pxap()


def test_pxap_over_many_maps_equals_the_fields_bit_for_bit(make_scene, slow):
    curve = PixelCurve()
    for seed in range(6):
        pair = make_scene(seed, levels=1000 if seed % 2 else None)
        slow.add(*pair)
        curve.add(*pair)
    assert curve.result().pxap == slow.pxap()


def test_every_edge_and_its_neighbors_fall_where_histogram_puts_them(slow):
    on = (np.arange(1001) * 0.001).astype(np.float32)
    score = np.clip(np.concatenate([on, np.nextafter(on, np.float32(2)), np.nextafter(on, np.float32(-1))]), 0, 1)[None]
    mask = np.zeros(score.shape, bool)
    slow.add(score, mask)
    assert np.array_equal(np.append(count_pixels(score, mask).negatives, 0), slow.false)


def test_a_case_done_by_hand():
    score = np.array([[0.9, 0.8, 0.6, 0.2]], np.float32)
    mask = np.array([[True, False, True, False]])
    result = curve_of((score, mask), exact=True).result()
    # from the top: P=1 R=1/2, then a miss, then P=2/3 R=1
    assert result.pxap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-15)
    assert result.exact_ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-15)
    assert result.prevalence == 0.5
    assert result.best_dice == pytest.approx(4 / 5)  # threshold in (0.2, 0.6]: TP 2, FP 1, FN 0
    # float32(0.6) lies just above 0.6, float32(0.2) just above 0.2: the run of best edges is 0.201 ... 0.600
    assert result.threshold_at_best_dice == pytest.approx(0.4, abs=0.0011)
    here = curve_of((score, mask)).counts.at(0.7)
    assert (here.tp, here.fp, here.fn, here.tn) == (1, 1, 1, 1)
    assert (here.precision, here.recall, here.dice, here.iou, here.area) == (0.5, 0.5, 0.5, pytest.approx(1 / 3), 0.5)


def test_average_precision_of_maps_of_any_size(make_scene):
    pairs = [make_scene(0), make_scene(1, shape=(30, 20)), make_scene(2, levels=7)]
    whole = curve_of(*pairs, exact=True).result()
    maps, masks = [s for s, _ in pairs], [m for _, m in pairs]
    assert pixel_average_precision(iter(maps), masks) == whole.exact_ap
    assert pixel_average_precision(maps, iter(masks), exact=False) == whole.pxap
    with pytest.raises(ValueError, match="the masks end before number 3"):
        pixel_average_precision(maps, masks[:2])
    with pytest.raises(ValueError, match="the maps end before number 2"):
        pixel_average_precision(maps[:1], masks)
    with pytest.raises(ValueError, match="no maps"):
        pixel_average_precision([], [])


@laws
@given(maps())
def test_curve_equals_a_slow_loop_over_thresholds(pair):
    score, mask = pair
    counts = count_pixels(score, mask, bins=20)
    curve = counts.curve()
    for i in range(0, 21, 4):
        flagged = score.astype(np.float64) >= curve.threshold[i]
        tp, fp, fn = (flagged & mask).sum(), (flagged & ~mask).sum(), (~flagged & mask).sum()
        assert curve.recall[i] == tp / (tp + fn)
        assert curve.dice[i] == 2 * tp / (2 * tp + fp + fn)
        assert curve.iou[i] == tp / (tp + fp + fn)
        assert np.isnan(curve.precision[i]) if not flagged.any() else curve.precision[i] == tp / (tp + fp)
        here = counts.at(float(curve.threshold[i]))
        assert (here.tp, here.fp, here.fn, here.tn) == (tp, fp, fn, score.size - tp - fp - fn)
        assert (here.dice, here.iou, here.recall) == (curve.dice[i], curve.iou[i], curve.recall[i])


@laws
@given(hnp.arrays(np.bool_, SHAPES))
def test_perfect_map_scores_one(mask):
    mask.flat[0] = True
    result = curve_of((mask.astype(np.float32), mask), exact=True).result()
    assert (result.pxap, result.exact_ap, result.best_dice) == (1.0, 1.0, 1.0)
    assert 0.0 < result.threshold_at_best_dice <= 1.0


@laws
@given(hnp.arrays(np.bool_, SHAPES), st.floats(0, 1, width=32))
def test_constant_map_scores_its_prevalence(mask, value):
    mask.flat[0] = True
    result = curve_of((np.full(mask.shape, value, np.float32), mask), exact=True).result()
    assert result.pxap == result.exact_ap == result.prevalence == mask.mean()


def test_random_map_scores_its_prevalence():
    generator = np.random.default_rng(1)
    mask = generator.random((500, 500)) < 0.2
    result = curve_of((generator.random(mask.shape, np.float32), mask), exact=True).result()
    assert result.pxap == pytest.approx(0.2, abs=0.005)
    assert result.exact_ap == pytest.approx(0.2, abs=0.005)


@laws
@given(maps(), maps())
def test_merged_curves_are_the_curve_of_all(first, second):
    whole = curve_of(first, second, exact=True)
    merged = curve_of(first, exact=True) + curve_of(second, exact=True)
    assert np.array_equal(whole.counts.positives, merged.counts.positives)
    assert np.array_equal(whole.counts.negatives, merged.counts.negatives)
    assert (whole.result().pxap, whole.result().exact_ap) == (merged.result().pxap, merged.result().exact_ap)


@laws
@given(maps(), st.randoms(use_true_random=False))
def test_order_of_pixels_and_of_maps_does_not_matter(pair, random):
    score, mask = pair
    order = list(range(score.size))
    random.shuffle(order)
    shuffled = (score.ravel()[order], mask.ravel()[order])
    assert curve_of(pair, exact=True).result().exact_ap == curve_of(shuffled, exact=True).result().exact_ap
    assert count_pixels(*pair).pxap == count_pixels(*shuffled).pxap


def test_ignored_pixels_count_neither_way(make_scene):
    score, mask = make_scene(3)
    ignore = np.zeros(mask.shape, bool)
    ignore[:, :20] = True
    left = PixelCurve(exact=True)
    left.add(score, mask, ignore)
    right = curve_of((score[:, 20:], mask[:, 20:]), exact=True)
    assert np.array_equal(left.counts.positives, right.counts.positives)
    assert np.array_equal(left.counts.negatives, right.counts.negatives)
    assert left.exact_ap() == right.exact_ap()
    everything = count_pixels(score, mask, np.ones(mask.shape, bool))
    assert everything.pixels == 0
    assert math.isnan(everything.prevalence)


def test_add_returns_the_counts_of_this_map_alone(make_scene):
    curve = PixelCurve()
    parts = [curve.add(*make_scene(seed)) for seed in range(3)]
    assert [p.pixels for p in parts] == [2000] * 3
    assert np.array_equal(PixelCounts.total(parts).positives, curve.counts.positives)


def test_views_of_an_array_count_as_their_copies(make_scene):
    score, mask = make_scene(5)
    view, copy = (
        curve_of((score[::2, ::-1], mask[::2, ::-1]), exact=True),
        curve_of((score[::2].copy(), mask[::2].copy()), exact=True),
    )
    assert np.array_equal(view.counts.positives, copy.counts.positives)
    assert view.exact_ap() == copy.exact_ap()


def test_minus_zero_is_zero():
    score, mask = np.array([[-0.0, 0.0]], np.float32), np.array([[True, False]])
    assert curve_of((score, mask), exact=True).result().exact_ap == 0.5
    assert count_pixels(score, mask).positives[0] == 1


def test_without_positives_all_is_nan_but_the_prevalence(make_scene):
    score, mask = make_scene(0)
    result = curve_of((score, np.zeros_like(mask)), exact=True).result()
    assert result.prevalence == 0.0
    for value in (result.pxap, result.exact_ap, result.best_dice, result.threshold_at_best_dice):
        assert math.isnan(value)
    for name in ("precision", "recall", "dice", "iou"):
        assert np.isnan(getattr(result.curve, name)).all()


def test_a_binned_curve_has_no_exact_ap(make_scene):
    assert curve_of(make_scene(0)).result().exact_ap is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-6, 1.0001])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_broken_map_is_an_error_and_leaves_the_curve_as_it_was(make_scene, bad, ignored):
    score, mask = make_scene(0)
    curve = curve_of((score, mask), exact=True)
    before, ap = curve.counts, curve.exact_ap()
    broken = score.copy()
    broken[7, 11] = bad
    ignore = np.ones(mask.shape, bool) if ignored else None  # even an ignored NaN is a broken map
    with pytest.raises(ValueError, match=r"finite and in \[0, 1\], got .* at \(7, 11\) \(1 of 2000 pixels\)"):
        curve.add(broken, mask, ignore)
    assert curve.counts is before
    assert curve.exact_ap() == ap


@pytest.mark.parametrize(
    ("score", "mask", "ignore", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3), bool), None, "score must be float32, got float64"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint8), None, "mask must be bool, got uint8"),
        (np.zeros((2, 3), np.float32), np.zeros((3, 2), bool), None, r"mask is \(3, 2\) but score is \(2, 3\)"),
        (
            np.zeros((2, 3), np.float32),
            np.zeros((2, 3), bool),
            np.zeros((2, 2), bool),
            r"ignore is \(2, 2\) but score is \(2, 3\)",
        ),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), bool), np.zeros((2, 3)), "ignore must be bool, got float64"),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), bool), None, r"score is empty, shape \(0, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_values(score, mask, ignore, message):
    with pytest.raises(ValueError, match=message):
        PixelCurve().add(score, mask, ignore)


def test_curves_of_different_kinds_do_not_add():
    with pytest.raises(ValueError, match="10 bins and of 20"):
        PixelCurve(bins=10) + PixelCurve(bins=20)
    with pytest.raises(ValueError, match="exact curve and a binned one"):
        PixelCurve(exact=True) + PixelCurve()
    with pytest.raises(ValueError, match="at least 1, got 0"):
        PixelCurve(bins=0)


def test_score_histogram_sees_no_mask(make_scene):
    score, mask = make_scene(2)
    assert np.array_equal(score_histogram(score), count_pixels(score, mask).histogram)


def test_kernels_work_where_nothing_can_be_cached(monkeypatch):
    """A read-only installation has no folder for compiled code; numba then raises at decoration."""
    import numba

    from wsol.evaluation import kernels

    asked = []

    def njit(**options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert kernels.compiled(abs) is abs
    assert [o.get("cache", False) for o in asked] == [True, False]
