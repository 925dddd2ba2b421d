from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsol.evaluation import Threshold, count_pixels, otsu, per_image_otsu, prevalence_matched, score_histogram
from wsol.evaluation.counts import edges


def two_levels(low, high, n=100):
    """Half the pixels at `low`, half at `high`; the high ones are the mask."""
    score = np.repeat(np.array([low, high], np.float32), n)[None]
    return score, score > (low + high) / 2


def test_otsu_agrees_with_scikit_image():
    from skimage.filters import threshold_otsu

    generator = np.random.default_rng(0)
    score = np.clip(np.concatenate([generator.normal(0.3, 0.1, 30_000), generator.normal(0.7, 0.08, 10_000)]), 0, 0.999)
    score = score.astype(np.float32)[None]
    histogram = score_histogram(score)
    centers = edges(1000)[:-1] + 0.0005
    theirs = threshold_otsu(hist=(histogram[:-1], centers))  # the center of the last bin of the lower group
    assert otsu(histogram).value == pytest.approx(theirs + 0.0005, abs=1e-9)


def test_otsu_parts_two_levels_in_their_middle_and_sees_no_mask():
    score, mask = two_levels(0.2, 0.6)
    chosen = otsu(score_histogram(score))
    assert chosen.value == pytest.approx(0.4, abs=0.002)
    assert chosen.source == "otsu"
    assert otsu(count_pixels(score, mask).histogram) == otsu(count_pixels(score, ~mask).histogram) == chosen


def test_otsu_of_one_level_is_a_fixed_threshold_and_says_so():
    for value in (0.0, 0.3, 1.0):
        assert otsu(score_histogram(np.full((2, 2), value, np.float32))) == Threshold(0.5, "fixed")


def test_otsu_refuses_other_histograms():
    with pytest.raises(ValueError, match=r"integer counts \(1001,\) from score_histogram.*\(1000,\)"):
        otsu(np.ones(1000, np.int64))
    with pytest.raises(ValueError, match="at least one pixel"):
        otsu(np.zeros(1001, np.int64))


def test_per_image_otsu_is_otsu_of_each_image(make_scene):
    histograms = {str(seed): score_histogram(make_scene(seed)[0]) for seed in range(4)}
    each = per_image_otsu(histograms)
    assert each.values == {sample: otsu(h).value for sample, h in histograms.items()}
    assert each.value == sorted(each.values.values())[1]
    assert each.source == "per-image otsu"
    assert each.facts == {"constant": 0}


def test_per_image_otsu_follows_each_image_where_one_threshold_cannot():
    dark, bright = two_levels(0.1, 0.3), two_levels(0.6, 0.9)
    each = per_image_otsu({"dark": score_histogram(dark[0]), "bright": score_histogram(bright[0])})
    for sample, (score, mask) in (("dark", dark), ("bright", bright)):
        assert np.array_equal(each.apply(score, sample), mask)
    pooled = otsu(score_histogram(dark[0]) + score_histogram(bright[0]))
    assert not pooled.apply(dark[0]).any()
    assert pooled.apply(bright[0]).all()


def test_per_image_otsu_counts_the_images_of_one_score_and_names_a_bad_one():
    flat = score_histogram(np.full((2, 2), 0.2, np.float32))
    assert per_image_otsu({"a": flat, "b": score_histogram(two_levels(0.2, 0.8)[0])}).facts == {"constant": 1}
    assert per_image_otsu({"a": flat}).at("a") == 0.5
    with pytest.raises(ValueError, match="otsu of sample 'b' needs at least one pixel"):
        per_image_otsu({"a": flat, "b": flat * 0})
    with pytest.raises(ValueError, match="at least one sample"):
        per_image_otsu({})


def test_prevalence_matched_by_hand():
    histogram = np.array([4, 0, 0, 3, 2, 1])  # 5 bins; flagged at edges 0 ... 1: 10 6 6 6 3 1 of 10
    for prevalence, edge, flagged in [(1.0, 0.0, 1.0), (0.6, 0.4, 0.6), (0.5, 0.4, 0.6), (0.3, 0.8, 0.3), (0.0, 1.0, 0.1)]:
        chosen = prevalence_matched(histogram, prevalence, bins=5)
        assert (chosen.value, chosen.facts["flagged"]) == (edge, flagged)
    assert prevalence_matched(histogram, 0.2, bins=5).value == 1.0  # 0.3 and 0.1 are as near: the smaller area
    assert prevalence_matched(histogram, 0.8, bins=5).value == 0.4  # 1.0 and 0.6 likewise, the middle of three equal edges
    assert prevalence_matched(histogram, 0.3, bins=5).badge == "prevalence-matched (given)"
    assert prevalence_matched(histogram, 0.3, masks=6, bins=5).badge == "prevalence-matched (6 masks)"


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, 21, elements=st.integers(0, 5)), st.floats(0, 1))
def test_no_edge_flags_a_share_nearer_to_the_prevalence(histogram, prevalence):
    histogram[7] += 1
    shares = [histogram[i:].sum() / histogram.sum() for i in range(21)]
    chosen = prevalence_matched(histogram, prevalence, bins=20)
    flagged = shares[round(chosen.value * 20)]
    best = min(abs(s - prevalence) for s in shares)
    assert chosen.facts["flagged"] == flagged
    assert abs(flagged - prevalence) == pytest.approx(best, abs=1e-12)
    assert flagged == min(s for s in shares if abs(s - prevalence) <= best + 1e-12)


def test_prevalence_matched_is_a_quantile_of_many_scores():
    score = np.random.default_rng(0).random((200, 200), np.float32)
    assert prevalence_matched(score_histogram(score), 0.23).value == pytest.approx(np.quantile(score, 0.77), abs=0.001)
    with pytest.raises(ValueError, match=r"share in \[0, 1\], got nan"):
        prevalence_matched(score_histogram(score), float("nan"))
    with pytest.raises(ValueError, match=r"prevalence-matched threshold needs integer counts \(1001,\)"):
        prevalence_matched(np.ones(5, np.int64), 0.5)
