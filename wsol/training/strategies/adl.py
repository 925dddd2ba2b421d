"""Attention-based dropout: now and then the most active places of a feature map are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer


class AttentionDropout(nn.Module):
    """Features (b, c, h, w) times one of two maps (b, 1, h, w) of their channel mean a: for the whole batch, at random.

    With probability `drop_rate` the drop mask, 0 where a >= threshold * max a of that image and 1 elsewhere; otherwise the
    importance map sigmoid(a), through which gradients flow as in the released code. Where max a is not positive, as it can be
    for features before an activation, nothing is dropped.

    Attributes:
        generator: draws, on the CPU; None is torch's global one.
        kept: the drop mask of the last call; None if that took the importance map.
    """

    def __init__(self, drop_rate: float, threshold: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        self.threshold = threshold
        self.generator: torch.Generator | None = None
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The features with what is left of them, in their type; the map is computed in float32."""
        attention = x.float().mean(1, keepdim=True)
        if float(torch.rand((), generator=self.generator)) < self.drop_rate:
            largest = attention.amax((2, 3), keepdim=True)
            self.kept = ((attention < self.threshold * largest) | (largest <= 0)).float()
        else:
            self.kept = None
        return x * (attention.sigmoid() if self.kept is None else self.kept).to(x.dtype)


class Adl(Strategy):
    """Cross-entropy with attention-based dropout after some stages, in training only: there is no trace of it in the checkpoint.

    Choe and Shim, "Attention-based Dropout Layer for Weakly Supervised Object Localization", CVPR 2019. The released layers stand
    before, between and after the last two blocks of VGG16, that is after the last three stages here; drop_rate 0.75 and
    threshold 0.9 are those of wsolevaluation (by the same first author), the survey of histology has 0.4 and 0.1. The threshold
    is meant for features that are not negative: all stages of `resnet18`, the last one of `efficientnet_lite0`.
    """

    paper = "https://arxiv.org/abs/1908.10028"

    def __init__(
        self,
        *,
        stages: Sequence[int] = (-3, -2, -1),
        drop_rate: float = 0.75,
        threshold: float = 0.9,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Args:
        stages: after which a layer stands; negative numbers count from the end.
        drop_rate: probability of the drop mask, in [0, 1]; the importance map has the rest.
        threshold: share of the largest channel mean from which on a place is dropped, in [0, 1].
        label_smoothing: as for `Strategy`.
        class_weights: as for `Strategy`.
        """
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        if not stages:
            raise ValueError("stages names none; give at least one stage, or use strategy classify")
        for name, value in {"drop_rate": drop_rate, "threshold": threshold}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1]; got {value}")
        self.stages = tuple(stages)
        self.drop_rate = drop_rate
        self.threshold = threshold

    def settings(self) -> dict[str, Any]:
        """As for `Strategy`, with the stages."""
        return {**super().settings(), "stages": list(self.stages)}

    def attach(self, net: Localizer) -> None:
        """Put the layers in. Raises ValueError if the net has no such stage."""
        for stage in self.stages:
            net.between[net.stage_number(stage)] = AttentionDropout(self.drop_rate, self.threshold)

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """Cross-entropy; the layers draw from `generator`."""
        self._lend(net, generator)
        return super().loss(net, batch, generator, epoch)

    def kept(self, net: Localizer, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """What the layers that drop leave together, at the resolution of the finest of them; None if none drops this time."""
        layers = self._lend(net, generator)
        net.encode(batch.images)
        masks = [layer.kept for layer in layers if layer.kept is not None]
        if not masks:
            return None
        size = max((mask.shape[-2:] for mask in masks), key=lambda shape: shape[0])
        return torch.stack([functional.interpolate(mask, size=size) for mask in masks]).prod(0)

    def _lend(self, net: Localizer, generator: torch.Generator) -> list[AttentionDropout]:
        """The layers, which draw from `generator` from now on."""
        layers = [layer for layer in net.between.values() if isinstance(layer, AttentionDropout)]
        for layer in layers:
            layer.generator = generator
        return layers
