from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.apps.pathology.utils import compute_isolated_tumor_cells, compute_multi_instance_mask
from monai.metrics import compute_fp_tp_probs, compute_froc_curve_data, compute_froc_score

from wsol._names import resolve
from wsol.evaluation import (
    METRICS,
    Detection,
    Froc,
    SlideFindings,
    detections,
    evaluation_mask,
    isolated_tumor_cells,
    slide_findings,
)

laws = settings(max_examples=60, deadline=None)
CONFIDENCES = st.integers(1, 16).map(lambda i: i / 16)  # MONAI keeps hits as float32: sixteenths are the same there


@st.composite
def slide(draw, size=12):
    """(points, regions or None, isolated ids)"""
    whole = st.integers(0, size - 1)
    points = [Detection(*p) for p in draw(st.lists(st.tuples(whole, whole, CONFIDENCES), max_size=8))]
    if draw(st.booleans()):
        return points, None, []
    rows = draw(st.lists(st.integers(1, 4), min_size=4, max_size=4))
    regions = np.zeros((size, size), np.int32)
    for i, height in enumerate(rows):
        regions[2:, 3 * i : 3 * i + 2][:height] = i + 1
    return points, regions, draw(st.lists(st.integers(1, 4), unique=True, max_size=3))


def monai(slides):
    """(curve's false positives, sensitivity, score, whether a region is without a hit) of MONAI's copy of the script."""
    false, true, lesions, missed = [], [], 0, False
    for points, regions, isolated in slides:
        x, y, confidence = np.array(points, np.float64).reshape(-1, 3).T
        labels = np.zeros((12, 12), np.int32) if regions is None else regions
        fp, tp, count = compute_fp_tp_probs(confidence, y, x, labels, isolated, 0)
        false.extend(fp)
        true.extend(tp)
        lesions += count
    false, true = np.array(false), np.array(true)
    missed = (true == 0).any()
    if not lesions or not missed:
        return None, None, math.nan, missed
    fps, sensitivity = compute_froc_curve_data(false, true, lesions, len(slides))
    return fps, sensitivity, compute_froc_score(fps, sensitivity), missed


def state_of(slides):
    froc = Froc()
    for points, regions, isolated in slides:
        froc.add(points, regions, isolated=isolated)
    return froc


@laws
@given(st.lists(slide(), min_size=1, max_size=4))
def test_froc_is_monais_where_a_region_is_missed(slides):
    fps, sensitivity, score, missed = monai(slides)
    assume(missed)
    result = state_of(slides).result()
    assert result.score == pytest.approx(score, nan_ok=True)
    if fps is not None:
        assert result.false_positives == pytest.approx(fps)
        assert result.sensitivity == pytest.approx(sensitivity)


def blocks():
    """Three lesions, the last of isolated cells, and an empty slide of the same size."""
    regions = np.zeros((10, 20), np.int32)
    regions[1:4, 1:4], regions[1:4, 8:12], regions[8, 18] = 1, 2, 3
    return regions


