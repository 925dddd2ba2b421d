"""Binary images of a known scale: kernels in um, and connected parts by size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def disk(um: float, mpp: float) -> npt.NDArray[np.uint8]:
    """A round kernel of this diameter, an odd number of px; one px where the diameter is below two."""
    side = 2 * round(um / mpp / 2) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def without_small(mask: npt.NDArray[np.bool_], smallest: float) -> npt.NDArray[np.bool_]:
    """The mask without its connected parts (by edges) of fewer than `smallest` px."""
    _, part, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return np.asarray(keep[part])
