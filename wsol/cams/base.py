"""What a CAM method is: a formula on `Evidence`, behind a door that checks what goes in and what comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from wsol.models import Features, Localizer


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one encode and one backward say about a batch; all methods read the same one.

    Attributes:
        features: detached; its stages are counted from the end.
        logits: float32 (b, k).
        targets: int64 (b,), the class each map is drawn for.
        slopes: stage, counted from the end (-1 = last) -> d logit_target / d stage, (b, c, h, w). Only the stages that the
            methods at hand asked for.
        depth: how many stages the whole backbone has.
        generator: randomness of stochastic methods.
    """

    features: Features
    logits: Tensor
    targets: Tensor
    depth: int
    slopes: Mapping[int, Tensor] = field(default_factory=dict)
    generator: torch.Generator | None = None

    def at(self, layer: int) -> tuple[Tensor, Tensor]:
        """Features and slope of one stage, float32 (b, c, h, w)."""
        back = layer if layer < 0 else layer - self.depth
        return self.features.stages[back].float(), self.slopes[back].float()


class Cam(ABC):
    """Base of the methods. A subclass states the facts and writes `maps`; its keyword-only arguments are its options.

    Attributes:
        needs_gradient: it reads `Evidence.slopes`.
        local: at any head its map is a function of the features around a point, so that a slide may be drawn block by block.
            Gradient methods are not: even at a GAP head the slope is divided by the number of cells of the block.
        rectified: its published final map is rectified, which is `finish(..., relu=True)`; the raw map never is.
        paper: the source.
        layers: the stages it reads, from the front (0..) or from the end (-1 is the last).
    """

    needs_gradient: ClassVar[bool]
    local: ClassVar[bool]
    rectified: ClassVar[bool]
    paper: ClassVar[str]
    layers: tuple[int, ...] = (-1,)

    @final
    def __call__(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The raw maps, float32 (b, h, w), detached.

        Raises:
            ValueError: a map came out with NaN or infinity; the message counts the images.
        """
        maps = self.maps(net, evidence).detach().float()
        if maps.ndim != 3 or len(maps) != len(evidence.targets):
            raise RuntimeError(
                f"{type(self).__name__} must return ({len(evidence.targets)}, h, w); it returned {tuple(maps.shape)}"
            )
        finite = torch.isfinite(maps).flatten(1).all(1)
        if not finite.all():
            broken = (~finite).nonzero().flatten().tolist()
            raise ValueError(
                f"{type(self).__name__} gave NaN or infinity for images {broken} of the batch; "
                "check these images and the weights of the net for NaN"
            )
        return maps

    @abstractmethod
    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The formula: (b, h, w), signed, before any final ReLU."""
