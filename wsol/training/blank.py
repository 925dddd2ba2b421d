"""What an image looks like where nothing is to be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from wsol.models import Localizer


def blank_color(net: Localizer, images: Tensor) -> Tensor:
    """The color (1, 3, 1, 1) that the backbone normalizes to 0, the value a hidden pixel has in the literature.

    ImageNet's mean color for `resnet18`, mid-gray for `efficientnet_lite0`; in the type and on the device of `images`.

    Raises:
        ValueError: the backbone's normalization is not a factor and an offset per channel.
    """
    ends = [net.backbone.normalize(torch.full((1, 3, 1, 1), x, device=images.device)) for x in (0.0, 1.0)]
    color = ends[0] / (ends[0] - ends[1])
    if not torch.allclose(net.backbone.normalize(color), torch.zeros_like(color), atol=1e-4):
        raise ValueError(
            f"no color is normalized to 0 by {type(net.backbone).__name__}: hiding pixels needs a normalization that is "
            "a factor and an offset per channel"
        )
    return color.to(images.dtype)
