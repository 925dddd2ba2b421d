"""Images with parts hidden: what they are hidden with, masks made of channels, and what the net says of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from wsol._names import closest
from wsol.cams.base import Evidence
from wsol.cams.evidence import chunks
from wsol.models import Localizer

Fill = Literal["mean", "black", "white"]

FILLS = ("mean", "black", "white")

Digits = Literal["float32", "bfloat16", "int8"]


class Contrast(NamedTuple):
    """Of each channel resized to the image: the lowest and the highest value, (b, c) both."""

    low: Tensor
    high: Tensor

    @property
    def there(self) -> Tensor:
        """Bool (b, c): the channel is more than rounding away from a constant."""
        size = torch.maximum(self.low.abs(), self.high.abs())
        return self.high - self.low > 4 * torch.finfo(self.low.dtype).eps * size


def contrast(features: Tensor, size: Sequence[int], budget: int) -> Contrast:
    """The contrast of features (b, c, h, w) at the image's `size`, in chunks of `budget` bytes."""
    planes = features.flatten(0, 1)[:, None]
    ends = [
        torch.aminmax(_resized(planes[part], size).flatten(1), dim=1)
        for part in chunks(len(planes), 4 * size[0] * size[1], budget)
    ]
    low, high = (torch.cat(end).view(features.shape[:2]) for end in zip(*ends, strict=True))
    return Contrast(low, high)


def scaled(m: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(m - low) / (high - low); 0 where there is no contrast."""
    return (m - low) / torch.where(high > low, high - low, torch.inf)


def through(
    evidence: Evidence, features: Tensor, fill: Fill, digits: Digits, change: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Logits of each image seen through each of its channels, float32 (b, c, k); NaN for channels without contrast.

    `change` makes the masks (n, 1, H, W) into others; `digits` is what the backbone computes in. The masked images run channels
    last, which is faster and gives the same.
    """
    images = evidence.pixels
    size = images.shape[2:]
    span = contrast(features, size, evidence.budget)
    owners, channels = span.there.nonzero(as_tuple=True)
    color = fill_color(evidence.net, images, fill)

    def make(part: slice) -> Tensor:
        o, c = owners[part], channels[part]
        masks = scaled(_resized(features[o, c][:, None], size), *(end[o, c][:, None, None, None] for end in span))
        if change is not None:
            masks = change(masks)
        return (color + masks * (images[o] - color)).contiguous(memory_format=torch.channels_last)

    logits = evidence.score(make, len(owners), half=digits == "bfloat16", int8=digits == "int8")
    every = logits.new_full((*features.shape[:2], logits.shape[1]), torch.nan)
    every[owners, channels] = logits
    return every


def fill_color(net: Localizer, images: Tensor, fill: Fill) -> Tensor:
    """The color that stands for "nothing here", (1, 3, 1, 1), in [0, 1] where it is "black" or "white".

    "mean" is the color that the backbone normalizes to 0.

    Raises:
        ValueError: there is no such color (see `Backbone.blank_color`).
    """
    if fill != "mean":
        return images.new_full((1, 3, 1, 1), 0.0 if fill == "black" else 1.0)
    try:
        return net.backbone.blank_color(images)
    except ValueError as error:
        raise ValueError(f"{error}: use fill='black' or fill='white'") from error


def checked_fill(fill: Fill) -> Fill:
    """`fill`, if it is one."""
    if fill not in FILLS:
        raise ValueError(closest("fill", fill, FILLS))
    return fill


def checked_digits(bf16: bool, int8: bool) -> Digits:
    """What the backbone computes in."""
    if bf16 and int8:
        raise ValueError("bf16 and int8 exclude each other: choose one")
    return "bfloat16" if bf16 else "int8" if int8 else "float32"


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes (..., k); the sigmoid of a single logit."""
    return torch.sigmoid(logits) if logits.shape[-1] == 1 else torch.softmax(logits, -1)


def _resized(planes: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(planes, tuple(size), mode="bilinear", align_corners=False)
