from __future__ import annotations

import functools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter

from wsol._names import resolve
from wsol.evaluation import METRICS, Box, BoxAccuracy, best_overlaps, boxes_of, localization_error, resized_box

laws = settings(max_examples=60, deadline=None)


def overlap(a, b):
    """IoU of two boxes whose corners are inclusive, in whole pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(0, width) * max(0, height)
    union = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)) - shared
    return shared / union


def field(score, boxes, multi_contour=True, thresholds=1000):
    """wsolevaluation, step by step: uint8, cv2.threshold, cv2.findContours, boxes, best IoU, at each threshold."""
    image = (score.astype(np.float64) * 255).astype(np.uint8)
    height, width = score.shape

    @functools.cache
    def at_level(level):
        _, mask = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)
        contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if not contours:
            return max(overlap((0, 0, 0, 0), box) for box in boxes)
        if not multi_contour:
            contours = [max(contours, key=cv2.contourArea)]
        found = [cv2.boundingRect(contour) for contour in contours]
        found = [(x, y, min(x + w, width - 1), min(y + h, height - 1)) for x, y, w, h in found]
        return max(overlap(a, b) for a in found for b in boxes)

    return np.array([at_level(int(t * np.max(image))) for t in np.arange(0, 1, 1 / thresholds)])


@st.composite
def scored(draw):
    """(score, boxes): maps of few or many levels, some far below 1, with nested holes, ties and lines."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    levels = draw(st.sampled_from([1, 2, 4, 255]))
    scale = draw(st.sampled_from([1.0, 1.0, 0.5, 0.002]))
    whole = draw(hnp.arrays(np.int64, (height, width), elements=st.integers(0, levels)))
    corners = st.tuples(st.integers(0, width), st.integers(0, height), st.integers(0, width), st.integers(0, height))
    boxes = draw(st.lists(corners, min_size=1, max_size=3))
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    return (whole / levels * scale).astype(np.float32), boxes


@laws
@given(scored(), st.booleans())
def test_overlaps_equal_the_fields_at_every_threshold(pair, multi_contour):
    score, boxes = pair
    assert np.array_equal(best_overlaps(score, boxes, multi_contour=multi_contour), field(score, boxes, multi_contour))


@pytest.mark.parametrize("multi_contour", [True, False])
@pytest.mark.parametrize("sigma", [0, 1, 12])
def test_overlaps_equal_the_fields_on_real_sizes(sigma, multi_contour):
    generator = np.random.default_rng(sigma)
    rough = generator.random((120, 90))
    smooth = gaussian_filter(rough, sigma) if sigma else rough
    score = ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    boxes = [(10, 20, 60, 70), (50, 50, 80, 119), (3, 3, 4, 5)]
    assert np.array_equal(best_overlaps(score, boxes, multi_contour=multi_contour), field(score, boxes, multi_contour))


def test_the_largest_contour_of_equals_is_opencvs():
    score = np.zeros((9, 9), np.float32)
    score[[0, 0, 5, 8, 8], [0, 8, 4, 0, 8]] = 1  # five pixels, all of area 0; the last in rows comes first in OpenCV
    assert best_overlaps(score, [(8, 8, 8, 8)], multi_contour=False).min() == 1.0
    assert best_overlaps(score, [(0, 0, 1, 1)], multi_contour=False).max() == 0.0


def test_a_hole_is_a_box_of_its_own():
    score = np.zeros((30, 30), np.float32)
    score[2:28, 2:28] = 1
    score[10:16, 12:20] = 0
    around_the_hole = (11, 9, 21, 17)  # a pixel wider than the hole, and the quirk's pixel on the right and at the bottom
    assert best_overlaps(score, [around_the_hole]).min() == 1.0
    assert best_overlaps(score, [around_the_hole], multi_contour=False).max() < 0.2


def test_a_perfect_map_misses_by_the_published_pixel():
    score = np.zeros((20, 20), np.float32)
    score[4:10, 5:15] = 1
    assert best_overlaps(score, [(5, 4, 14, 9)])[0] == pytest.approx(60 / 77)
    assert best_overlaps(score, [(5, 4, 15, 10)])[0] == 1.0
    score[4:, 5:] = 1  # at the border the pixel is clipped away
    assert best_overlaps(score, [(5, 4, 19, 19)])[0] == 1.0


