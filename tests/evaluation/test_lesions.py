from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure

from wsol._names import resolve
from wsol.evaluation import (
    METRICS,
    Box,
    Lesion,
    PredictedRegions,
    Threshold,
    count_pixels,
    detections,
    lesion_recall,
    lesions,
    predicted_regions,
    recall_by_size,
)

laws = settings(max_examples=60, deadline=None)


@st.composite
def scored(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))
    score = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 4)))
    return (score / 4).astype(np.float32), draw(hnp.arrays(np.bool_, shape))


def scene():
    """Two lesions on the diagonal that touch at a corner, and a third apart, of which half is found."""
    mask = np.zeros((12, 12), np.bool_)
    mask[1:3, 1:3] = mask[3:5, 3:5] = mask[8:10, 6:10] = True
    score = np.zeros((12, 12), np.float32)
    score[8:10, 4:8], score[2, 2], score[0, 11] = 0.75, 0.25, 1.0
    return score, mask


def test_lesions_by_hand():
    score, mask = scene()
    first, second = lesions(score, mask, 0.5, mpp=0.5)
    assert first == Lesion(label=1, area=8, area_um2=2.0, box=Box(1, 1, 4, 4), covered=0.0, hit=False, peak=0.25)
    assert second == Lesion(label=2, area=8, area_um2=2.0, box=Box(6, 8, 9, 9), covered=0.5, hit=True, peak=0.75)
    assert lesion_recall([first, second]) == 0.5
    assert math.isnan(lesions(score, mask, 0.5)[0].area_um2)


def test_four_neighbors_part_at_the_corner():
    score, mask = scene()
    assert [lesion.area for lesion in lesions(score, mask, 0.25, connectivity=4)] == [4, 4, 8]
    assert [lesion.hit for lesion in lesions(score, mask, 0.25, connectivity=4)] == [True, False, True]


def test_a_label_image_keeps_lesions_apart_and_pieces_together():
    ids = np.zeros((4, 9), np.int32)
    ids[:, :3], ids[:, 3:6], ids[0, 8] = 7, 900000, 7
    score = np.zeros((4, 9), np.float32)
    score[0, 8], score[:2, 3:6] = 1.0, 0.5
    one, other = lesions(score, ids, 0.5)
    assert (one.label, one.area, one.box, one.covered, one.peak) == (7, 13, Box(0, 0, 8, 3), 1 / 13, 1.0)
    assert (other.label, other.area, other.box, other.covered, other.peak) == (900000, 12, Box(3, 0, 5, 3), 0.5, 0.5)
    assert len(lesions(score, ids > 0, 0.5)) == 2  # the touching two are one, the piece is another


def test_a_share_may_be_asked_for():
    score, mask = scene()
    for share, hit in ((0.5, True), (0.51, False)):
        assert lesions(score, mask, 0.5, rule="min-share", min_share=share)[1].hit is hit


@laws
@given(scored(), st.sampled_from([4, 8]), st.sampled_from([0.25, 0.5, 1.0]))
def test_lesions_are_skimages_regions(pair, connectivity, threshold):
    score, mask = pair
    labels = measure.label(mask, connectivity=1 if connectivity == 4 else 2)
    expected = []
    for region in measure.regionprops(labels):
        inside, (y0, x0, y1, x1) = score[labels == region.label], region.bbox
        expected.append((Box(x0, y0, x1 - 1, y1 - 1), region.area, np.mean(inside >= threshold), inside.max()))
    got = lesions(score, mask, threshold, connectivity=connectivity)
    assert [(lesion.box, lesion.area, lesion.covered, lesion.peak) for lesion in got] == expected
    assert sum(lesion.area for lesion in got) == mask.sum()
    assert sum(lesion.covered * lesion.area for lesion in got) == pytest.approx((score >= threshold)[mask].sum())
    assert [lesion.hit for lesion in got] == [lesion.peak >= threshold for lesion in got]


@laws
@given(scored(), st.sampled_from([4, 8]))
def test_a_label_image_of_the_regions_is_the_mask(pair, connectivity):
    score, mask = pair
    labels = measure.label(mask, connectivity=1 if connectivity == 4 else 2)
    assert lesions(score, labels, 0.5, mpp=2) == lesions(score, mask, 0.5, mpp=2, connectivity=connectivity)


def test_without_lesions_recall_is_undefined():
    assert lesions(np.ones((3, 3), np.float32), np.zeros((3, 3), np.bool_), 0.5) == []
    assert math.isnan(lesion_recall([]))


def sized(area, hit, area_um2=math.nan):
    return Lesion(1, area, area_um2, Box(0, 0, 0, 0), float(hit), hit, float(hit))


