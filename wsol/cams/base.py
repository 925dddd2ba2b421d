"""What a CAM method is: a formula on `Evidence`, behind a door that checks what goes in and what comes out.

How to write one, from cheap to dear; all of it is without hooks, and in float32:

| a method reads | by | and says so with |
|---|---|---|
| features of a stage | `evidence.stage(layer)` | `layers` |
| slopes d logit_target / d stage, too | `evidence.at(layer)` | `needs_gradient` |
| what the head said (own maps, attention, pixels) | `evidence.prediction` | |
| logits of changed features | `evidence.tail(rows, layer)` | `needs_tail` |
| the same as a formula, at a GAP head | `evidence.affine(layer)`, None elsewhere | an option `closed_form` |
| the images, and logits of changed images | `evidence.pixels`, `evidence.score(rows)` | `needs_images` |
| features and slopes of changed images | `evidence.look(images, layers)` | `needs_images` |
| randomness | `evidence.generator` | |

One encode, one call of the head and one backward serve all methods of a `cams` call: every stage any of them declares is a target
of that backward. `tail` and `score` take a tensor or, where the rows are too many to hold, a function that makes a slice of them;
they cut them into chunks that fit a budget of bytes. Of the rows, `evidence.of_target(logits, owners)` picks the target's logit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from wsol.cams.evidence import Evidence as Evidence
from wsol.models import Localizer


class Cam(ABC):
    """Base of the methods. A subclass states the facts and writes `maps`; its keyword-only arguments are its options.

    Attributes:
        needs_gradient: it reads `Evidence.slopes`.
        needs_tail: it runs the part of the net above its layer on changed features, many times where there is no closed form.
        needs_images: it reads `Evidence.images`; features alone do not do.
        local: at any head its map is a function of the features around a point, so that a slide may be drawn block by block.
            Gradient methods are not: even at a GAP head the slope is divided by the number of cells of the block.
        rectified: its published final map is rectified, which is `finish(..., relu=True)`; the raw map never is.
        class_specific: maps of two classes differ; without it the method draws what the features show, whatever the target.
        resolution: "feature" (the stage it reads, or what the head draws), or "image": (b, H, W).
        paper: the source.
        layers: the stages it reads, from the front (0..) or from the end (-1 is the last).
    """

    needs_gradient: bool
    needs_tail: ClassVar[bool] = False
    needs_images: bool = False
    local: bool
    rectified: bool
    class_specific: bool = True
    resolution: Literal["feature", "image"] = "feature"
    paper: ClassVar[str]
    layers: tuple[int, ...] = (-1,)

    @final
    def __call__(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The raw maps, float32 (b, h, w), detached; (b, H, W) at resolution "image".

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


class OneLayer(Cam):
    """Base of the methods that read one stage, `self.layer`."""

    def __init__(self, *, layers: Sequence[int] | None = None) -> None:
        """`layers` holds the one stage to read, (-1,) without it."""
        self.layers = (-1,) if layers is None else tuple(layers)
        if len(self.layers) != 1:
            raise ValueError(f"{type(self).__name__} draws one layer; got {self.layers}; 'layer-cam' fuses several")

    @property
    def layer(self) -> int:
        """The one stage."""
        return self.layers[0]
