"""What lies on the glass and is no stain: strokes of markers, and the black that a scanner puts where it did not scan."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsol.slides.regions import disk, without_small
from wsol.slides.stain import rgb_to_od

SMOOTH_UM = 6.0
SMALLEST_UM = 40.0
"""Side of the smallest stroke; dark nuclei and pigment are smaller."""
RIM_UM = 40.0
"""How far a stroke's rim, half ink and half tissue, reaches beyond what is surely ink."""
SURE = 0.25
"""Least share of a region of perhaps-ink that is surely ink, for the region to be a stroke: a lymph node is not."""


def pen_mask(rgb: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.bool_]:
    """Blue, green, black and red marker, on glass or over H&E tissue, with its rim; and black borders.

    By optical density (r, g, b). H&E absorbs green most, and hematoxylin red at most 1.1 times as much as green. A blue or green
    marker absorbs more red than that; over tissue, as black does everywhere, at least more red than nuclei do at this
    resolution. A red one absorbs green and blue nearly alike and lets red through. A lake of blood can look like a red
    marker; the limits were set so that GlaS and CMU-1-Small-Region lose nothing. Our own rules.

    Args:
        rgb: (H, W, 3), at about 8 um per px.
        mpp: its um per px.

    Returns:
        bool (H, W).
    """
    od = rgb_to_od(np.asarray(cv2.GaussianBlur(rgb, (0, 0), max(SMOOTH_UM / mpp, 0.5)), np.uint8))
    sure = _ink(od, 1.0).astype(np.uint8)
    count, region, stats, _ = cv2.connectedComponentsWithStats(sure | _ink(od, 0.8).astype(np.uint8), connectivity=8)
    share = np.bincount(region.ravel(), weights=sure.ravel(), minlength=count) / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    strokes = (sure > 0) | ((share >= SURE)[region] & (region > 0))
    strokes = without_small(strokes, (SMALLEST_UM / mpp) ** 2)
    return np.asarray(cv2.dilate(strokes.astype(np.uint8), disk(RIM_UM, mpp)) > 0)


def _ink(od: npt.NDArray[np.float32], much: float) -> npt.NDArray[np.bool_]:
    """Ink by color; `much` below 1 takes less of it for ink."""
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    cold = (red > 1.12 * green) & (red > 0.25)
    dense = (red > 1.5 * much) | ((red > (0.75 + 0.1 * much) * green) & (red > 1.1 * much))  # over eosin green is dense too
    warm = (blue > 1.2 * much) & (blue > 0.62 * green) & (red < 0.3 * green)
    pure = (blue > 0.72 * green) & (green > 1.0) & (red < 0.25 * green)
    return np.asarray(cold | dense | warm | pure)