def test_froc_by_hand():
    froc = Froc()
    on_tumor = [
        Detection(2, 2, 0.9),  # lesion 1
        Detection(3, 3, 0.6),  # again: does not count
        Detection(9, 2, 0.5),  # lesion 2
        Detection(18, 8, 0.99),  # isolated cells: counts neither way
        Detection(6, 6, 0.7),  # false
    ]
    mine = froc.add(on_tumor, blocks(), isolated=[3])
    assert (mine.found.tolist(), mine.false.tolist(), mine.lesions) == ([0.9, 0.5], [0.7], 2)
    froc.add([Detection(0, 0, 0.8), Detection(1, 1, 0.4)])  # no tumor: all false
    result = froc.result()
    assert result.threshold.tolist() == [0.4, 0.5, 0.7, 0.8, 0.9, math.inf]
    assert result.false_positives.tolist() == [1.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert result.sensitivity.tolist() == [1.0, 1.0, 0.5, 0.5, 0.5, 0.0]
    assert result.sensitivities == (0.5, 0.5, 1.0, 1.0, 1.0, 1.0)  # at one false positive the higher of two points counts
    assert result.score == 5 / 6
    assert (result.lesions, result.slides) == (2, 2)
    metric = resolve("metric", "lesion-sensitivity", METRICS, "wsol.evaluation")
    assert (metric(froc), metric(froc, 0.6), metric(froc, 0.95)) == (1.0, 0.5, 0.0)
    assert resolve("metric", "froc", METRICS, "wsol.evaluation")(froc) == result.score


def test_sensitivity_between_points_is_linear():
    froc = Froc(rates=(0.25, 0.5, 3.0))
    regions = blocks()
    froc.add([Detection(2, 2, 0.4), Detection(6, 6, 0.9)], regions, isolated=[3])
    assert froc.result().sensitivities == (0.0, 0.0, 0.5)  # up to one false positive nothing is found, then straight up
    froc.add([Detection(2, 2, 0.8), Detection(9, 2, 0.8)], regions, isolated=[3])
    assert froc.result().false_positives.tolist() == [0.5, 0.5, 0.5, 0.0]
    froc.add([Detection(6, 6, 0.8)])
    assert froc.result().sensitivities == pytest.approx((0.0, 0.25, 0.75))  # half way from (1/3, 0) to (2/3, 1/2); then the end


def test_a_perfect_detector_scores_one():
    froc = Froc()
    froc.add([Detection(2, 2, 0.9)], (blocks() == 1).astype(np.int32))
    assert froc.result().score == 1.0
    fps, sensitivity = compute_froc_curve_data(np.zeros(0), np.array([0.9]), 1, 1)
    assert compute_froc_score(fps, sensitivity) == 0.0  # the one difference: the script drops its only point


def test_without_detections_nothing_is_found_and_without_lesions_nothing_is_defined():
    froc = Froc()
    assert math.isnan(froc.result().score)
    froc.add([], None)
    assert math.isnan(froc.result().score)
    assert math.isnan(resolve("metric", "lesion-sensitivity", METRICS, "wsol.evaluation")(froc))
    froc.add([], blocks())
    assert froc.result().score == 0.0
    assert froc.result().lesions == 3


@laws
@given(st.lists(slide(), min_size=2, max_size=4))
def test_states_add_up_in_any_order(slides):
    whole, parts = state_of(slides).result(), (state_of(slides[1:]) + state_of(slides[:1])).result()
    assert whole.score == pytest.approx(parts.score, nan_ok=True)
    assert np.array_equal(whole.threshold, parts.threshold)
    assert np.array_equal(whole.sensitivity, parts.sensitivity, equal_nan=True)
    every = SlideFindings.total(slide_findings(p, r, isolated=i) for p, r, i in slides)
    assert (every.lesions, every.slides) == (whole.lesions, whole.slides)


def test_points_of_another_level_are_scaled():
    regions = blocks()
    found = slide_findings([Detection(11 * 32 + 31, 3 * 32 + 31, 0.5), Detection(12 * 32, 0, 0.25)], regions, downsample=32)
    assert (found.found.tolist(), found.false.tolist()) == ([0.5], [0.25])


@st.composite
def tumors(draw):
    centers = draw(st.lists(st.tuples(st.integers(0, 59), st.integers(0, 79), st.integers(1, 9)), min_size=1, max_size=5))
    rows, columns = np.mgrid[:60, :80]
    rings = np.zeros((60, 80), np.bool_)
    for y, x, radius in centers:
        distance = np.hypot(rows - y, columns - x)
        rings |= (distance <= radius) & (distance >= radius - 2)
    return rings


@laws
@given(tumors(), st.sampled_from([7.776, 15.0, 40.0, 80.0]))
def test_the_evaluation_mask_and_isolated_cells_are_monais(mask, mpp):
    assume(mask.any())
    regions = evaluation_mask(mask, mpp=mpp)
    expected = compute_multi_instance_mask(mask.astype(np.int64), 75 / (mpp * 2))
    assert np.array_equal(regions, expected)
    assert isolated_tumor_cells(regions, mpp=mpp) == [
        i for i in range(1, expected.max() + 1) if i in compute_isolated(expected, 275 / mpp)
    ]


def compute_isolated(regions, threshold):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI asks for an old name of the axis
        return compute_isolated_tumor_cells(regions, threshold)


@pytest.mark.parametrize(("gap", "lesions"), [(8, 1), (9, 2)])
def test_lesions_merge_below_75_micrometers(gap, lesions):
    mask = np.zeros((20, 40), np.bool_)
    mask[8:12, 5:10] = mask[8:12, 10 + gap : 20 + gap] = True  # `gap` free pixels of 9 um: 72 or 81 um
    assert evaluation_mask(mask, mpp=9.0).max() == lesions


def test_grown_lesions_are_filled():
    mask = np.zeros((40, 40), np.bool_)
    mask[5:30, 5:30] = True
    mask[7:28, 7:28] = False
    regions = evaluation_mask(mask, mpp=10.0)
    assert regions[17, 17] == 1
    assert regions[5, 2] == 1  # 30 um outside
    assert regions[5, 1] == 0  # 40 um
    assert not evaluation_mask(mask & False, mpp=10.0).any()


def test_isolated_cells_are_short():
    regions = np.zeros((30, 60), np.int32)
    regions[2:12, 2:12], regions[15:17, 2:50] = 1, 5  # 11.5 and 55 pixels long: the ellipse of a square of 10, of a bar of 48
    assert isolated_tumor_cells(regions, mpp=25.0) == []
    assert isolated_tumor_cells(regions, mpp=23.0) == [1]
    assert isolated_tumor_cells(regions, mpp=4.0) == [1, 5]


def slow_detections(score, distance, threshold):
    """The highest pixel, everything nearer than the distance removed, again."""
    score, points = score.copy(), []
    rows, columns = np.mgrid[: score.shape[0], : score.shape[1]]
    while score.max() >= threshold:
        y, x = np.unravel_index(np.argmax(score), score.shape)
        points.append((x, y, score[y, x]))
        score[np.hypot(rows - y, columns - x) < distance] = -1
    return points


@laws
@given(
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 6)),
    st.sampled_from([1.0, 1.5, 2.0, 3.7, 100.0]),
    st.sampled_from([1 / 6, 0.5, 1.0]),
)
def test_detections_are_those_of_repeated_maxima(whole, distance, threshold):
    score = (whole / 6).astype(np.float32)
    assert detections(score, min_distance_px=distance, threshold=threshold) == slow_detections(score, distance, threshold)


