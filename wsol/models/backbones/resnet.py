"""MONAI's 2-D ResNets, made to compute what torchvision's do; parameter names are torchvision's too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor
from torch.nn import functional

from wsol.models.backbones.base import StandardizedBackbone
from wsol.models.weights import find_in_hub


class ResNet18(StandardizedBackbone):
    """ResNet-18. Every stage ends in a ReLU; stage 0 is the stem before max pooling."""

    paper = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
    channels = (64, 64, 128, 256, 512)
    name: ClassVar[str] = "resnet18"

    def __init__(self, output_stride: int = 32, freeze_bn: bool = True) -> None:
        super().__init__(output_stride, freeze_bn)
        from monai.networks import nets  # here, not above: 6 s

        # Without these it is another net: MONAI's default stem has stride 1, and its shortcut a bias or no weights at all.
        net = getattr(nets, self.name)(
            spatial_dims=2, n_input_channels=3, conv1_t_stride=2, shortcut_type="B", bias_downsample=False, feed_forward=False
        )
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, getattr(net, name))
        for index, stride in ((3, 16), (4, 32)):
            if stride > output_stride:
                first = cast(Any, self.get_submodule(f"layer{index}"))[0]
                for part in (first.conv1, first.conv2, first.downsample[0]):  # the stride is in conv1 or in conv2
                    part.stride = (1, 1)

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Stem; max pooling and layer1; layer2; layer3; layer4."""
        if number == 0:
            return functional.relu(self.get_submodule("bn1")(self.get_submodule("conv1")(x)), inplace=True)
        if number == 1:
            x = functional.max_pool2d(x, 3, 2, 1)
        return cast(Tensor, self.get_submodule(f"layer{number}")(x))

    @classmethod
    def find_imagenet(cls) -> Path:
        """The file of torchvision in torch's hub folder, downloaded where there is a hub."""
        return find_in_hub(cls.name)


class ResNet50(ResNet18):
    """ResNet-50 with the stride in the 3x3 convolutions, as torchvision has it. Every stage ends in a ReLU."""

    channels = (64, 256, 512, 1024, 2048)
    name = "resnet50"
