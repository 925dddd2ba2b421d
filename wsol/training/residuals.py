"""The part of a map that color does not explain: what label-free criteria look at, so that a stain filter cannot please them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CONSTANT = 1e-4
"""A map whose standard deviation is below this share of its largest value carries rounding noise, not a place."""
EXPLAINED = 1e-3
"""A residual below this share of the map's own norm is rounding noise."""
SAME = 1e-5
"""A color whose standard deviation over an image is below it is one color; what differs is rounding. 8 bits are 4e-3."""
CHROMA = 0.05
"""Spread of optical density between the channels above which a pixel is tissue, as in `wsol.slides.tissue_mask`."""


def density(images: Tensor) -> Tensor:
    """Optical density of each channel: RGB in [0, 1] -> -ln((255 v + 1) / 256), 0 (white) to 5.5 (black)."""
    return -torch.log((255 * images.clamp(0, 1) + 1) / 256)


def colors(images: Tensor, size: tuple[int, int]) -> Tensor:
    """What a map may owe to color alone, at its cells.

    Five colors: the optical density of the three channels (hematoxylin, eosin and the amount of tissue are linear in them), blue
    minus red, and the share of tissue; each as the mean of the cell and of its neighborhood (an eighth of the shorter side, 3
    cells at least), since stain floors are blurred.

    Args:
        images: (b, 3, H, W) in [0, 1].
        size: (h, w), the cells of a map.

    Returns:
        float64 (b, h * w, 10) on the CPU.
    """
    images = images.detach().to("cpu", torch.float32)
    ink = density(images)
    tissue = (ink.amax(1, keepdim=True) - ink.amin(1, keepdim=True) > CHROMA).to(ink.dtype)
    cells = functional.adaptive_avg_pool2d(torch.cat((ink, images[:, 2:] - images[:, :1], tissue), 1), size).double()
    side = max(3, min(size) // 8 // 2 * 2 + 1)
    around = functional.avg_pool2d(cells, side, 1, side // 2, count_include_pad=False)
    return torch.cat((cells, around), 1).flatten(2).transpose(1, 2)


def checked(maps: Tensor, images: Tensor) -> Tensor:
    """Maps (b, h, w) of images as float64 on the CPU.

    Raises:
        ValueError: a map is not finite or has the wrong shape.
    """
    drawn = maps.detach().to("cpu", torch.float64)
    if drawn.ndim != 3 or len(drawn) != len(images):
        raise ValueError(f"maps must be (b, h, w) for images {tuple(images.shape)}; got {tuple(drawn.shape)}")
    if not bool(drawn.isfinite().all()):
        raise ValueError("a map holds NaN or infinity; training has diverged or the map method is broken")
    return drawn


def directions(maps: Tensor) -> Tensor:
    """Maps (b, h, w) -> (b, h * w), centered and of length 1; 0 for a constant map. Their products are Pearson correlations."""
    flat = maps.flatten(1)
    constant = flat.std(dim=1, correction=0) <= CONSTANT * flat.abs().amax(dim=1)
    flat = flat - flat.mean(1, keepdim=True)
    return torch.where(constant[:, None], 0.0, functional.normalize(flat, dim=1, eps=torch.finfo(flat.dtype).tiny))


def residuals(maps: Tensor, images: Tensor) -> Tensor:
    """Directions of maps (b, h, w) without what color explains, (b, h * w), each as long as the share that is left, at most 1.

    Image by image, least squares on `colors` and a constant is taken out. With P the projection on color and Q = 1 - P, Pearson's
    correlation of two maps is r = (<Pm, m'> + <Qm, m'>) / (|m| |m'|); the product of a residual and a direction is its second
    term, the part of the correlation that color does not explain. It is 0 where m is constant or color only.

    Raises:
        ValueError: a map has too few cells for color to be told from place.
    """
    known = colors(images, (maps.shape[1], maps.shape[2]))
    cells, columns = known.shape[1:]
    if cells < 2 * (columns + 1):
        raise ValueError(
            f"maps of {maps.shape[1]} x {maps.shape[2]} cells are too small: {columns} colors are taken out of them, which needs "
            f"{2 * (columns + 1)} cells; use larger images or tiles, output_stride 16, or another checkpoint"
        )
    whole = directions(maps)
    left = whole - _projected(whole, known - known.mean(1, keepdim=True))
    return torch.where(left.norm(dim=1, keepdim=True) <= EXPLAINED, 0.0, left)


def _projected(values: Tensor, known: Tensor) -> Tensor:
    """`values` (b, n) projected on the columns of `known` (b, n, k); columns that add nothing (a blank image) do no harm."""
    scale = known.norm(dim=1, keepdim=True)
    same = scale <= SAME * known.shape[1] ** 0.5
    basis, weight, _ = torch.linalg.svd(torch.where(same, 0.0, known / torch.where(same, 1.0, scale)), full_matrices=False)
    basis = basis * (weight > 1e-6).to(basis.dtype)[:, None]
    return torch.einsum("bnk,bk->bn", basis, torch.einsum("bnk,bn->bk", basis, values))
