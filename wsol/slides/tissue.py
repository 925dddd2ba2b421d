"""Where there is tissue: colored matter that absorbs as hematoxylin and eosin do, away from glass, pen and dust."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsol.slides.stain import rgb_to_od

CHROMA = 0.05
"""Least spread of optical density between the channels. Glass of real scanners stays below 0.03, faint stroma is above 0.08."""
SMOOTH_UM = 6.0
CLOSE_UM = 24.0
SMALLEST_UM2 = 100.0**2
"""Islands below it (dust, single cells) are dropped, holes below it (lumens, vessels) are filled."""


def tissue_mask(rgb: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.bool_]:
    """Tissue of an H&E image at about 8 um per px (any resolution works; finer costs more and finds no more).

    A fixed threshold on color, not Otsu: Otsu splits a slide full of tissue, and finds tissue on an empty one.

    Args:
        rgb: (H, W, 3).
        mpp: its um per px.

    Returns:
        bool (H, W).
    """
    sigma = max(SMOOTH_UM / mpp, 0.5)
    od = rgb_to_od(np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.uint8))
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    colored = od.max(axis=-1) - od.min(axis=-1) > CHROMA
    # H&E absorbs green most. A blue or green pen absorbs red most; a black one absorbs all alike, darker than any nuclei.
    pen = ((red > 1.12 * green) & (red > 0.25)) | ((od.min(axis=-1) > 0.9) & (blue > 0.75 * green))
    mask = (colored & ~pen).astype(np.uint8)
    size = 2 * round(CLOSE_UM / mpp / 2) + 1
    if size > 1:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel), np.uint8)
    smallest = SMALLEST_UM2 / mpp**2
    mask = _without_small(mask, smallest)
    return _without_small(1 - mask, smallest) == 0


def _without_small(mask: npt.NDArray[np.uint8], smallest: float) -> npt.NDArray[np.uint8]:
    """The mask without its connected parts of fewer than `smallest` px."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return keep.astype(np.uint8)[labels]