def test_a_blank_map_has_the_box_of_its_first_pixel():
    blank = np.full((8, 8), 0.0039, np.float32)  # below 1 / 255
    assert np.all(best_overlaps(blank, [(0, 0, 0, 0)]) == 1.0)
    assert np.all(best_overlaps(blank, [(0, 0, 3, 3)]) == 1 / 16)
    assert np.all(best_overlaps(blank, [(5, 5, 6, 6)]) == 0.0)


def test_thresholds_are_relative_to_the_maps_own_maximum():
    score = np.zeros((12, 12), np.float32)
    score[2:10, 2:10], score[4:6, 4:6] = 0.2, 0.4
    best = best_overlaps(score, [(4, 4, 6, 6)], thresholds=10)
    assert (best == 1.0).tolist() == [False] * 5 + [True] * 5  # 51 of 102 levels: int(0.5 * 102) = 51 is no longer above


def test_accuracy_of_two_images_by_hand():
    def square(side):
        score = np.zeros((20, 20), np.float32)
        score[:side, :side] = 1
        return score

    state = BoxAccuracy(iou=(0.5, 0.9))
    hit = state.add(square(9), [(0, 0, 9, 9)])  # drawn 10 x 10: IoU 1
    assert hit.all()
    assert hit.shape == (2, 1000)
    state.add(square(9), [(0, 0, 9, 6)])  # 70 of 100: hit at 0.5 alone
    result = state.result()
    assert result.accuracies == (1.0, 0.5)
    assert result.accuracy == 0.75
    assert result.at(0.5) == (1.0, 0.5)
    assert result.best_threshold == (0.499, 0.499)  # the middle of all 1000
    assert result.images == 2
    with pytest.raises(ValueError, match="nearest"):
        result.at(0.12345)


def test_each_iou_has_its_own_best_threshold():
    score = np.full((10, 10), 0.5, np.float32)
    score[:5, :5] = 1
    state = BoxAccuracy(iou=(0.9,), thresholds=10)
    state.add(score, [(0, 0, 5, 5)])
    assert state.result().hits.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]  # int(0.4 * 255) = 102 <= 127 < int(0.5 * 255) + 1
    assert state.result().best_threshold == (0.7000000000000001,)
    assert state.result().accuracy == 1.0


@laws
@given(st.lists(scored(), min_size=2, max_size=4), st.booleans())
def test_states_add_up(pairs, multi_contour):
    def state(some):
        total = BoxAccuracy(multi_contour, thresholds=50)
        for score, boxes in some:
            total.add(score, boxes)
        return total

    parts, whole = state(pairs[:1]) + state(pairs[1:]), state(pairs)
    assert np.array_equal(parts.hits, whole.hits)
    assert parts.images == whole.images == len(pairs)
    assert parts.result().accuracies == whole.result().accuracies


def test_without_images_accuracy_is_undefined():
    result = BoxAccuracy().result()
    assert math.isnan(result.accuracy)
    assert all(math.isnan(value) for value in result.best_threshold)


def test_what_is_wrong_is_said():
    score = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="finite and in"):
        best_overlaps(np.full((4, 4), np.nan, np.float32), [(0, 0, 1, 1)])
    with pytest.raises(ValueError, match=r"1\.5 at \(2, 1\)"):
        best_overlaps(np.where(np.arange(16).reshape(4, 4) == 9, 1.5, 0).astype(np.float32), [(0, 0, 1, 1)])
    with pytest.raises(ValueError, match="float32"):
        best_overlaps(score.astype(np.float64), [(0, 0, 1, 1)])
    with pytest.raises(ValueError, match="n > 0"):
        best_overlaps(score, np.zeros((0, 4), int))
    with pytest.raises(ValueError, match="fractions or NaN"):
        best_overlaps(score, [(0, 0, 1.5, 1)])
    with pytest.raises(ValueError, match=r"\[2, 0, 1, 1\]"):
        best_overlaps(score, [(0, 0, 1, 1), (2, 0, 1, 1)])
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        BoxAccuracy(iou=(50,))
    with pytest.raises(ValueError, match="thresholds"):
        BoxAccuracy(thresholds=0)
    with pytest.raises(ValueError, match="cannot add"):
        BoxAccuracy() + BoxAccuracy(multi_contour=False)


