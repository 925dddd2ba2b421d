"""The map a linear head draws itself."""

from __future__ import annotations

import torch
from torch import Tensor

from wsol.cams.base import Cam, Evidence
from wsol.models import HEADS, Localizer


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
        class_maps = getattr(net.head, "class_maps", None)
        if class_maps is None:
            raise ValueError(
                f"method 'cam' needs a head with linear class maps ({', '.join(HEADS)}); {type(net.head).__name__} has none: "
                "use a gradient method such as 'grad-cam'"
            )
        maps: Tensor = class_maps(evidence.features)
        return maps[torch.arange(len(maps), device=maps.device), evidence.targets]
