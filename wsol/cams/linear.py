"""The maps a head draws itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from wsol._names import closest
from wsol.cams.base import Cam, Evidence
from wsol.models import Features, Localizer


class ClassMap(Cam):
    """CAM: M_c(p) = W_c . F(p), the row of the head's weight for class c times the features, without bias.

    At a GAP head its mean is the logit minus the bias. At other linear heads (LSE) it is the map that the head pools.
    """

    needs_gradient = False
    local = True
    rectified = False
    paper = "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016"

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Take the target's class map of each image."""
        maps = class_maps_of(net, "cam")(evidence.features)
        return maps[torch.arange(len(maps), device=maps.device), evidence.targets]


def class_maps_of(net: Localizer, method: str) -> Callable[[Features], Tensor]:
    """What makes the class maps (b, k, h, w) of the net's head.

    Raises:
        ValueError: the head has none.
    """
    class_maps: Callable[[Features], Tensor] | None = getattr(net.head, "class_maps", None)
    if class_maps is None:
        raise ValueError(
            f"method {method!r} needs a head with linear class maps, such as 'gap' or 'lse'; {type(net.head).__name__} has none: "
            "use a gradient method such as 'grad-cam'"
        )
    return class_maps


class NativeMap(Cam):
    """The map the head itself predicts: its pixels, or its class map of the target, or its attention; no formula of ours.

    At a linear head it is the method 'cam'. A head with a decoder has class maps too, but pixels are what it was built for. Class
    maps are `Prediction.maps` (b, k, h, w), attention is `Prediction.extra["attention"]` (b, h, w) or (b, k, h, w), pixels are
    `Prediction.pixels` (b, 1, h', w'). What has one channel for all classes is the same for every target.
    """

    needs_gradient = False
    local = False
    rectified = False
    paper = "none: the localization that the head was built for, see the paper of the head"

    def __init__(self, *, source: Literal["maps", "attention", "pixels"] | None = None) -> None:
        """`source` says which of the head's maps to take; without it the first there is of pixels, maps, attention."""
        if source not in (None, "maps", "attention", "pixels"):
            raise ValueError(closest("source", source, ("maps", "attention", "pixels")))
        self.source = source

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Take the target's channel."""
        said = evidence.prediction
        there = {"pixels": said.pixels, "maps": said.maps, "attention": said.extra.get("attention")}
        found = {name: m for name, m in there.items() if m is not None and self.source in (None, name)}
        if not found:
            have = [name for name, m in there.items() if m is not None]
            raise ValueError(
                f"method 'native' needs a head that draws {self.source or 'maps, attention or pixels'}; "
                f"{type(net.head).__name__} draws {', '.join(have) or 'none'}: use a gradient method such as 'grad-cam'"
            )
        m: Tensor = next(iter(found.values()))
        if m.ndim == 3:
            return m
        return m[:, 0] if m.shape[1] == 1 else m[torch.arange(len(m), device=m.device), evidence.targets]
