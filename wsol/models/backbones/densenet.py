"""MONAI's 2-D DenseNet-121, which computes what torchvision's does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from wsol.models.backbones.base import StandardizedBackbone
from wsol.models.weights import find_in_hub


class DenseNet121(StandardizedBackbone):
    """DenseNet-121. Stages 0 and 4 end in a ReLU; 1..3 are dense blocks before the norm of the next transition, hence signed.

    Transitions pool without padding: a side of n cells becomes floor(n / 2), where the other backbones have ceil.
    """

    paper = "Huang et al., Densely Connected Convolutional Networks, CVPR 2017"
    channels = (64, 256, 512, 1024, 1024)
    _STAGES = (
        ("conv0", "norm0"),
        ("pool0", "denseblock1"),
        ("transition1", "denseblock2"),
        ("transition2", "denseblock3"),
        ("transition3", "denseblock4", "norm5"),
    )

    def __init__(self, output_stride: int = 32, freeze_bn: bool = True) -> None:
        super().__init__(output_stride, freeze_bn)
        from monai.networks.nets import densenet121  # here, not above: 6 s

        self.features = densenet121(spatial_dims=2, in_channels=3, out_channels=1).features
        for transition, stride in (("transition2", 16), ("transition3", 32)):
            if stride > output_stride:
                self.features.get_submodule(transition).pool = nn.Identity()

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Stem; max pooling and block 1; a transition and a block, three times; the last ends in a norm and a ReLU."""
        for name in self._STAGES[number]:
            x = cast(Tensor, self.features.get_submodule(name)(x))
        return functional.relu(x, inplace=True) if number in (0, len(self.channels) - 1) else x

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Torchvision's `denselayer1.norm1` is MONAI's `denselayer1.layers.norm1`, and `norm.1` in files from before 2018."""
        layer = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")
        return {layer.sub(r"\1.layers.\2\3.", key): value for key, value in state.items()}

    @staticmethod
    def find_imagenet() -> Path:
        """The file of torchvision in torch's hub folder, downloaded where there is a hub."""
        return find_in_hub("densenet121")
