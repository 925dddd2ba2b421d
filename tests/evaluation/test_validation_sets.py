from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from wsol.evaluation import PixelCounts, best_threshold, count_pixels, few_masks

BINS = 50


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(generator, images):
    """Masks of patients whose scores are shifted and whose lesions are more or less clear; `images` per patient."""
    counts, names = [], []
    for patient, number in enumerate(images):
        shift, gap = generator.normal(0, 0.08), 0.25 + generator.normal(0, 0.1)
        for _ in range(number):
            moved, clear = shift + generator.normal(0, 0.04), gap + generator.normal(0, 0.05)
            positive = int(500 * generator.uniform(0.1, 0.8))
            scores = np.clip(generator.normal(0.4 + moved, 0.13, 500) + clear * (np.arange(500) < positive), 0, 0.9999)
            at = (scores * BINS).astype(int)
            counts.append(PixelCounts(*(np.bincount(part, minlength=BINS + 1) for part in (at[:positive], at[positive:]))))
            names.append(f"p{patient}")
    return counts, names


def test_intervals_equal_a_slow_loop(make_scene):
    """Draw patients, add up all their masks, choose the threshold anew; then the estimate, t and the standard error by hand."""
    counts = [count_pixels(*make_scene(seed, prevalence=0.1 + 0.1 * seed), bins=40) for seed in range(6)]
    names = ["a", "a", "b", "c", "c", "d"]
    for metric in ("dice", "iou"):
        found = few_masks(counts, names, metric, generator=rng(), replicates=40)
        chosen = []
        for draw in rng().multinomial(4, np.full(4, 1 / 4), size=40):
            total = PixelCounts.total([c for c, n in zip(counts, names, strict=True) for _ in range(draw["abcd".index(n)])])
            at = best_threshold(total, metric, masks=6).value
            chosen.append((at, getattr(total.at(at), metric)))
        total = PixelCounts.total(counts)
        assert found.threshold == best_threshold(total, metric, masks=6).value
        assert found.value == getattr(total.at(found.threshold), metric)
        half = stats.t.ppf(0.975, 3) * np.std(chosen, axis=0) * np.sqrt(4 / 3)
        ends = [(found.threshold_low, found.threshold_high), (found.value_low, found.value_high)]
        for i, (estimate, end) in enumerate(zip((found.threshold, found.value), ends, strict=True)):
            assert end == pytest.approx((max(0, estimate - half[i]), min(1, estimate + half[i])), abs=1e-12)
        assert (found.threshold_shift, found.value_shift) == pytest.approx(tuple(np.sqrt(2) * half), abs=1e-12)
        assert (found.masks, found.patients) == (6, 4)


def test_six_masks_cover_where_the_percentile_bootstrap_does_not():
    """Six masks of four patients: 95 percent asked, about that held; by percentiles of the same draws about eight of ten."""
    many, _ = drawn(rng(99), [1] * 3000)
    total = PixelCounts.total(many)
    truth = best_threshold(total, masks=3000).value
    best = total.at(truth).dice
    covered, percentile, shifted = np.zeros(2), np.zeros(2), np.zeros(2)
    for seed in range(100):
        counts, names = drawn(rng(seed), [2, 2, 1, 1])
        found = few_masks(counts, names, generator=rng(seed), replicates=100)
        covered += [found.threshold_low <= truth <= found.threshold_high, found.value_low <= best <= found.value_high]
        tables = [PixelCounts.total([c for c, n in zip(counts, names, strict=True) if n == f"p{i}"]) for i in range(4)]
        sets = rng(seed).multinomial(4, np.full(4, 1 / 4), size=100)
        sums = [
            PixelCounts(*(np.einsum("p,pb->b", w, np.stack([getattr(t, k) for t in tables])) for k in ("positives", "negatives")))
            for w in sets
        ]
        plain = [(t := best_threshold(s, masks=6).value, s.at(t).dice) for s in sums]
        low, high = np.percentile(plain, [2.5, 97.5], axis=0)
        percentile += (low <= (truth, best)) & ((truth, best) <= high)
        other, _ = drawn(rng(seed + 5000), [2, 2, 1, 1])
        again = best_threshold(PixelCounts.total(other), masks=6).value
        gaps = abs(again - found.threshold), abs(PixelCounts.total(other).at(again).dice - found.value)
        shifted += gaps <= np.add((found.threshold_shift, found.value_shift), 1e-9)
    assert (covered >= 89).all()
    assert (shifted >= 87).all()
    assert (percentile <= 87).all()


