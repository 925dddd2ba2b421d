"""Boxes: MaxBoxAcc V1 and V2 at all thresholds at once, boxes of a mask, localization error.

The box metrics are those of wsolevaluation (Choe et al.) bit for bit, with every quirk that enters its published numbers:

- The map becomes uint8 by floor(255 * score), so there are at most 255 different masks however many thresholds are asked for.
- At threshold t a pixel is foreground iff its level is above int(t * highest level): strictly above, and relative to the map's
  own maximum, so every map but a blank one has a box at every threshold.
- V2 takes the boxes of all contours, and the inner contour of a hole is one (OpenCV's RETR_TREE), a pixel wider than the hole.
- V1 takes the contour of the largest area, that of the polygon through pixel centers; a line has area 0. Equals: OpenCV's order.
- A box ends one pixel after its contour on the right and at the bottom, clipped to the image, yet counts as inclusive.
- A blank mask has the box (0, 0, 0, 0), which is the top left pixel.
- The best threshold is taken on the very maps that are scored, for each IoU by itself. `BoxResult.at` scores at a fixed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsol.evaluation.counts import Counts, Floats
from wsol.evaluation.metrics import source


class Box(NamedTuple):
    """A box in pixels whose corners both belong to it: `mask[y0 : y1 + 1, x0 : x1 + 1]`."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area(self) -> int:
        """Pixels inside."""
        return (self.x1 - self.x0 + 1) * (self.y1 - self.y0 + 1)


def boxes_of(mask: NDArray[np.bool_], *, connectivity: int = 8) -> list[Box]:
    """The tight box of each connected region, regions in the order of their first pixel, row by row. No holes, no quirks.

    Args:
        mask: bool (H, W).
        connectivity: 8 or 4 neighbors.

    Raises:
        ValueError: the mask is not bool (H, W), or an unknown connectivity.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(_checked_mask(mask), structure=neighborhood(connectivity))
    return [Box(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in ndimage.find_objects(labels)]


def neighborhood(connectivity: int) -> NDArray[np.bool_]:
    """The bool (3, 3) structuring element of 4 or 8 neighbors, for scipy.ndimage.

    Raises:
        ValueError: another number.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8 neighbors, got {connectivity}")
    cross = np.array([[False, True, False], [True, True, True], [False, True, False]])
    return np.ones((3, 3), np.bool_) if connectivity == 8 else cross


def _checked_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(
            f"mask must be bool (H, W), got {mask.dtype} {mask.shape}; say which values are foreground, e.g. mask > 0"
        )
    return mask


def resized_box(box: Sequence[float], size: tuple[int, int], new_size: tuple[int, int]) -> Box:
    """A true box in another resolution as wsolevaluation does it before it compares: each corner scaled, then cut to int.

    Args:
        box: x0, y0, x1, y1.
        size: (width, height) of the image that the box was drawn on.
        new_size: (width, height) of the score map.
    """
    (width, height), (new_width, new_height) = size, new_size
    corners = np.asarray(box, np.float64) * (new_width, new_height, new_width, new_height) / (width, height, width, height)
    return Box(*(int(c) for c in corners))


def best_overlaps(score: NDArray[np.float32], boxes: ArrayLike, *, multi_contour: bool = True, thresholds: int = 1000) -> Floats:
    """The best IoU that a map reaches at each threshold i / thresholds: float64 (thresholds,) in [0, 1].

    Args:
        score: float32 (H, W) in [0, 1].
        boxes: whole numbers (n, 4), n > 0: the true boxes, x0, y0, x1, y1, both corners inclusive, in pixels of the map.
        multi_contour: boxes of all contours (V2), or of the largest alone (V1).
        thresholds: their number.

    Raises:
        ValueError: NaN, infinity or a score outside [0, 1]; no box, or one with negative or swapped corners; wrong types.
    """
    from wsol.evaluation import component_tree  # numba: only when maps are scored

    truth, levels = _checked_boxes(boxes), _levels(score)
    top = int(levels.max())
    if top == 0:
        return np.full(thresholds, component_tree.overlap(0, 0, 0, 0, truth))
    by_time = np.zeros(component_tree.TIMES)  # index 254 - L
    if multi_contour:
        by_level = np.zeros(component_tree.TIMES)
        component_tree.sweep(~levels, False, truth, by_time)
        component_tree.sweep(levels, True, truth, by_level)
        np.maximum(by_time[::-1], by_level, out=by_level)
    else:
        component_tree.largest(~component_tree.fill_holes(levels), truth, by_time)
        by_level = by_time[::-1]
    return by_level[(grid(thresholds) * top).astype(np.int64)]