def test_a_bad_map_leaves_the_state_as_it_was():
    state = BoxAccuracy()
    with pytest.raises(ValueError, match="finite"):
        state.add(np.full((4, 4), 2, np.float32), [(0, 0, 1, 1)])
    assert state.images == 0
    assert not state.hits.any()


def test_metrics_are_those_of_the_state():
    score = np.zeros((10, 10), np.float32)
    score[:4, :4] = 1
    one, all_of_them = BoxAccuracy(multi_contour=False), BoxAccuracy()
    for state in (one, all_of_them):
        state.add(score, [(0, 0, 4, 6)])  # 25 of 35: IoU 0.714
        state.add(score, [(0, 0, 4, 7)])  # 25 of 40: IoU 0.625
    v1, v2 = (resolve("metric", name, METRICS, "wsol.evaluation") for name in ("max-box-acc", "max-box-acc-v2"))
    assert v1(one) == 1.0
    assert v2(all_of_them) == pytest.approx((1 + 1 + 0.5) / 3)
    assert v1.paper
    assert v2.paper
    with pytest.raises(ValueError, match="multi_contour=False"):
        v1(all_of_them)
    with pytest.raises(ValueError, match="multi_contour=True"):
        v2(one)


@laws
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_boxes_of_a_mask_are_those_of_opencvs_components(mask):
    for connectivity in (4, 8):
        stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)[2][1:]
        expected = {(x, y, x + w - 1, y + h - 1) for x, y, w, h, _ in stats.tolist()}
        assert set(boxes_of(mask, connectivity=connectivity)) == expected


def test_boxes_of_a_mask_include_both_corners():
    mask = np.zeros((6, 8), np.bool_)
    mask[1:3, 2:7] = True
    assert boxes_of(mask) == [Box(x0=2, y0=1, x1=6, y1=2)]
    assert boxes_of(mask)[0].area == 10
    assert boxes_of(np.zeros((3, 3), np.bool_)) == []
    with pytest.raises(ValueError, match="bool"):
        boxes_of(mask.astype(np.uint8))
    with pytest.raises(ValueError, match="4 or 8"):
        boxes_of(mask, connectivity=6)


def test_a_box_in_another_resolution_is_cut_to_int():
    assert resized_box((10, 20, 99, 149), (500, 300), (224, 224)) == Box(4, 14, 44, 111)  # 4.48, 14.9, 44.3, 111.2


def test_localization_errors_by_hand():
    logits = np.array([[3.0, 2, 1, 0, -1, -2], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [1, 0, 0, 0, 0, 0]])
    labels = [0, 1, 5, 0]  # ranks 1, 5, 6, 1
    errors = localization_error([True, True, True, False], labels, logits)
    assert (errors.gt_known, errors.top1, errors.top5) == (0.25, 0.75, 0.5)


def test_localization_error_breaks_ties_as_argmax_does():
    logits = np.zeros((2, 3))
    assert localization_error([True, True], [0, 1], logits).top1 == 0.5
    assert localization_error([True, True], [0, 1], logits).top5 == 0.0


@laws
@given(st.integers(0, 2**32 - 1))
def test_localization_errors_shrink_from_top1_to_gt_known(seed):
    generator = np.random.default_rng(seed)
    hits, labels, logits = generator.random(20) < 0.6, generator.integers(0, 8, 20), generator.standard_normal((20, 8))
    errors = localization_error(hits, labels, logits)
    assert errors.gt_known == np.mean(~hits)
    assert errors.top1 == np.mean(~(hits & (logits.argmax(1) == labels)))
    assert errors.gt_known <= errors.top5 <= errors.top1


def test_localization_error_says_what_is_wrong():
    with pytest.raises(ValueError, match="one hit"):
        localization_error([True], [0, 1], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        localization_error([True], [0], np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match=r"0 \.\.\. 2"):
        localization_error([True], [3], np.zeros((1, 3)))
    with pytest.raises(ValueError, match="bool"):
        localization_error([0.5], [0], np.zeros((1, 3)))
