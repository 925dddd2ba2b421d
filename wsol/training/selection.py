"""Choosing an epoch without any label: does a map follow its image, beyond what color explains?

Every criterion here lays two maps of one image side by side, u and v, and asks for the part of Pearson's correlation that color
does not explain, minus what maps of *different* images have in common,

    score = mean_i <q_i, v_i> - mean_{i != j} <q_i, v_j>,    q_i = u_i without what color explains (`residuals`), |v_i| = 1.

So these get 0 or nearly: constant maps; hematoxylin, amount of tissue, blue minus red and whatever is linear in them, blurred or
not (they have no q); maps that ignore their image, be it a frame of zero padding, a blob in the middle or fixed noise (both terms
are equal); noise that is new each time. A score of 0 or less says: nothing here that color or place would not give. Thresholded
stain is not linear in color, and keeps a little: on phantoms 0.05 to 0.08 where the exact mask has 0.12 to 0.15.

What all of them are blind to, which every number chosen by them inherits:

- *What* is stable. Any texture, lumen, fold or pen mark that is not linear in color scores like the lesion, and a filter of fine
  texture twice as high as the exact mask of a phantom. They can reject maps; they cannot prove one.
- A right answer that *is* a color: where foreground is simply darker, the right map loses what color explains. Scores on other
  images cannot be compared, only epochs on the same ones.
- Sign and scale: a map and its negative score the same.
- Untrained nets are functions of the image as well; early epochs are not always beaten by good ones.

Report them as "label-free", beside B-CL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from wsol.training.residuals import checked, density, directions, residuals

Draw = Callable[[Tensor], Tensor]
"""Images (b, 3, H, W) -> maps (b, h, w), or features (b, c, h, w), in the state the net is validated in."""
Move = Callable[[Tensor], Tensor]

FLIPS = ((-1,), (-2,), (-2, -1))
TURNS = (1, 2, 3)
STEPS = 20


def map_stability(maps: Draw, images: Iterable[Tensor]) -> float:
    """Agreement of the map with the map of the flipped image flipped back; mean over the horizontal, vertical and double flip.

    Args:
        maps: draws the maps.
        images: batches of validation images, two images at least, no labels. H and W should be multiples of the net's output
            stride: otherwise the cells of the flipped image lie elsewhere.

    Returns:
        See the module; 1 at best, 0 for nothing.

    Raises:
        ValueError: a map is not finite, has the wrong shape or too few cells, or there are less than two images.
    """
    flips = [(partial(torch.flip, dims=axes), partial(torch.flip, dims=axes)) for axes in FLIPS]
    return _agreement(maps, images, flips)


def rotation_stability(maps: Draw, images: Iterable[Tensor]) -> float:
    """As `map_stability`, for the three quarter turns."""
    turns = [(partial(torch.rot90, k=k, dims=(-2, -1)), partial(torch.rot90, k=-k, dims=(-2, -1))) for k in TURNS]
    return _agreement(maps, images, turns)


def stain_stability(maps: Draw, images: Iterable[Tensor], matrices: Sequence[ArrayLike]) -> float:
    """Agreement of the map with the map of the restained image, mean over `matrices`; else as `map_stability`.

    Args:
        maps: draws the maps.
        images: batches of validation images.
        matrices: (3, 3) each, from RGB optical density to RGB optical density (`wsol.slides.stain_matrix`).
    """
    stains = [(partial(restained, matrix=torch.as_tensor(m, dtype=torch.float32)), _same) for m in matrices]
    return _agreement(maps, images, stains)


def scale_consistency(maps: Draw, images: Iterable[Tensor], scale: float = 0.75, step: int = 32) -> float:
    """Agreement of the map with the map of the smaller image laid on its cells; else as `map_stability`.

    Args:
        maps: draws the maps.
        images: batches of validation images.
        scale: of the smaller image; its sides are cut to multiples of `step` px.
        step: a multiple of the net's output stride.

    Raises:
        ValueError: as `map_stability`, or the smaller image would have the size of the image: it is too small.
    """

    def smaller(x: Tensor) -> Tensor:
        size = [max(1, int(side * scale / step)) * step for side in x.shape[-2:]]
        if size == list(x.shape[-2:]):
            raise ValueError(
                f"images of {size[0]} x {size[1]} px times {scale}, in steps of {step} px, stay as they are; use larger images"
            )
        return functional.interpolate(x, size, mode="bilinear", antialias=True)

    return _agreement(maps, images, [(smaller, _same)])


def seed_agreement(maps: Draw, features: Draw, images: Iterable[Tensor], seeds: float = 0.2) -> float:
    """Agreement of the map with the two groups that its own seeds find among the features of the image; else as `map_stability`.

    The cells where the map is highest are foreground seeds, those where it is lowest background seeds. 2-means on the features of
    the image starts at the means of the two; the map should then be what tells the two groups apart. Blind also to: features that
    fall into two groups other than lesion and rest (epithelium and stroma, say).

    Args:
        maps: draws the maps.
        features: the net's features, on the CPU or not.
        images: batches of validation images.
        seeds: share of the cells that are seeds of each kind, in (0, 0.5].
    """
    plain, groups = [], []
    for batch in images:
        drawn = checked(maps(batch), batch)
        plain.append((drawn, residuals(drawn, batch)))
        groups.append(two_groups(drawn, features(batch), seeds))
    return _advantage(plain, groups)


def two_groups(maps: Tensor, features: Tensor, seeds: float = 0.2) -> Tensor:
    """1 where a cell's features belong to the group that grew from the highest cells of the map, else 0; float64 (b, h, w).

    Lloyd's algorithm with two means, from the mean features of the `seeds` share of highest and of lowest cells; both groups keep
    at least one cell, or there is one group only: all 1.
    """
    points = features.detach().to("cpu", torch.float64).flatten(2).transpose(1, 2)
    size = (features.shape[-2], features.shape[-1])
    cells = functional.adaptive_avg_pool2d(maps.detach().to("cpu", torch.float64)[:, None], size).flatten(1)
    count = max(1, int(seeds * cells.shape[1]))
    found = []
    for x, m in zip(points, cells, strict=True):
        high, low = x[m.topk(count).indices].mean(0), x[(-m).topk(count).indices].mean(0)
        inside = torch.ones(len(x), dtype=torch.bool)
        for _ in range(STEPS):
            before, inside = inside, (x - high).square().sum(1) <= (x - low).square().sum(1)
            if bool(inside.all()) or not bool(inside.any()):
                inside = torch.ones_like(inside)
                break
            if bool((inside == before).all()):
                break
            high, low = x[inside].mean(0), x[~inside].mean(0)
        found.append(inside.double().reshape(size))
    return torch.stack(found)


def restained(images: Tensor, matrix: Tensor) -> Tensor:
    """Images (b, 3, H, W) in [0, 1] with each pixel's optical density multiplied: od' = matrix @ od."""
    ink = torch.einsum("rc,bchw->brhw", matrix.to(images), density(images))
    return ((256 * torch.exp(-ink) - 1) / 255).clamp(0, 1)


def _same(x: Tensor) -> Tensor:
    return x


def _agreement(maps: Draw, images: Iterable[Tensor], moves: Sequence[tuple[Move, Move]]) -> float:
    """The score of the module for maps of images that were moved, moved back; mean over the moves."""
    plain: list[tuple[Tensor, Tensor]] = []
    moved: list[list[Tensor]] = [[] for _ in moves]
    for batch in images:
        drawn = checked(maps(batch), batch)
        plain.append((drawn, residuals(drawn, batch)))
        for found, (there, back) in zip(moved, moves, strict=True):
            other = there(batch)
            found.append(back(checked(maps(other), other)))
    return sum(_advantage(plain, others) for others in moved) / len(moves)


def _advantage(plain: Sequence[tuple[Tensor, Tensor]], others: Sequence[Tensor]) -> float:
    """Mean product within an image minus mean product across images.

    Args:
        plain: for each batch its maps (b, h, w) and their residuals (b, h * w).
        others: for each batch the maps to compare with, of any size.
    """
    count = sum(len(maps) for maps, _ in plain)
    if count < 2:
        raise ValueError(f"label-free criteria compare images and need at least two of the validation role; got {count}")
    products = []
    for maps, left in plain:
        size = maps.shape[1:]
        products.append(left @ torch.cat([directions(_resized(other, size)) for other in others]).T)
    table = torch.cat(products)
    own = float(table.diagonal().sum())
    return own / count - (float(table.sum()) - own) / (count * (count - 1))


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    return maps if maps.shape[1:] == size else functional.interpolate(maps[:, None], size, mode="bilinear")[:, 0]
