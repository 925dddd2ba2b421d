"""How alike two maps are: rank correlation, structural similarity, and correlation of gradient histograms.

The four numbers of Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018: Spearman's of the absolute and of the signed
maps, SSIM and HOG of the maps scaled to [0, 1]. All are 1 for a map and itself, and take maps float (h, w) of one size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SIDE = 128
"""Side in px to which maps are resized before SSIM and HOG: 8 x 8 cells of gradients."""

CELL = 16
BLOCK = 3


def spearman(a: ArrayLike, b: ArrayLike, *, absolute: bool = False) -> float:
    """Spearman's rank correlation, equal scores with their mean rank (rectified maps are zero nearly everywhere); in [-1, 1].

    Args:
        a: (h, w).
        b: (h, w).
        absolute: of the absolute values: whether evidence lies in the same places, for or against.

    Returns:
        NaN where a map is constant.

    Raises:
        ValueError: maps of different size, NaN or infinity.
    """
    from scipy.stats import rankdata

    first, second = _checked(a, b)
    if absolute:
        first, second = np.abs(first), np.abs(second)
    return _pearson(rankdata(first), rankdata(second))


def structural_similarity(a: ArrayLike, b: ArrayLike, *, side: int = SIDE) -> float:
    """Mean SSIM of the two maps scaled to [0, 1], Gaussian weights of sigma 1.5; in [-1, 1].

    A constant map becomes zeros: two constant ones have similarity 1. Maps that come from a few cells are smooth, and smooth maps
    have high SSIM where both are flat: compare with what an unrelated map scores.

    Args:
        a: (h, w).
        b: (h, w).
        side: both are resized to (side, side), bilinear; at least 11 px.

    Raises:
        ValueError: maps of different size, NaN or infinity, or too small a side.
    """
    from skimage import metrics

    if side < 11:
        raise ValueError(f"the window of SSIM is 11 px wide, side must be at least that; got {side}")
    first, second = (_unit(m, side) for m in _checked(a, b))
    found = metrics.structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    return float(found)


def hog_correlation(a: ArrayLike, b: ArrayLike, *, side: int = SIDE, ranks: bool = False) -> float:
    """Correlation of histograms of oriented gradients, of the maps scaled to [0, 1]; in [-1, 1].

    Nine orientations, cells of 16 x 16 px, blocks of 3 x 3 cells (L2-Hys). The paper names Pearson's correlation, the authors'
    notebook computes Spearman's.

    Args:
        a: (h, w).
        b: (h, w).
        side: both are resized to (side, side), bilinear; at least 48 px, one block.
        ranks: Spearman's instead of Pearson's.

    Returns:
        NaN where a map is constant.

    Raises:
        ValueError: maps of different size, NaN or infinity, or too small a side.
    """
    from scipy.stats import rankdata
    from skimage.feature import hog

    if side < CELL * BLOCK:
        raise ValueError(f"a block of gradients is {CELL * BLOCK} px wide, side must be at least that; got {side}")
    options: dict[str, Any] = {"orientations": 9, "pixels_per_cell": (CELL, CELL), "cells_per_block": (BLOCK, BLOCK)}
    first, second = (np.asarray(hog(_unit(m, side), **options), np.float64) for m in _checked(a, b))
    return _pearson(rankdata(first), rankdata(second)) if ranks else _pearson(first, second)


def _pearson(a: Floats, b: Floats) -> float:
    """Pearson's correlation of all entries; NaN where one is constant."""
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    x, y = (a - a.mean()).ravel(), (b - b.mean()).ravel()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def _unit(m: Floats, side: int) -> Floats:
    """Resized to (side, side), then scaled to [0, 1]; a constant map becomes zeros."""
    import cv2

    low, high = float(m.min()), float(m.max())
    if high - low <= 4 * np.finfo(np.float32).eps * max(abs(low), abs(high)):  # what rounding makes of a constant
        return np.zeros((side, side))
    resized = np.asarray(cv2.resize((m - low) / (high - low), (side, side), interpolation=cv2.INTER_LINEAR), np.float64)
    low, high = float(resized.min()), float(resized.max())
    return (resized - low) / (high - low) if high > low else np.zeros((side, side))


def _checked(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 2 or not first.size or first.shape != second.shape:
        raise ValueError(f"need two maps of one size, both (h, w); got {first.shape} and {second.shape}")
    for name, m in (("first", first), ("second", second)):
        if broken := np.count_nonzero(~np.isfinite(m)):
            raise ValueError(f"{broken} of {m.size} scores of the {name} map are NaN or infinite")
    return first, second
