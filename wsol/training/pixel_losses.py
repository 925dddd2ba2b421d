"""Losses on foreground logits (b, 1, h, w) of a decoder, one value per image; float32, whatever autocast made of the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from wsol.models import Localizer, Prediction

IGNORED = -1
"""Label of a pixel of which nobody knows whether it is foreground."""


def partial_entropy(pixels: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the labeled pixels of each image, (b,); 0, with a gradient of 0, for an image without any.

    Args:
        pixels: logits (b, 1, h, w).
        labels: (b, h, w), 1 foreground, 0 background, `IGNORED`.
    """
    _fit(pixels, labels)
    known = labels != IGNORED
    entropy = functional.binary_cross_entropy_with_logits(pixels[:, 0].float(), (labels == 1).float(), reduction="none")
    return (entropy * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp_min(1)


def soft_dice(pixels: Tensor, masks: Tensor) -> Tensor:
    """``1 - (2 sum p y + 1) / (sum p + sum y + 1)`` of each image, (b,), p the sigmoid; 0 for nothing drawn where nothing is.

    Milletari et al., V-Net, 2016, has squares in the denominator; without them it is the Dice of evaluation, softened.

    Args:
        pixels: logits (b, 1, h, w).
        masks: bool (b, h, w).
    """
    _fit(pixels, masks)
    p, y = pixels[:, 0].float().sigmoid().flatten(1), masks.float().flatten(1)
    return 1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)


def pixels_of(prediction: Prediction, size: tuple[int, int] | None = None) -> Tensor:
    """The foreground logits of a prediction, float32 (b, 1, h, w), resized (bilinear) to `size` if given."""
    if prediction.pixels is None:
        raise ValueError("the head drew no pixels, which this strategy learns")
    pixels = prediction.pixels.float()
    return pixels if size is None else functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)


def require_decoder(net: Localizer, who: str) -> None:
    """Raise ValueError unless the net's head has a decoder."""
    from wsol.models import PixelHead

    if not isinstance(net.head, PixelHead):
        raise ValueError(
            f"{who} trains pixels and needs a head that has them, 'decoded' or 'pixel'; got {type(net.head).__name__}"
        )


def freeze_classifier(net: Localizer) -> None:
    """Leave the decoder alone to learn: backbone and classification head keep their weights and their statistics."""
    net.backbone.requires_grad_(False)
    head: torch.nn.Module = net.head.base  # type: ignore[assignment]  # of a head with a decoder
    head.requires_grad_(False)


def _fit(pixels: Tensor, labels: Tensor) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 1 or labels.shape != (len(pixels), *pixels.shape[2:]):
        raise ValueError(
            f"expected logits (b, 1, h, w) and labels (b, h, w); got {tuple(pixels.shape)} and {tuple(labels.shape)}"
        )