def grid(thresholds: int) -> Floats:
    """The field's thresholds: i * (1 / thresholds), from 0 to below 1, as `np.arange(0, 1, 1 / thresholds)` has them."""
    return np.arange(thresholds, dtype=np.float64) * (1 / thresholds)


def _levels(score: NDArray[np.float32]) -> NDArray[np.uint8]:
    from wsol.evaluation import component_tree

    score = np.asarray(score)
    if score.dtype != np.float32 or score.ndim != 2 or score.size == 0:
        raise ValueError(
            f"score must be float32 (H, W) with pixels, got {score.dtype} {score.shape}; convert it where it is made"
        )
    levels = np.empty(score.shape, np.uint8)
    bad = component_tree.quantize(score.reshape(-1), levels.reshape(-1))
    if bad >= 0:
        place = tuple(int(i) for i in np.unravel_index(bad, score.shape))
        raise ValueError(
            f"score must be finite and in [0, 1], got {float(score[place])} at {place}; a broken map is an error, not a blank one"
        )
    return levels


def _checked_boxes(boxes: ArrayLike) -> NDArray[np.int64]:
    truth = np.asarray(boxes)
    if truth.ndim != 2 or truth.shape[0] == 0 or truth.shape[1] != 4:
        raise ValueError(f"boxes must be (n, 4) with n > 0, got shape {truth.shape}; leave images without a box out")
    whole = truth.astype(np.int64) if np.isfinite(truth).all() else None
    if whole is None or not np.array_equal(whole, truth):
        raise ValueError("boxes must be whole pixels of the map, got fractions or NaN; see resized_box")
    wrong = (whole < 0).any(1) | (whole[:, 2:] < whole[:, :2]).any(1)
    if wrong.any():
        raise ValueError(f"boxes are x0, y0, x1, y1 with 0 <= x0 <= x1 and 0 <= y0 <= y1, got {whole[wrong][0].tolist()}")
    return np.ascontiguousarray(whole)


@dataclass(frozen=True, eq=False)
class BoxResult:
    """Box accuracies of all images added so far, fractions in [0, 1]; NaN without images.

    `accuracy` is the published number: the mean over the IoUs of the highest accuracy over thresholds. That choice saw the masks
    of the images it scores; choose on validation images and use `at` for a number without that advantage.
    """

    accuracy: float
    iou: tuple[float, ...]
    accuracies: tuple[float, ...]  # per IoU, at its own best threshold
    best_threshold: tuple[float, ...]  # per IoU: the middle of the longest run of thresholds that share the best accuracy
    threshold: Floats  # (thresholds,)
    hits: Counts  # (IoUs, thresholds): images with a box that overlaps enough
    images: int

    def at(self, threshold: float) -> tuple[float, ...]:
        """Accuracy per IoU at a fixed threshold.

        Raises:
            ValueError: the threshold is none of `self.threshold`.
        """
        near = int(np.argmin(np.abs(self.threshold - threshold)))
        if abs(self.threshold[near] - threshold) > 1e-9:
            raise ValueError(f"threshold {threshold} is not one of the {len(self.threshold)}; nearest: {self.threshold[near]:g}")
        return tuple(_share(row[near], self.images) for row in self.hits)


def _share(hits: int, images: int) -> float:
    return int(hits) / images if images else float("nan")


