"""From raw maps to scores, in one fixed order: ReLU -> bilinear resize -> normalize.

The order matters: neither ReLU nor min-max commutes with bilinear resizing. Rectifying first keeps negative evidence from
bleeding into its neighborhood; scaling last makes the scores span what was asked for at the final size.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from wsol._names import closest, resolve

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", npt.NDArray[np.floating], "Tensor")
Normalize = Literal["minmax", "range", "sigmoid"]


def finish(
    m: Array,
    size: tuple[int, int] | None,
    relu: bool | str | None = None,
    normalize: Normalize | None = "minmax",
    scope: Literal["image"] | tuple[float, float] = "image",
) -> Array:
    """Rectify, resize and scale raw maps.

    Args:
        m: (h, w) or (b, h, w), numpy or torch.
        size: (H, W) to resize to, bilinear with align_corners=False; None keeps (h, w).
        relu: rectify first; or the name of a method, whose class fact `rectified` decides (of a
            wrapper such as "smooth", name the base); None keeps the sign.
        normalize: "minmax" per image to [0, 1], a constant map to zeros; "range" (m - low) / (high - low), clipped to [0, 1],
            with `scope=(low, high)`; "sigmoid" 1 / (1 + exp(-m)); None leaves the units.
        scope: "image", or (low, high) for "range": one scale for all images, so that "nothing here" can be said.

    Returns:
        float32, of the kind (numpy, or torch on the same device) and number of axes of `m`.

    Raises:
        ValueError: NaN or infinity in `m`, a wrong shape or size, unknown `normalize`, a scope that does not go with it.
    """
    maps = m if isinstance(m, np.ndarray) else m.detach().float().cpu().numpy()
    maps = np.asarray(maps, np.float32)
    if maps.ndim not in (2, 3) or 0 in maps.shape:
        raise ValueError(f"maps must be (h, w) or (b, h, w), none of them 0; got {maps.shape}")
    if not np.isfinite(maps).all():
        raise ValueError("NaN or infinity in a map: a broken map must not pass for a blank one")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be (H, W), both at least 1; got {tuple(size)}")
    low, high = _range(normalize, scope)
    if _rectifies(relu):
        maps = np.maximum(maps, 0)
    done = np.stack([_one(one, size, normalize, low, high) for one in (maps if maps.ndim == 3 else maps[None])])
    done = done.reshape(*maps.shape[:-2], *done.shape[1:])
    if isinstance(m, np.ndarray):
        return done
    import torch

    return torch.from_numpy(done).to(m.device)


def _one(
    m: npt.NDArray[np.float32], size: tuple[int, int] | None, normalize: Normalize | None, low: float, high: float
) -> npt.NDArray[np.float32]:
    """One rectified map."""
    # Decided before resizing, whose rounding would turn a constant map into noise that min-max then blows up to the full scale.
    constant = float(m.max()) - float(m.min()) <= 4 * float(np.finfo(np.float32).eps) * float(np.abs(m).max())
    if normalize == "minmax" and constant:
        return np.zeros(size or m.shape, np.float32)
    if size is not None and tuple(size) != m.shape:
        import cv2

        m = np.asarray(cv2.resize(m, (int(size[1]), int(size[0])), interpolation=cv2.INTER_LINEAR), np.float32)
    if normalize is None:
        return m
    wide = m.astype(np.float64)
    if normalize == "sigmoid":
        return (0.5 * (1 + np.tanh(wide / 2))).astype(np.float32)  # the logistic function, without overflow
    if normalize == "minmax":
        low, high = float(m.min()), float(m.max())
        if high <= low:  # possible only when resizing to fewer cells
            return np.zeros(m.shape, np.float32)
    return np.clip((wide - low) / (high - low), 0, 1).astype(np.float32)


def _range(normalize: str | None, scope: str | tuple[float, float]) -> tuple[float, float]:
    """(low, high) of "range"; raises where `normalize` and `scope` do not go together."""
    if normalize not in ("minmax", "range", "sigmoid", None):
        raise ValueError(closest("normalize", str(normalize), ("minmax", "range", "sigmoid")))
    if normalize != "range":
        if scope != "image":
            raise ValueError(f"scope={scope!r} needs normalize='range'; normalize={normalize!r} takes scope='image'")
        return 0.0, 1.0
    if isinstance(scope, str) or len(scope) != 2:
        raise ValueError(f"normalize='range' needs scope=(low, high), the raw values that become 0 and 1; got {scope!r}")
    low, high = float(scope[0]), float(scope[1])
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"scope must be finite with low < high; got ({low}, {high})")
    return low, high


def _rectifies(relu: bool | str | None) -> bool:
    if isinstance(relu, str):
        from wsol.cams import METHODS

        kind = resolve("CAM method", relu, METHODS, "wsol.cams")
        if "base" in inspect.signature(kind).parameters:
            raise ValueError(
                f"{relu!r} draws another method, whose map it rectifies or not: pass the base's name ('grad-cam') or a bool"
            )
        return bool(kind.rectified)
    return bool(relu)
