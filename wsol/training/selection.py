"""Choosing an epoch without any label.

`map_stability` asks only whether a map moves with the image. Its blind spots, which every number chosen by it inherits:

- It does not know *what* is stable. A map of the stain (hematoxylin, blue minus red) is a function of each pixel, so it scores 1,
  as does any other confounder that flips with the image (lumen, folds, pen marks).
- A map that ignores the image and is symmetric, such as the frame that zero padding draws or a blob in the middle, scores 1.
- It is blind to sign and scale: a map and its negative score the same.
- Untrained and barely trained nets can be stable too, so early epochs are not always beaten by good ones.

So it can reject unstable maps; it cannot prove good ones. Report it as "label-free" and beside B-CL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

FLIPS = ((-1,), (-2,), (-2, -1))
CONSTANT = 1e-4
"""A map whose standard deviation is below this share of its largest value carries rounding noise, not a place."""


def map_stability(maps: Callable[[Tensor], Tensor], images: Iterable[Tensor]) -> float:
    """Mean Pearson correlation between the map, and the map of the flipped image flipped back.

    Args:
        maps: draws maps: images (b, 3, H, W) -> (b, h, w), in the state the net is validated in.
        images: batches of validation images, labels not needed. H and W should be multiples of the net's output stride:
            otherwise the cells of the flipped image lie elsewhere and even a perfect map scores below 1.

    Returns:
        A number in [-1, 1], averaged over images and the horizontal, the vertical and the double flip. An image whose map is
        constant (before or after flipping) counts 0: no evidence is no stability.

    Raises:
        ValueError: a map is not finite, has the wrong shape, or there are no images.
    """
    scores: list[Tensor] = []
    for batch in images:
        plain = _drawn(maps, batch)
        scores += [pearson(plain, _drawn(maps, batch.flip(axes)).flip(axes)) for axes in FLIPS]
    if not scores or not (every := torch.cat(scores)).numel():
        raise ValueError("map stability needs at least one validation image; got none")
    return float(every.mean())


def _drawn(maps: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The maps of a batch as float64 on the CPU, checked."""
    drawn = maps(images).detach().to("cpu", torch.float64)
    if drawn.ndim != 3 or len(drawn) != len(images):
        raise ValueError(f"maps must be (b, h, w) for images {tuple(images.shape)}; got {tuple(drawn.shape)}")
    if not bool(drawn.isfinite().all()):
        raise ValueError("a map holds NaN or infinity; training has diverged or the map method is broken")
    return drawn


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of each pair of maps (b, h, w) -> (b,); 0 where either map is constant."""
    a, b = a.flatten(1), b.flatten(1)
    constant = _is_constant(a) | _is_constant(b)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    r = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(torch.finfo(a.dtype).tiny)
    return torch.where(constant, torch.zeros_like(r), r)


def _is_constant(flat: Tensor) -> Tensor:
    return flat.std(dim=1, correction=0) <= CONSTANT * flat.abs().amax(dim=1)