def test_more_masks_tell_more():
    few, many = ([few_masks(*drawn(rng(seed), [1] * n), generator=rng()) for seed in range(8)] for n in (6, 40))
    for low, high in (("threshold_low", "threshold_high"), ("value_low", "value_high")):
        widths = [np.mean([getattr(f, high) - getattr(f, low) for f in sets]) for sets in (few, many)]
        assert widths[1] < 0.6 * widths[0]  # 1 / sqrt(40 / 6) of it, 0.39, and a smaller t: 0.3


def test_masks_that_agree_leave_no_doubt():
    """The same mask of every patient: no draw differs, and each bin's Dice is known."""
    one = PixelCounts(np.array([0, 0, 8, 0]), np.array([7, 0, 2, 0]))
    found = few_masks([one] * 5, list("abcde"), generator=rng())
    assert (found.threshold_low, found.threshold, found.threshold_high) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (found.value_low, found.value, found.value_high, found.value_shift) == pytest.approx((16 / 18, 16 / 18, 16 / 18, 0))


def test_the_sentence_says_it():
    counts, names = drawn(rng(1), [2, 2, 1, 1])
    found = few_masks(counts, names, generator=rng())
    assert found.sentence.startswith(
        "6 masks of 4 patients: the best threshold lies anywhere between"
        f" {found.threshold_low:.2f} and {found.threshold_high:.2f}"
    )
    assert f"Dice anywhere between {found.value_low:.2f} and {found.value_high:.2f}" in found.sentence
    facts = found.to_dict()
    assert facts["threshold"] == [found.threshold_low, found.threshold_high]
    assert facts["dice"] == [found.value_low, found.value_high]
    assert (facts["masks"], facts["patients"], facts["sentence"]) == (6, 4, found.sentence)
    assert "its IoU anywhere" in few_masks(counts, names, "iou", generator=rng()).sentence


@pytest.mark.parametrize(("names", "who", "patients"), [(["a"] * 6, "1 patient", 1), (["a"] * 5 + [""], "unknown patients", 0)])
def test_one_patient_or_unknown_ones_tell_nothing(names, who, patients):
    counts, _ = drawn(rng(2), [6])
    found = few_masks(counts, names, generator=rng())
    assert f"6 masks of {who}: nothing tells how far the threshold {found.threshold:.2f}" in found.sentence
    assert found.patients == patients
    assert all(
        math.isnan(getattr(found, k)) for k in ("threshold_low", "threshold_high", "value_low", "value_high", "value_shift")
    )
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert facts["threshold"] == facts["dice"] == [None, None]


def test_masks_without_a_positive_pixel_count_as_what_they_are():
    """Two patients of three have none: draws of these alone choose no threshold and are left out."""
    counts, _ = drawn(rng(3), [1, 1, 1])
    empty = [PixelCounts(np.zeros(BINS + 1, np.int64), c.histogram) for c in counts[1:]]
    counts = [counts[0], *empty]
    found = few_masks(counts, list("abc"), generator=rng(), replicates=60)
    draws = [draw for draw in rng().multinomial(3, np.full(3, 1 / 3), size=60) if draw[0]]
    totals = [PixelCounts.total([c for c, times in zip(counts, draw, strict=True) for _ in range(times)]) for draw in draws]
    spread = np.std([best_threshold(total, masks=3).value for total in totals])
    assert len(draws) < 60
    assert found.threshold_shift == pytest.approx(np.sqrt(2) * stats.t.ppf(0.975, 2) * spread * np.sqrt(3 / 2))
    assert "of 3 patients" in found.sentence


def test_what_does_not_fit_is_refused():
    counts, names = drawn(rng(4), [1, 1])
    with pytest.raises(ValueError, match="one patient per mask, got 1 for 2"):
        few_masks(counts, names[:1], generator=rng())
    with pytest.raises(ValueError, match="did you mean 'dice'"):
        few_masks(counts, names, "dise", generator=rng())
    with pytest.raises(ValueError, match="need at least one sample"):
        few_masks([], [], generator=rng())
    with pytest.raises(ValueError, match="hold no positive pixel"):
        few_masks([PixelCounts(np.zeros(3, int), np.ones(3, int))], ["a"], generator=rng())