def test_detections_by_hand():
    score = np.zeros((20, 30), np.float32)
    score[4, 5], score[4, 8], score[15, 25], score[10, 10] = 0.75, 0.5, 1.0, 0.25
    assert detections(score, min_distance_px=4, threshold=0.5) == [(25, 15, 1.0), (5, 4, 0.75)]
    assert detections(score, min_distance_px=3, threshold=0.5)[2] == Detection(x=8, y=4, confidence=0.5)
    assert detections(np.full((3, 5), 0.5, np.float32), min_distance_px=4, threshold=0.5) == [(0, 0, 0.5), (4, 0, 0.5)]
    assert detections(score, min_distance_px=4, threshold=1.0) == [(25, 15, 1.0)]
    assert detections(score * 0, min_distance_px=4, threshold=0.1) == []


def test_from_maps_to_a_score():
    mask = np.zeros((64, 64), np.bool_)
    mask[5:25, 5:25] = mask[40:60, 30:60] = True
    regions = evaluation_mask(mask, mpp=20.0)
    score = np.where(mask, 0.25, 0).astype(np.float32)
    score[10, 10], score[50, 50], score[5, 55] = 0.75, 0.5, 0.625
    froc = Froc()
    points = detections(score, min_distance_px=5, threshold=0.5)
    froc.add(points, regions, isolated=isolated_tumor_cells(regions, mpp=20.0))
    assert froc.result().sensitivity.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert froc.result().false_positives.tolist() == [1, 1, 0, 0]
    assert froc.result().sensitivities == (0.5, 0.5, 1.0, 1.0, 1.0, 1.0)


def test_what_is_wrong_is_said():
    regions, score = blocks(), np.zeros((4, 4), np.float32)
    for bad in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="confidences must be"):
            slide_findings([Detection(0, 0, bad)], regions)
    with pytest.raises(ValueError, match=r"\(20, 3\) lies outside"):
        slide_findings([Detection(20, 3, 0.5)], regions)
    with pytest.raises(ValueError, match="lies outside"):
        slide_findings([Detection(-0.5, 3, 0.5)], regions)
    with pytest.raises(ValueError, match="finite"):
        slide_findings([Detection(math.nan, 3, 0.5)])
    with pytest.raises(ValueError, match="downsample"):
        slide_findings([], regions, downsample=0)
    with pytest.raises(ValueError, match="make them with"):
        slide_findings([], regions > 0)
    with pytest.raises(ValueError, match="negative, got -1"):
        slide_findings([], -(regions > 0).astype(np.int32))
    with pytest.raises(ValueError, match="bool"):
        evaluation_mask(regions, mpp=1.0)
    with pytest.raises(ValueError, match="mpp must be"):
        evaluation_mask(regions > 0, mpp=0)
    with pytest.raises(ValueError, match="mpp must be"):
        isolated_tumor_cells(regions, mpp=math.nan)
    with pytest.raises(ValueError, match="min_distance_px"):
        detections(score, min_distance_px=0, threshold=0.5)
    with pytest.raises(ValueError, match="no detection"):
        detections(score, min_distance_px=2, threshold=0.0)
    with pytest.raises(ValueError, match="finite and in"):
        detections(score + np.float32(math.nan), min_distance_px=2, threshold=0.5)
    with pytest.raises(ValueError, match="rates"):
        Froc(rates=())
    with pytest.raises(ValueError, match="different rates"):
        Froc() + Froc(rates=(1.0,))
