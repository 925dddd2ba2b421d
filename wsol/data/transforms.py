"""Augmentation: random crops, flips, quarter turns, color and stain. The only file that knows albumentations.

albumentations 2.0.8 is the last release under the MIT license; it is loaded when a transform is made, not when this file is
imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wsol.slides import StainJitter

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Transform = Callable[[RGB, np.random.Generator], RGB]
"""uint8 RGB (H, W, 3) in and out; all randomness comes from the generator."""

_SD_TO_RANGE = 3**0.5
_MIX = 0.1


class Augmentation:
    """A `Transform` that can take a mask along, made by `train_transform`. An image gets the same pixels with and without one."""

    def __init__(self, geometry: Any, stain: StainJitter | None) -> None:
        """`geometry` is an albumentations pipeline of crops, flips, turns and color; stain jitter follows."""
        self._geometry, self._stain = geometry, stain

    def __call__(self, image: RGB, rng: np.random.Generator) -> RGB:
        """The image, changed."""
        return self._run(rng, image=image)[0]

    def with_mask(self, image: RGB, mask: Mask, rng: np.random.Generator) -> tuple[RGB, Mask]:
        """Image and mask (H, W), cropped and turned alike; what reflection adds to the image it adds to the mask.

        Raises:
            ValueError: they differ in size.
        """
        if mask.shape != image.shape[:2] or mask.dtype != np.bool_:
            raise ValueError(
                f"a mask bool {image.shape[:2]}, of the size of its image, is expected; got {mask.dtype} {mask.shape}"
            )
        changed, moved = self._run(rng, image=image, mask=mask.astype(np.uint8))
        return changed, np.ascontiguousarray(moved.astype(bool))

    def _run(self, rng: np.random.Generator, **targets: npt.NDArray[np.uint8]) -> tuple[RGB, Any]:
        _check(targets["image"])
        self._geometry.set_random_seed(int(rng.integers(2**31)))  # of this transform alone, no global state
        out = self._geometry(**targets)
        image: RGB = np.ascontiguousarray(out["image"])
        if self._stain is not None:
            image = np.ascontiguousarray(self._stain(image, rng))
        return image, out.get("mask")


def train_transform(crop: int | None = 416, *, stain_jitter: float | StainJitter = 0.05, color: float = 0.1) -> Augmentation:
    """The augmentation of training: random crop, one of the eight flips and quarter turns, color jitter, stain jitter.

    Args:
        crop: side in px of the random crop; smaller images are padded by reflection first. None: the whole image.
        stain_jitter: standard deviation of the stains' gains in optical density (a uniform draw of that spread, with a tenth of
            it as mixture between stains), or a `StainJitter`; 0 leaves the stain exactly as it is.
        color: brightness, contrast and saturation are scaled by 1 - color to 1 + color, hue turns by up to a tenth of `color`; 0
            leaves colors exactly as they are.

    Returns:
        A function (image, rng) -> image, which can take a mask along. The same generator state gives the same pixels, whatever
        was drawn before and in whichever thread.
    """
    if crop is not None and crop < 1:
        raise ValueError(f"crop is a side in px; got {crop}")
    if not 0 <= color <= 1:
        raise ValueError(f"color is a strength in [0, 1]; got {color}")
    stain = stain_jitter if isinstance(stain_jitter, StainJitter) else _stain(stain_jitter)
    return Augmentation(_compose(crop, color), stain)


def eval_transform() -> Transform:
    """The image as it is: evaluation changes nothing."""

    def transform(image: RGB, rng: np.random.Generator) -> RGB:
        _check(image)
        return image

    return transform


def to_tensor(images: RGB | Sequence[RGB]) -> torch.Tensor:
    """Float RGB in [0, 1]: (3, H, W) of one image (H, W, 3), (b, 3, H, W) of several of one size.

    Raises:
        ValueError: the images differ in size.
    """
    if isinstance(images, np.ndarray) and images.ndim == 3:
        return to_tensor([images])[0]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ValueError(f"images of one size expected, got {sorted(shapes)}; crop or resize them, or batch by size")
    for image in images:
        _check(image)
    return torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).contiguous().float().div_(255)


def _stain(deviation: float) -> StainJitter | None:
    if not 0 <= deviation < 0.57:
        raise ValueError(f"stain_jitter is a standard deviation in [0, 0.57): stains cannot turn negative; got {deviation}")
    return StainJitter(strength=_SD_TO_RANGE * deviation, mix=_MIX * deviation) if deviation > 0 else None


def _compose(crop: int | None, color: float) -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks PyPI for a newer version at import otherwise
    import albumentations as A
    import cv2

    steps: list = []
    if crop is not None:
        steps += [A.PadIfNeeded(min_height=crop, min_width=crop, border_mode=cv2.BORDER_REFLECT_101), A.RandomCrop(crop, crop)]
    steps.append(A.D4(p=1.0))
    if color > 0:
        spread = (max(0.0, 1 - color), 1 + color)
        steps.append(A.ColorJitter(brightness=spread, contrast=spread, saturation=spread, hue=(-0.1 * color, 0.1 * color), p=1.0))
    return A.Compose(steps)


def _check(image: RGB) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError(f"a uint8 (H, W, 3) RGB image is expected; got {image.dtype} {image.shape}")
