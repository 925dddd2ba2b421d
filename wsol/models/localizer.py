"""The localizer: stages, then a head. Everything else of the package works on what lies between the two.

Axis letters: `b` batch, `k` class, `c` channel, `H W` pixels, `h w` feature cells, `n` bags.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from wsol.models.backbones import Backbone
    from wsol.models.heads.base import Head


@dataclass(frozen=True, eq=False)
class Features:
    """What the backbone saw: the output of each of its stages.

    Attributes:
        stages: tensors (b, c, h, w), fine -> coarse. An encode that was resumed (`start=`) holds the stages from `start` on, so
            count from the end (-1 is always the last stage).
        extra: what a backbone wants to hand to its head besides (attention, tokens).
    """

    stages: tuple[Tensor, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> Tensor:
        """The coarsest stage (b, c, h, w), after its activation: what the head reads."""
        return self.stages[-1]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the head says.

    Attributes:
        logits: (b, k), or (n, k) for n bags.
        maps: (b, k, h, w) class maps of each image or tile, without bias; None if the head has none.
        pixels: (b, 1, h', w') class-agnostic foreground logits; None if the head has no decoder.
        extra: `tile_logits` (b, k) when bags were pooled; a head's own outputs.
    """

    logits: Tensor
    maps: Tensor | None = None
    pixels: Tensor | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Localizer(nn.Module):
    """`encode -> head`.

    `net.head` is the head module: `net.head(f, groups=..., labels=...)` calls it, `net.head.parameters()` and
    `net.backbone.parameters()` are the two parameter groups of training. While the backbone's `freeze_bn` holds, `net.train()`
    keeps its batch-norm statistics as they are.

    Example:
        >>> net = build_localizer("efficientnet_lite0", "gap", num_classes=2, weights=None).eval()
        >>> f = net.encode(torch.rand(1, 3, 64, 64))
        >>> net.head(f).logits.shape
        torch.Size([1, 2])
    """

    backbone: Backbone
    head: Head
    between: dict[int, nn.Module]
    """Modules that change the output of a stage, by its number, in training only. A strategy puts them there; they have no
    parameters, and neither checkpoints nor maps know of them."""

    def __init__(self, backbone: Backbone, head: Head, recipe: dict[str, Any] | None = None) -> None:
        """`recipe` holds the arguments of `build_localizer` that rebuild this net; without it the net cannot be checkpointed."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.recipe = recipe
        self.between = {}

    def encode(self, images: Tensor, *, leaf: int | None = None, start: int = 0) -> Features:
        """The stages of the backbone.

        Args:
            images: float (b, 3, H, W) RGB in [0, 1]; with `start=i + 1` the output of stage i, (b, c, h, w).
            leaf: this stage becomes a gradient leaf: no graph is built below it, and one above it wherever gradients are enabled.
                Negative numbers count from the end.
            start: the first stage to run.

        Raises:
            TypeError: the input is not a float tensor.
            ValueError: wrong shape, or no such stage.
        """
        depth = len(self.backbone.channels)
        if not 0 <= start < depth:
            raise ValueError(f"start must be a stage in 0..{depth - 1}; got {start}")
        if leaf is not None:
            leaf = self.stage_number(leaf)
            if leaf < start:
                raise ValueError(f"the leaf stage {leaf} lies below the stage {start} that encoding starts at")
        channels = self.backbone.inputs if start == 0 else self.backbone.channels[start - 1]
        _check_input(images, channels, "images in [0, 1]" if start == 0 else f"the output of stage {start - 1}")
        x = self.backbone.normalize(images) if start == 0 else images
        stages, extra = [], {}
        for number in range(start, depth):
            with torch.no_grad() if leaf is not None and number <= leaf else nullcontext():
                x, beside = self.backbone.run(number, x)
                extra.update(beside)
                if self.training and number in self.between:
                    x = self.between[number](x)
            if number == leaf:
                x = x.detach().requires_grad_(True)
            stages.append(x)
        return Features(tuple(stages), extra)

    def stage_number(self, number: int) -> int:
        """`number` counted from the front, in 0..len - 1. Raises ValueError if the backbone has no such stage."""
        depth = len(self.backbone.channels)
        if not -depth <= number < depth:
            raise ValueError(f"no stage {number}: the backbone has {depth} stages, 0..{depth - 1} or -{depth}..-1")
        return number % depth

    def forward(self, images: Tensor, groups: Tensor | None = None, labels: Tensor | None = None) -> Prediction:
        """`net.head(net.encode(images), groups=groups, labels=labels)`."""
        prediction: Prediction = self.head(self.encode(images), groups=groups, labels=labels)
        return prediction

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but a part whose parameters are all frozen stays in evaluation mode: it does not drift."""
        super().train(mode)
        if mode:
            for part in self.modules():
                own = list(part.parameters())
                if own and not any(p.requires_grad for p in own):
                    part.eval()
        return self

    @property
    def output_stride(self) -> int:
        """Pixels of the image per cell of the last stage."""
        return self.backbone.strides[-1]

    def describe(self) -> dict[str, Any]:
        """The recipe, the number of parameters, and channels and stride of every stage; JSON-ready."""
        return {
            **(self.recipe or {}),
            "parameters": sum(p.numel() for p in self.parameters()),
            "stages": [{"channels": c, "stride": s} for c, s in zip(self.backbone.channels, self.backbone.strides, strict=True)],
        }


def _check_input(x: Tensor, channels: int, what: str) -> None:
    """Raise unless `x` is a float (b, `channels`, h, w)."""
    if not x.is_floating_point():
        raise TypeError(f"expected {what} as a float tensor; got {x.dtype}; convert (uint8 images: divide by 255)")
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape:
        raise ValueError(f"expected {what} of shape (b, {channels}, h, w), none of them 0; got {tuple(x.shape)}")
