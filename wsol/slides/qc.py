"""What is wrong with a tile: out of focus, under a marker, in a fold. Measured per tile, flagged by limits."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wsol.slides.ink import pen_mask
from wsol.slides.slide import Box, Slide
from wsol.slides.stain import HED, rgb_to_od
from wsol.slides.tissue import glass_color, tissue_mask

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

FLAGS = ("blur", "pen", "fold")
FOLD = 1.4
"""Hematoxylin and eosin of a fold, both, in medians of the slide's tissue: two layers have about 2."""
FOLD_SMOOTH_UM = 12.0


@dataclass(frozen=True)
class Limits:
    """When a tile is flagged. "blur" is flagged where the sharpness is known and below its limit, the others at or above theirs.

    Attributes:
        blur: least variance of the Laplacian, gray levels squared, at `sharpness_mpp`. At 1 um per px, tiles of GlaS and
            CMU-1-Small-Region have 300 to 6300; blurred by a Gaussian of 1 um 40 to 420, of 2 um 6 to 37, of 3 um 2 to 10.
        pen: share of the tile under marker or border.
        fold: share of the tile in a fold.
        sharpness_mpp: um per px at which sharpness is measured; every tile is read for it. None: not measured.
        drop: flags that take a tile out of the table; it stays in, flagged, for the others.
    """

    blur: float = 40.0
    pen: float = 0.1
    fold: float = 0.1
    sharpness_mpp: float | None = 1.0
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Overview:
    """A slide seen at once.

    Attributes:
        rgb: (H, W, 3) at `mpp`.
        tissue: bool (H, W), as all masks; without what is under markers.
        pen: marker and black border.
        fold: tissue in folds.
        mpp: um per px.
        size: (width, height) of the slide, level-0 px.
    """

    rgb: RGB
    tissue: Mask
    pen: Mask
    fold: Mask
    mpp: float
    size: tuple[int, int]


def overview(slide: Slide, mpp: float = 8.0) -> Overview:
    """The slide at `mpp` um per px (its own where that is coarser) with tissue, markers and folds."""
    mpp = max(mpp, slide.mpp)
    rgb = slide.thumbnail(mpp)
    pen = pen_mask(rgb, mpp)
    tissue = tissue_mask(rgb, mpp, pen)
    return Overview(rgb, tissue, pen, fold_mask(rgb, mpp, tissue), mpp, slide.size)


def fold_mask(rgb: RGB, mpp: float, tissue: Mask) -> Mask:
    """Tissue that lies on itself: more than `FOLD` medians of hematoxylin and of eosin at once.

    Dense lymphoid tissue has the one, blood the other; two layers have both. Our own rule, relative to the slide: where half of
    the tissue is folded it finds nothing, and folds of pale parts (mucin, fat) stay below it.

    Args:
        rgb: (H, W, 3), at about 8 um per px.
        mpp: its um per px.
        tissue: bool (H, W).

    Returns:
        bool (H, W), within `tissue`.
    """
    od = np.maximum(rgb_to_od(rgb) - rgb_to_od(glass_color(rgb)[None, None]), 0)
    dense = tissue & (od.mean(axis=-1) > 0.1)
    if not dense.any():
        return np.zeros(tissue.shape, bool)
    unmix = np.linalg.inv(HED / np.linalg.norm(HED, axis=1, keepdims=True))[:, :2].astype(np.float32)
    stains = np.asarray(cv2.GaussianBlur(od @ unmix, (0, 0), max(FOLD_SMOOTH_UM / mpp, 0.5)))
    median = np.maximum(np.median(stains[dense], axis=0), 0.02)
    return np.asarray((stains > FOLD * median).all(axis=-1) & tissue)


def share(mask: Mask, corners: npt.NDArray[np.int64], side: int, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Share of each tile that is in the mask, from a summed-area table; what of a tile is outside the slide is not.

    Args:
        mask: of the whole slide.
        corners: (n, 2) of (x, y), level-0 px.
        side: of a tile, level-0 px.
        size: (width, height) of the slide, level-0 px.
    """
    height, width = mask.shape
    sums = cv2.integral(mask.astype(np.uint8)).astype(np.float64)
    scale = np.array([width / size[0], height / size[1]])
    low, high = corners * scale, (corners + side) * scale
    # A tile smaller than a mask px still looks at one px.
    low = np.minimum(np.floor(low + 0.5), np.floor(high - 1e-9)).astype(int).clip(0)
    high = np.maximum(np.floor(high + 0.5).astype(int), low + 1)
    area = (high - low).prod(axis=1)
    (x0, y0), (x1, y1) = low.T, np.minimum(high, [width, height]).T
    return np.asarray((sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / area)


def sharpness(rgb: RGB, where: Mask) -> float:
    """Variance of the Laplacian (4 neighbors) of the gray image over the px of `where`, gray levels squared; NaN where none is.

    It depends on the scale, so images are to be compared at one um per px, and on what there is to see: mucin in focus has less
    than nuclei out of focus. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR
    2000.

    Args:
        rgb: (H, W, 3).
        where: bool (H, W), the px that count.
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    counted = cv2.Laplacian(gray, cv2.CV_32F)[where]
    return float(counted.var(dtype=np.float64)) if counted.size else float("nan")


def tile_sharpness(
    slide: Slide, seen: Overview, corners: npt.NDArray[np.int64], side: int, mpp: float
) -> npt.NDArray[np.float64]:
    """The sharpness of the tissue of each tile at `mpp` um per px (the slide's own where that is coarser)."""
    mpp = max(mpp, slide.mpp)
    down = slide.mpp / seen.mpp
    found = np.empty(len(corners))
    for i, (x, y) in enumerate(corners.tolist()):
        rgb = slide.read(Box(x, y, side, side), mpp)
        rows, columns = (
            np.minimum(((at + (np.arange(count) + 0.5) * side / count) * down).astype(int), most - 1)
            for at, count, most in ((y, rgb.shape[0], seen.tissue.shape[0]), (x, rgb.shape[1], seen.tissue.shape[1]))
        )
        found[i] = sharpness(rgb, seen.tissue[np.ix_(rows, columns)])
    return found
