"""Does a map point at the object: the pointing game, and the share of a map's energy that lies on it. These open masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsol.evaluation.metrics import source
from wsol.evaluation.perturbation import checked_score


@source("Zhang et al., Top-down Neural Attention by Excitation Backprop, IJCV 2018")
def pointing_game(score: ArrayLike, mask: NDArray[np.bool_], tolerance: float = 15.0) -> float:
    """1 if the largest score lies on the mask or less than `tolerance` px from it, else 0; higher is better.

    Where several pixels share the largest score the value is the share of them that hit: what a random choice among them scores
    in the mean. (TorchRay takes the first in raster order, so that a map with a plateau is scored by the top left of it.) A
    constant map thus gets the score of blind pointing. With several classes the metric is the mean over classes of the mean over
    images.

    Args:
        score: (H, W).
        mask: bool (H, W), the object.
        tolerance: px; a point hits if distance < tolerance, strictly, as in TorchRay, whose 15 px are for photographs of 500 px.

    Returns:
        In [0, 1]; NaN if the mask is empty.

    Raises:
        ValueError: sizes differ, NaN, a mask that is not bool, or a negative tolerance.
    """
    from scipy.ndimage import distance_transform_edt

    values = _checked(score, mask)
    if not tolerance >= 0:
        raise ValueError(f"tolerance is a distance in px, at least 0; got {tolerance}")
    if not mask.any():
        return float("nan")
    top = values == values.max()
    hit = mask | (distance_transform_edt(~mask) < tolerance)
    return float(hit[top].mean())


@source("Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops 2020")
def energy_pointing_game(score: ArrayLike, mask: NDArray[np.bool_]) -> float:
    """Share of the sum of the map that lies on the mask, in [0, 1]; higher is better, prevalence is the score of a constant map.

    Args:
        score: (H, W), at least 0.
        mask: bool (H, W): the object, or its bounding box as in the paper.

    Returns:
        NaN for a map without energy, and for an empty mask.

    Raises:
        ValueError: sizes differ, NaN or a negative score, or a mask that is not bool.
    """
    values = _checked(score, mask)
    if values.min() < 0:
        raise ValueError(f"energy needs scores of at least 0, got {values.min()}; rectify or scale the map first")
    total = float(values.sum())
    return float(values[mask].sum()) / total if total > 0 and mask.any() else float("nan")


def _checked(score: ArrayLike, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(f"mask must be bool (H, W), got {mask.dtype} {mask.shape}")
    return checked_score(score, mask.shape)
