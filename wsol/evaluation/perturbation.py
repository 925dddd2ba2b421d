"""Pixels are taken away or given back, most important first, and the classifier is asked again: insertion and deletion.

The room knows no network. A classifier is a callable: float32 (n, 3, H, W) RGB in [0, 1] -> probabilities (n, k). A map is a
score per pixel, (H, W), higher = more important; only its order counts here.

What stands where a pixel was taken away is half of the answer, for a classifier also reacts to the filling, so `fill` says it:

| fill                | pixels become                                                                                       |
|---------------------|-----------------------------------------------------------------------------------------------------|
| "mean"              | the mean color of the image: stays within its own stain; the default where pixels are deleted       |
| "blur"              | the blurred image (11 x 11 px, sigma 5): the default where pixels are inserted, as RISE has it       |
| (r, g, b) in [0, 1] | that color. Zeros in the classifier's normalized space, the published choice for deletion, are one: |
|                     | (0.485, 0.456, 0.406) with ImageNet's normalization                                                 |
| (3, H, W)           | an image                                                                                            |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsol._names import closest
from wsol.evaluation.counts import Floats
from wsol.evaluation.metrics import source

Image: TypeAlias = NDArray[np.float32]
Classify: TypeAlias = Callable[[Image], ArrayLike]
Fill: TypeAlias = str | ArrayLike

FILLS = ("mean", "blur")
BLUR_PX, BLUR_SIGMA = 11, 5.0


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """Probability of the class after each step.

    Attributes:
        fractions: share of the pixels inserted or deleted, float64 (s,), from 0 to 1.
        probabilities: float64 (s,).
    """

    fractions: Floats
    probabilities: Floats

    @property
    def auc(self) -> float:
        """Area under the curve by trapezoids over the true fractions, in [0, 1]."""
        return float(np.trapezoid(self.probabilities, self.fractions))


@source("Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018")
def insertion(
    classify: Classify,
    image: Image,
    score: ArrayLike,
    target: int,
    *,
    fill: Fill = "blur",
    steps: int = 224,
    batch: int = 32,
    generator: np.random.Generator | None = None,
) -> PerturbationCurve:
    """Start from the filling and put the image's pixels in, most important first; higher is better.

    The first point is the probability of the filling, the last that of the image. RISE's 224 steps of 224 px are the default. Its
    code blurs with a kernel that scipy folds back at its rim, and pads with zeros of normalized space; here the kernel is the cut
    Gaussian and the border is mirrored.

    Args:
        classify: the classifier.
        image: float32 (3, H, W), RGB in [0, 1].
        score: (H, W), higher = more important.
        target: the class; RISE takes the one predicted on the image.
        fill: see the module.
        steps: equal steps, rounded to whole pixels; no more than there are pixels.
        batch: most images per call of the classifier.
        generator: breaks ties at random. Without it pixels of equal score go in raster order, top left first: a map with plateaus
            (zeros after a ReLU) is then partly scored by where on the image it says nothing.

    Raises:
        ValueError: shapes that do not match, NaN, values outside [0, 1], no such class, fewer than one step.
    """
    image = checked_image(image)
    return _curve(classify, filling(image, fill), image, score, target, steps, batch, generator)


@source("Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018")
def deletion(
    classify: Classify,
    image: Image,
    score: ArrayLike,
    target: int,
    *,
    fill: Fill = "mean",
    steps: int = 224,
    batch: int = 32,
    generator: np.random.Generator | None = None,
) -> PerturbationCurve:
    """Start from the image and take pixels away, most important first; lower is better. Arguments as for `insertion`.

    RISE deletes to zeros in normalized space: give that color as `fill` to compare with published numbers.

    Raises:
        ValueError: see `insertion`.
    """
    image = checked_image(image)
    return _curve(classify, image, filling(image, fill), score, target, steps, batch, generator)


def _curve(
    classify: Classify,
    start: Image,
    end: Image,
    score: ArrayLike,
    target: int,
    steps: int,
    batch: int,
    generator: np.random.Generator | None,
) -> PerturbationCurve:
    """Pixels of `start` become those of `end`, most important first."""
    rank = importance(score, start.shape[1:], generator)
    if steps < 1:
        raise ValueError(f"a curve needs at least one step, got steps={steps}")
    counts = np.unique(np.rint(np.linspace(0, rank.size, steps + 1)).astype(np.int64))
    changed = (np.where(rank < count, end, start) for count in counts)
    return PerturbationCurve(counts / rank.size, probabilities(classify, changed, target, batch))


def importance(score: ArrayLike, shape: tuple[int, ...], generator: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Rank of every pixel, int64 (H, W): 0 for the most important. Equal scores in raster order, or at random by `generator`.

    Raises:
        ValueError: another shape than the image's, NaN or infinity.
    """
    values = checked_score(score, shape).ravel()
    ties = np.arange(values.size) if generator is None else generator.permutation(values.size)
    order = np.lexsort((ties, -values))
    rank = np.empty(values.size, np.int64)
    rank[order] = np.arange(values.size)
    return rank.reshape(shape)