def test_recall_by_size_cuts_at_the_edges():
    found = [sized(9, False), sized(10, True), sized(99, False), sized(100, True), sized(10**6, True)]
    bins = recall_by_size(found, [10, 100])
    assert [(b.low, b.high, b.lesions, b.hits) for b in bins] == [(0, 10, 1, 0), (10, 100, 2, 1), (100, math.inf, 2, 2)]
    assert [b.recall for b in bins] == [0.0, 0.5, 1.0]
    assert math.isnan(recall_by_size(found, [1])[0].recall)
    assert recall_by_size([sized(100, True, 25.0)], [30], unit="um2")[0].hits == 1


@laws
@given(scored(), st.lists(st.integers(1, 50), unique=True, max_size=4))
def test_recall_by_size_loses_no_lesion(pair, edges):
    found = lesions(*pair, 0.5)
    bins = recall_by_size(found, sorted(edges))
    assert sum(b.lesions for b in bins) == len(found)
    assert sum(b.hits for b in bins) == sum(lesion.hit for lesion in found)


def test_predicted_regions_by_hand():
    score, mask = scene()
    assert predicted_regions(score, mask, 0.5) == PredictedRegions(count=2, touching=1)
    assert predicted_regions(score, mask, 0.5).precision == 0.5
    assert predicted_regions(score, mask, 0.25) == PredictedRegions(count=3, touching=2)
    assert predicted_regions(score, mask, 0.25, min_area=2) == PredictedRegions(count=1, touching=1)
    assert math.isnan(predicted_regions(score * 0, mask, 0.5).precision)
    assert PredictedRegions(2, 1) + PredictedRegions(3, 0) == PredictedRegions(5, 1)


@laws
@given(scored(), st.sampled_from([4, 8]))
def test_predicted_regions_are_the_lesions_of_the_roles_swapped(pair, connectivity):
    score, mask = pair
    swapped = lesions(mask.astype(np.float32), score >= 0.5, 1.0, connectivity=connectivity)
    expected = PredictedRegions(len(swapped), sum(lesion.hit for lesion in swapped))
    assert predicted_regions(score, mask, 0.5, connectivity=connectivity) == expected


def test_the_metric_is_there():
    metric = resolve("metric", "lesion-recall", METRICS, "wsol.evaluation")
    assert metric(lesions(*scene(), 0.5)) == 0.5


def test_what_is_wrong_is_said():
    score, mask = scene()
    with pytest.raises(ValueError, match=r"did you mean 'min-share'"):
        lesions(score, mask, 0.5, rule="min_share")
    with pytest.raises(ValueError, match="min_share must be"):
        lesions(score, mask, 0.5, rule="min-share", min_share=50)
    with pytest.raises(ValueError, match="mpp"):
        lesions(score, mask, 0.5, mpp=0)
    with pytest.raises(ValueError, match="finite and in"):
        lesions(np.where(mask, np.nan, score).astype(np.float32), mask, 0.5)
    with pytest.raises(ValueError, match="float32"):
        predicted_regions(score.astype(np.float64), mask, 0.5)
    with pytest.raises(ValueError, match="resize the score"):
        lesions(score, mask[1:], 0.5)
    with pytest.raises(ValueError, match="resize the score"):
        predicted_regions(score, mask[1:], 0.5)
    for function in (lesions, predicted_regions):
        with pytest.raises(ValueError, match="whole ids"):
            function(score, mask.astype(np.float32), 0.5)
    with pytest.raises(ValueError, match="-1"):
        lesions(score, -mask.astype(np.int8), 0.5)
    with pytest.raises(ValueError, match="4 or 8"):
        lesions(score, mask, 0.5, connectivity=1)
    with pytest.raises(ValueError, match="ascend"):
        recall_by_size([], [5, 5])
    with pytest.raises(ValueError, match="pass mpp"):
        recall_by_size([sized(5, True)], [5], unit="um2")
    with pytest.raises(ValueError, match="unit of area"):
        recall_by_size([], [5], unit="mm2")


def test_regions_and_points_flag_the_pixels_that_counts_flag():
    """0.35 is no float32: a plain comparison rounds the threshold below the score of 0.35 and flags it, counts do not."""
    score, mask = np.full((4, 4), np.float32(0.35)), np.ones((4, 4), bool)
    assert count_pixels(score, mask).at(0.35).recall == 0.0
    assert not Threshold(0.35, "fixed").apply(score).any()
    assert lesions(score, mask, 0.35)[0].covered == 0.0
    assert predicted_regions(score, mask, 0.35).count == 0
    assert detections(score, min_distance_px=2, threshold=0.35) == []
    with pytest.raises(ValueError, match="threshold must lie in"):
        lesions(score, mask, float("nan"))
