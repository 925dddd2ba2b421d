"""What every backbone is. Convolutional ones have five stages at strides 2, 4, 8, 16, 32, fine -> coarse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsol.models.weights import load_weights

OUTPUT_STRIDES = (32, 16, 8)


class Backbone(nn.Module, ABC):
    """Stages a localizer runs one after the other.

    Attributes:
        channels: c of each stage.
        strides: pixels of the image per feature cell, for each stage. An `output_stride` below 32 removes the late strides;
            nothing is dilated, so pretrained filters see finer structure there than they were trained on: fine-tune.
        inputs: channels of what comes in, 3 for images.
        freeze_bn: `train()` leaves batch norm in evaluation mode: its statistics stay (its scale and shift still learn). On a few
            dozen images live statistics do not follow the weights, and give a falling loss with chance accuracy.
    """

    paper: ClassVar[str]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    inputs: int = 3

    def __init__(self, output_stride: int = 32, freeze_bn: bool = True) -> None:
        """Args:
        output_stride: px of the image per cell of the last stage, 32, 16 or 8; in a study a key of the model, 16 by default.
        freeze_bn: keep batch-norm statistics in training; in a study a key of the model.
        """
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

    def blank_color(self, images: Tensor) -> Tensor:
        """The color (1, 3, 1, 1) that `normalize` maps to 0: what a hidden pixel has in the literature, who hide after it.

        ImageNet's mean color for most, mid-gray for `efficientnet_lite0`; in the type and on the device of `images`.

        Raises:
            ValueError: there is none, since `normalize` resizes, or is no affine function of a pixel's three values.
        """
        patch = torch.cat([torch.zeros(3, 1), torch.eye(3)], 1).reshape(1, 3, 2, 2).to(images)  # black, and the three primaries
        ends = self.normalize(patch)
        if ends.shape != patch.shape:
            raise ValueError("the normalization of this backbone resizes images: no color stands for nothing; choose one")
        plain = ends.flatten(2)[0].double().cpu()  # (3, 4)
        color = torch.linalg.lstsq(plain[:, 1:] - plain[:, :1], -plain[:, :1]).solution.reshape(1, 3, 1, 1).to(images)
        beside = torch.cat([color.expand(1, 3, 1, 2), patch[..., :1, :]], 2)  # a rule that looks at the whole image is found out
        rest = self.normalize(beside)[..., :1, :]
        if not bool((rest.abs() < 1e-3).all()):
            raise ValueError("no color is 0 after the normalization of this backbone, which is not affine; choose a color")
        return color

    @staticmethod
    def find_imagenet() -> Path:
        """The file with the ImageNet weights. Raises RuntimeError saying how to get it, if it is not there."""
        raise RuntimeError("no ImageNet weights are known for this backbone: pass weights=<file with its state dict> or None")

    def load_imagenet(self) -> None:
        """Take the ImageNet weights. Raises RuntimeError saying how to get them, if they are not there."""
        load_weights(self, self.find_imagenet())

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict as others publish it, with the names of this class; the same names for most."""
        return dict(state)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but frozen batch norm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


class StandardizedBackbone(Backbone):
    """A backbone whose units are (x - mean) / std of each color: ImageNet's, unless it says others."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        output_stride: int = 32,
        freeze_bn: bool = True,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(output_stride, freeze_bn)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """(x - mean) / std."""
        return (images - self.mean) / self.std
