"""Score map -> points with a confidence, as detection metrics want them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsol.evaluation.regions import checked_map
from wsol.evaluation.thresholds import smallest_flagged


class Detection(NamedTuple):
    """A point that a model calls a lesion."""

    x: float  # pixels from the left; a whole number is that column of the map
    y: float  # pixels from the top
    confidence: float  # in (0, 1]


def detections(score: NDArray[np.float32], *, min_distance_px: float, threshold: float) -> list[Detection]:
    """The points of a score map: its highest pixel, then the highest at least `min_distance_px` from all before, and so on.

    That is the non-maximum suppression of CAMELYON16's winners with a disk for their square, and the threshold itself included.
    As there, a slope or a plateau wider than the distance gives several points; smooth the map or widen the distance for fewer.
    Of equal scores the first pixel, row by row, comes first, so the same map always gives the same points.

    Args:
        score: float32 (H, W) in [0, 1].
        min_distance_px: least distance between two points, in pixels, at least 1.
        threshold: in (0, 1]; only pixels with score >= threshold become points.

    Returns:
        Most confident first; the confidence is the score.

    Raises:
        ValueError: scores that are NaN or outside [0, 1], a distance under 1 or without end, a threshold outside (0, 1].
    """
    from wsol.evaluation import peaks  # numba: only when maps are turned into points

    if not 1 <= min_distance_px < math.inf:
        raise ValueError(f"min_distance_px must be at least 1 and finite, got {min_distance_px}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}; a score of 0 is no detection")
    score = checked_map(score)
    height, width = score.shape
    flat = score.ravel()
    above = np.flatnonzero(flat >= smallest_flagged(threshold))
    order = above[np.argsort(-flat[above], kind="stable")]
    kept = peaks.strongest_apart(order, height, width, float(min(min_distance_px, height + width)))
    return [Detection(float(p % width), float(p // width), float(flat[p])) for p in kept]
