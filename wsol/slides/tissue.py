"""Where there is tissue: matter that absorbs as hematoxylin and eosin do, however pale; no glass, marker, border or dust."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsol.slides.ink import pen_mask
from wsol.slides.regions import disk, without_small
from wsol.slides.stain import rgb_to_od

CHROMA = 0.02
"""Least spread of optical density between the channels, above that of the slide's own glass. Mucin has 0.05, the walls of fat
cells 0.03 at 8 um per px; noise of a scanner, smoothed, stays below 0.01."""
SATURATION = 0.3
"""Least spread as a share of the densest channel: shadows and edges of glass are gray."""
GREEN = 0.85
"""Least density of green as a share of the densest channel: glue and mounting medium are yellow, H&E is not."""
HALO, HALO_UM = 0.25, 40.0
"""What has less than this share of the spread within so many um is the halo of something dense, out of focus or averaged in."""
SMOOTH_UM = 4.0
CLOSE_UM = 90.0
"""Gaps up to it are bridged: a fat cell is all gap between its walls."""
OPEN_UM = 40.0
"""Threads narrower than it are dropped: fibers, edges of glass."""
SMALLEST_UM2 = 100.0**2
"""Islands below it (dust, single cells) are dropped."""
HOLE_UM2 = 150.0**2
"""Holes below it (lumens, vessels, large fat cells) are filled."""


def tissue_mask(rgb: npt.NDArray[np.uint8], mpp: float, pen: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    """Tissue of an H&E image at about 8 um per px (any resolution works; finer costs more and finds no more).

    A fixed threshold on color against the slide's own glass, not Otsu: Otsu splits a slide full of tissue, finds tissue on an
    empty one, and calls fat and mucin glass beside anything dark. Our own rule; `benchmarks/tissue.py` measures it.

    Args:
        rgb: (H, W, 3).
        mpp: its um per px.
        pen: bool (H, W), what is marker or border; `pen_mask` when None.

    Returns:
        bool (H, W), False under markers.
    """
    pen = pen_mask(rgb, mpp) if pen is None else pen
    smooth = np.asarray(cv2.GaussianBlur(rgb, (0, 0), max(SMOOTH_UM / mpp, 0.4)), np.uint8)
    od = np.maximum(rgb_to_od(smooth) - rgb_to_od(glass_color(smooth)[None, None]), 0)
    most = od.max(axis=-1)
    spread = most - od.min(axis=-1)
    halo = HALO * np.asarray(cv2.dilate(spread, disk(HALO_UM, mpp)))
    stained = (spread > np.maximum(CHROMA, halo)) & (spread >= SATURATION * most) & (od[..., 1] >= GREEN * most) & ~pen
    mask = cv2.morphologyEx(stained.astype(np.uint8), cv2.MORPH_CLOSE, disk(CLOSE_UM, mpp))
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disk(OPEN_UM, mpp)), np.uint8)
    islands = without_small(mask > 0, SMALLEST_UM2 / mpp**2)
    return ~without_small(~islands, HOLE_UM2 / mpp**2) & ~pen


def glass_color(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB of the bare slide: the brightest color that many of its bright gray px have; 245 where there are next to none.

    The brightest, not the most frequent: mucin, fat and what lies beyond the coverslip are frequent too, and darker.
    """
    least = rgb.min(axis=-1)
    bright = rgb[(least >= 215) & (rgb.max(axis=-1) - least <= 24)]
    if len(bright) < 0.01 * least.size:
        return np.full(3, 245, np.uint8)
    bins, of, count = np.unique(bright // 4, axis=0, return_inverse=True, return_counts=True)
    often = count >= 0.2 * count.max()
    glass = np.median(bright[of == np.argmax(np.where(often, bins.sum(axis=1, dtype=int), -1))], axis=0)
    for _ in range(4):  # from a bin at the bright end of the noise to its middle
        glass = np.median(bright[(np.abs(bright - glass) <= 5).all(axis=1)], axis=0)
    return np.asarray(np.round(glass), np.uint8)
