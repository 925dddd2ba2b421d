"""Two maps that must fail the sanity checks: they look convincing and do not depend on what the classifier learned."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRAY = (0.299, 0.587, 0.114)


def edge_maps(images: ArrayLike) -> NDArray[np.float32]:
    """How strong the edges of the images are (Sobel magnitude of their luminance): the same whatever the net.

    Args:
        images: float (n, 3, H, W), RGB in [0, 1].

    Returns:
        float32 (n, H, W), at least 0.

    Raises:
        ValueError: another shape.
    """
    from skimage.filters import sobel

    given = np.asarray(images, np.float32)
    if given.ndim != 4 or given.shape[1] != 3:
        raise ValueError(f"images must be (n, 3, H, W), got {given.shape}")
    gray = np.tensordot(np.asarray(GRAY, np.float32), given, axes=(0, 1))
    return np.stack([np.asarray(sobel(one), np.float32) for one in gray])


def principal_maps(features: ArrayLike) -> NDArray[np.float32]:
    """First principal component of the features over the cells, as Eigen-CAM draws it: of the class, and of all weights above
    the features, it knows nothing.

    Features (c, hw) = U S V'; the map is the row of S V' of the largest singular value, not centered, its sign chosen so that
    the sum over the cells is not negative. A control, not a method (Muhammad and Yeasin, Eigen-CAM, IJCNN 2020).

    Args:
        features: float (n, c, h, w).

    Returns:
        float32 (n, h, w).

    Raises:
        ValueError: another shape.
    """
    given = np.asarray(features, np.float64)
    if given.ndim != 4:
        raise ValueError(f"features must be (n, c, h, w), got {given.shape}")
    count, channels, height, width = given.shape
    _, strength, rows = np.linalg.svd(given.reshape(count, channels, height * width), full_matrices=False)
    first = strength[:, :1] * rows[:, 0]
    first *= np.where(first.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    return first.reshape(count, height, width).astype(np.float32)