class BoxAccuracy:
    """Box accuracy over all thresholds, one map at a time. States add up: workers and jobs merge exactly.

    Args:
        multi_contour: True is MaxBoxAccV2, False is MaxBoxAcc (V1; its published number is that of IoU 0.5).
        iou: overlaps that count as a hit.
        thresholds: 0, 1 / thresholds, ..., below 1.

    Raises:
        ValueError: no IoU, one outside (0, 1], or no threshold.

    Example:
        >>> accuracy = BoxAccuracy()
        >>> for score, boxes in pairs:
        ...     accuracy.add(score, boxes)
        >>> accuracy.result().accuracy
    """

    def __init__(self, multi_contour: bool = True, iou: Sequence[float] = (0.3, 0.5, 0.7), thresholds: int = 1000) -> None:
        if not iou or not all(0 < value <= 1 for value in iou):
            raise ValueError(f"iou must be one or more numbers in (0, 1], got {tuple(iou)}")
        if thresholds < 1:
            raise ValueError(f"thresholds must be at least 1, got {thresholds}")
        self.multi_contour = multi_contour
        self.iou = tuple(float(value) for value in iou)
        self.hits = np.zeros((len(self.iou), thresholds), np.int64)
        self.images = 0

    def add(self, score: NDArray[np.float32], boxes: ArrayLike) -> NDArray[np.bool_]:
        """Add one map; returns its own hits, bool (IoUs, thresholds), to keep per sample.

        Args:
            score: float32 (H, W) in [0, 1].
            boxes: whole numbers (n, 4), n > 0: x0, y0, x1, y1, inclusive, in pixels of the map.

        Raises:
            ValueError: as `best_overlaps`. The state is then as before.
        """
        best = best_overlaps(score, boxes, multi_contour=self.multi_contour, thresholds=self.hits.shape[1])
        hits = best >= np.array(self.iou)[:, None]
        self.hits += hits
        self.images += 1
        return hits

    def __add__(self, other: BoxAccuracy) -> BoxAccuracy:
        """The state of both. Neither is changed.

        Raises:
            ValueError: contours, IoUs or thresholds differ.
        """
        if not isinstance(other, BoxAccuracy):
            return NotImplemented
        mine, theirs = ((s.multi_contour, s.iou, s.hits.shape[1]) for s in (self, other))
        if mine != theirs:
            raise ValueError(f"cannot add box accuracies of different (multi_contour, iou, thresholds): {mine} and {theirs}")
        total = BoxAccuracy(*mine)
        total.hits, total.images = self.hits + other.hits, self.images + other.images
        return total

    def result(self) -> BoxResult:
        """All accuracies of what was added so far."""
        from wsol.evaluation.thresholds import middle_of_best

        threshold = grid(self.hits.shape[1])
        accuracies = tuple(_share(row.max(), self.images) for row in self.hits)
        best = [middle_of_best(row.astype(np.float64)) if self.images else None for row in self.hits]
        return BoxResult(
            accuracy=float(np.mean(accuracies)),
            iou=self.iou,
            accuracies=accuracies,
            best_threshold=tuple(float("nan") if at is None else float(threshold[at]) for at in best),
            threshold=threshold,
            hits=self.hits.copy(),
            images=self.images,
        )


@source("Choe et al., Evaluating weakly supervised object localization methods right, CVPR 2020")
def max_box_acc(accuracy: BoxAccuracy) -> float:
    """Share of images whose largest contour has a box of IoU 0.5 with a true one, at the best threshold; NaN without images.

    Raises:
        ValueError: the state takes all contours (that is V2), or has no IoU of 0.5.
    """
    if accuracy.multi_contour or 0.5 not in accuracy.iou:
        raise ValueError(f"need BoxAccuracy(multi_contour=False) with IoU 0.5, got {accuracy.multi_contour}, {accuracy.iou}")
    return accuracy.result().accuracies[accuracy.iou.index(0.5)]


@source("Choe et al., Evaluation for weakly supervised object localization: protocol, metrics, and datasets, TPAMI 2022")
def max_box_acc_v2(accuracy: BoxAccuracy) -> float:
    """Mean over the IoUs of the share of images with any contour's box that overlaps a true one enough; NaN without images.

    Raises:
        ValueError: the state takes the largest contour alone (that is V1).
    """
    if not accuracy.multi_contour:
        raise ValueError("need BoxAccuracy(multi_contour=True), got one of the largest contour alone")
    return accuracy.result().accuracy
