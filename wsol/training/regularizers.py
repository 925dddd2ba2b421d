"""Terms that need no label: what a map of the foreground should look like, whatever it shows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def window_crf(
    foreground: Tensor, images: Tensor, *, radius: int = 2, sigma_rgb: float = 15 / 255, sigma_xy: float = 50.0
) -> Tensor:
    """Disagreement of near pixels of like color, one value in [0, 1] per image, (b,); 0 for a map that is 0 or 1 in one piece.

    ``sum_pq w_pq (s_p (1 - s_q) + s_q (1 - s_p)) / sum_pq w_pq`` over the pairs at most `radius` rows and columns apart, with
    ``w_pq = exp(-|p - q|^2 / (2 sigma_xy^2) - |I_p - I_q|^2 / (2 sigma_rgb^2))``: the dense CRF loss of Tang et al. ("On
    Regularized Losses for Weakly-supervised CNN Segmentation", ECCV 2018), which F-CAM uses, but *within a window*, where they
    sum over all pairs of the image by a permutohedral lattice; and divided by the sum of the weights, so that its size depends
    neither on the image's nor on the window's. Gradients flow to the map alone.

    Args:
        foreground: probabilities s (b, h, w).
        images: RGB in [0, 1], (b, 3, h, w), of the size of the maps.
        radius: of the window; the cost grows with its square.
        sigma_rgb: of the color, in units of the images; 15 of 255 in the paper.
        sigma_xy: of the distance in cells; 100 px in the paper. Within a small window it hardly matters.

    Raises:
        ValueError: sizes that do not agree, an option out of its range, or a map of a single pixel: there are no pairs.
    """
    if images.shape != (len(foreground), 3, *foreground.shape[1:]):
        raise ValueError(
            f"maps (b, h, w) and images (b, 3, h, w) of one size are expected; got {tuple(foreground.shape)} and "
            f"{tuple(images.shape)}"
        )
    if radius < 1 or not sigma_rgb > 0 or not sigma_xy > 0:
        raise ValueError(f"radius must be at least 1 and both sigmas positive; got {radius}, {sigma_rgb} and {sigma_xy}")
    s, colors = foreground.float(), images.detach().float()
    height, width = s.shape[1:]
    if height * width < 2:
        raise ValueError("a map of a single pixel has no pairs")
    pairs = [(dy, dx) for dy in range(radius + 1) for dx in range(-radius, radius + 1) if (dy, dx) > (0, 0)]
    above, below = s.new_zeros(len(s)), s.new_zeros(len(s))
    for dy, dx in pairs:
        if dy >= height or abs(dx) >= width:
            continue
        here = (..., slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        there = (..., slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
        near = math.exp(-(dy**2 + dx**2) / (2 * sigma_xy**2))
        weight = near * torch.exp(-(colors[here] - colors[there]).square().sum(1) / (2 * sigma_rgb**2))
        p, q = s[here], s[there]
        above = above + (weight * (p * (1 - q) + q * (1 - p))).flatten(1).sum(1)
        below = below + weight.flatten(1).sum(1)
    return above / below.clamp_min(torch.finfo(torch.float32).tiny)