def filling(image: Image, fill: Fill) -> Image:
    """What stands where pixels are taken away: float32 (3, H, W); see the module for what `fill` may be.

    Raises:
        ValueError: an unknown name, another shape, NaN, or values outside [0, 1].
    """
    if isinstance(fill, str):
        if fill == "mean":
            return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32), image.shape)
        if fill == "blur":
            return blurred(image)
        raise ValueError(closest("fill", fill, FILLS) + "; or give a color (3,) or an image (3, H, W)")
    given = np.asarray(fill, np.float32)
    given = given[:, None, None] if given.shape == (3,) else given
    if given.shape not in ((3, 1, 1), image.shape):
        raise ValueError(f"fill must be a color (3,) or an image {image.shape}, got {np.shape(fill)}")
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"fill must lie in [0, 1], got {given.min()} ... {given.max()}; divide 8-bit colors by 255")
    return np.broadcast_to(given, image.shape)


def blurred(image: Image) -> Image:
    """The image under an 11 x 11 Gaussian of sigma 5 px, mirrored at the border; float32 (3, H, W)."""
    import cv2

    size = (BLUR_PX, BLUR_PX)
    return np.stack([cv2.GaussianBlur(c, size, BLUR_SIGMA, borderType=cv2.BORDER_REFLECT_101) for c in image]).clip(0, 1)


def masked_image(image: Image, score: ArrayLike, fill: Fill = "mean") -> Image:
    """What a map keeps of an image: score * image + (1 - score) * fill, float32 (3, H, W).

    With the color of zeros in normalized space as `fill` this is the product of map and normalized image, as in Grad-CAM++.

    Args:
        image: float32 (3, H, W), RGB in [0, 1].
        score: (H, W) in [0, 1], e.g. a min-max scaled map.
        fill: see the module.

    Raises:
        ValueError: shapes that do not match, NaN, or values outside [0, 1].
    """
    image = checked_image(image)
    weight = unit_score(score, image.shape[1:])
    return (weight * image + (1 - weight) * filling(image, fill)).astype(np.float32).clip(0, 1)


def probabilities(classify: Classify, images: Iterable[Image], target: int, batch: int = 32) -> Floats:
    """Probability of one class for each image, float64 (n,); never more than `batch` images exist at once.

    Raises:
        ValueError: the classifier returned something else than (n, k) probabilities, or has no such class.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    found = [_asked(classify, np.stack(some).astype(np.float32, copy=False), target) for some in _batches(images, batch)]
    return np.concatenate(found) if found else np.zeros(0)


def _batches(images: Iterable[Image], batch: int) -> Iterator[list[Image]]:
    rest = iter(images)
    while some := list(islice(rest, batch)):
        yield some


def _asked(classify: Classify, images: Image, target: int) -> Floats:
    rows = np.asarray(classify(images), np.float64)
    if rows.ndim != 2 or len(rows) != len(images):
        raise ValueError(f"the classifier must return ({len(images)}, k) for {len(images)} images, it returned {rows.shape}")
    if not 0 <= target < rows.shape[1]:
        raise ValueError(f"target must be a class in 0 ... {rows.shape[1] - 1}, got {target}")
    if not ((rows >= 0) & (rows <= 1 + 1e-6)).all():
        raise ValueError(f"probabilities must lie in [0, 1], got {rows.min()} ... {rows.max()}; apply softmax to logits first")
    return rows[:, target]


def checked_image(image: Image) -> Image:
    """The image as float32 (3, H, W).

    Raises:
        ValueError: another shape, NaN, or values outside [0, 1].
    """
    found = np.asarray(image, np.float32)
    if found.ndim != 3 or found.shape[0] != 3 or not found.size:
        raise ValueError(f"an image must be (3, H, W), got {found.shape}")
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"an image must lie in [0, 1], got {found.min()} ... {found.max()}; divide 8-bit images by 255")
    return found


def checked_score(score: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """The map as float64 (H, W).

    Raises:
        ValueError: another shape than the image's, NaN or infinity.
    """
    found = np.asarray(score, np.float64)
    if found.shape != tuple(shape) or found.ndim != 2 or not found.size:
        raise ValueError(f"a map must have its image's size {tuple(shape)}, got {found.shape}; resize it first")
    if broken := np.count_nonzero(~np.isfinite(found)):
        raise ValueError(f"{broken} of {found.size} scores are NaN or infinite: a broken map must not pass for a map")
    return found


def unit_score(score: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """The map as float64 (H, W) in [0, 1].

    Raises:
        ValueError: another shape than the image's, NaN, or values outside [0, 1].
    """
    found = checked_score(score, shape)
    if found.min() < 0 or found.max() > 1:
        raise ValueError(f"scores must lie in [0, 1], got {found.min()} ... {found.max()}; scale the map first")
    return found
