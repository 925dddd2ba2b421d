"""Heads that draw pixels: a classification head (`base`) decides, and beside it a decoder says where the foreground is.

`Prediction.pixels` are class-agnostic foreground logits; logits and class maps stay those of the base, so that every map method
works on such a net as on the base alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.heads.base import Head, at_least_float32
from wsol.models.localizer import Features, Prediction


class PixelHead(Head):
    """Base of the heads with a decoder: a subclass says how features become pixels.

    Attributes:
        base: the classification head; its dropout, its own losses and its pooling of bags hold.
        affine: that of the base.
    """

    reads: ClassVar[str] = "stages"

    def __init__(
        self, channels: Sequence[int], num_classes: int, *, base: str = "gap", base_options: Mapping[str, Any] | None = None
    ) -> None:
        """Args:
        channels: of all stages, fine -> coarse.
        num_classes: k.
        base: name of the classification head.
        base_options: its options.
        """
        from wsol.models.build import build_head  # it reads the table that names this class

        super().__init__()
        self.base = build_head(base, tuple(channels), num_classes, dict(base_options or {}))
        if isinstance(self.base, PixelHead):
            raise ValueError(f"base must be a classification head; {base!r} has a decoder of its own")

    @abstractmethod
    def decode(self, f: Features) -> Tensor | None:
        """Foreground logits (b, 1, h', w'); None where the features lack a stage that the decoder reads."""

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """What the base says, and pixels. A resumed encode (`start=`) may lack the skips of a decoder: then there are none."""
        said = self.base(f, labels=labels)
        pixels = self.decode(f)
        return Prediction(said.logits, said.maps, None if pixels is None else at_least_float32(pixels), said.extra)

    def logits(self, f: Features) -> Tensor:
        """Logits (b, k) of images or tiles, without running the decoder."""
        said: Prediction = self.base(f)
        return said.logits

    def loss(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """What the base is trained on besides; a decoder is trained by a strategy."""
        return self.base.loss(prediction, labels)

    def kept(self, f: Features, labels: Tensor) -> Tensor | None:
        """What the base leaves of each cell."""
        return self.base.kept(f, labels)

    def bag_state(self, tiles: Prediction) -> Tensor:
        """What the base reads of each tile."""
        return self.base.bag_state(tiles)

    def pool_bags(self, state: Tensor, groups: Tensor) -> Tensor:
        """As the base pools them."""
        return self.base.pool_bags(state, groups)

    @property
    def affine(self) -> bool:  # type: ignore[override]
        """That of the base, as are `weight`, `bias` and `class_maps`: map methods ask a head for them."""
        return self.base.affine

    def __getattr__(self, name: str) -> Any:
        """`weight`, `bias` and `class_maps` of the base, where it has them."""
        if name in ("weight", "bias", "class_maps"):
            return getattr(self.base, name)
        return super().__getattr__(name)


class Decoded(PixelHead):
    """A U-Net decoder over the backbone's stages: from the last one up to stage `finest`, a skip at each.

    The last stage is reduced by a 1x1 convolution; at each finer stage what came so far is resized to it (bilinear; stages of
    one stride keep their size), the stage is appended, and two 3x3 convolutions follow, of width * 2^i channels at stage i. Group
    norm instead of the batch norm of later U-Nets: batches are small, and there are no statistics that could drift.
    Pixels are at the resolution of stage `finest` (stride 2 for stage 0); the original's valid convolutions and crops are not
    followed.
    """

    paper = "Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015"

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        width: int = 16,
        finest: int = 0,
        base: str = "gap",
        base_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Args:
        channels: of all stages, fine -> coarse.
        num_classes: k.
        width: channels of the decoder at stage 0, doubled at each coarser one; a multiple of 8.
        finest: the stage at whose resolution pixels come out, below the last; 1 takes half the time of 0.
        base: name of the classification head.
        base_options: its options.
        """
        super().__init__(channels, num_classes, base=base, base_options=base_options)
        if width < 8 or width % 8:
            raise ValueError(f"width must be a multiple of 8, for groups of 8 channels; got {width}")
        if not 0 <= finest < len(channels) - 1:
            raise ValueError(f"finest must be a stage below the last, in 0..{len(channels) - 2}; got {finest}")
        self.finest = finest
        wide = [width * 2**i for i in range(len(channels) - 1)]
        self.reduce = _block(channels[-1], wide[-1], kernel=1)
        self.levels = nn.ModuleList(
            nn.Sequential(_block(wide[min(i + 1, len(wide) - 1)] + channels[i], wide[i]), _block(wide[i], wide[i]))
            for i in range(len(channels) - 1)
            if i >= finest
        )
        self.last = nn.Conv2d(wide[finest], 1, 1)

    def decode(self, f: Features) -> Tensor | None:
        """Foreground logits (b, 1, h', w') at the resolution of stage `finest`; None where stages are missing."""
        depth = self.finest + len(self.levels) + 1
        if len(f.stages) < depth:
            return None
        stages = [stage.to(self.last.weight.dtype) for stage in f.stages]
        x: Tensor = self.reduce(stages[-1])
        for level, skip in zip(reversed(self.levels), reversed(stages[self.finest : -1]), strict=True):
            if x.shape[-2:] != skip.shape[-2:]:
                x = functional.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = level(torch.cat([x, skip], 1))
        pixels: Tensor = self.last(x)
        return pixels


class Pixel(PixelHead):
    """PixelCAM: a pixel classifier on the last features, 1x1 convolutions to one foreground logit per cell.

    The released head has two outputs under a softmax, which is the sigmoid of their difference. `batch_norm` and `hidden` are its
    variants (batch norm before; 1 or 3 hidden layers); its frozen orthogonal anchors are not built.
    """

    paper = "Guichemerre et al., PixelCAM: Pixel Class Activation Mapping for Histology Image Classification and ROI Localization"

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        hidden: int = 0,
        hidden_channels: int = 128,
        batch_norm: bool = False,
        pixel_dropout: float = 0.1,
        base: str = "gap",
        base_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Args:
        channels: of all stages, fine -> coarse.
        num_classes: k.
        hidden: hidden layers of the pixel classifier, each with a ReLU.
        hidden_channels: of each of them.
        batch_norm: normalize the features first.
        pixel_dropout: share of feature channels dropped in training, for the pixels only; 0.1 in the released code.
        base: name of the classification head.
        base_options: its options.
        """
        super().__init__(channels, num_classes, base=base, base_options=base_options)
        if hidden < 0 or hidden_channels < 1:
            raise ValueError(
                f"hidden layers must not be negative and need at least 1 channel; got {hidden} layers, {hidden_channels} channels"
            )
        if not 0 <= pixel_dropout < 1:
            raise ValueError(f"pixel_dropout must be in [0, 1); got {pixel_dropout}")
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[-1])] if batch_norm else []
        layers += [nn.Dropout2d(pixel_dropout)] if pixel_dropout else []
        inside = channels[-1]
        for _ in range(hidden):
            layers += [nn.Conv2d(inside, hidden_channels, 1), nn.ReLU(inplace=True)]
            inside = hidden_channels
        self.pixel = nn.Sequential(*layers, nn.Conv2d(inside, 1, 1))

    def decode(self, f: Features) -> Tensor:
        """Foreground logits (b, 1, h, w) of the cells of the last stage."""
        pixels: Tensor = self.pixel(f.last.to(next(self.pixel.parameters()).dtype))
        return pixels


def _block(inside: int, outside: int, kernel: int = 3) -> nn.Sequential:
    """Convolution, group norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False), nn.GroupNorm(8, outside), nn.ReLU(inplace=True)
    )
