"""Heads with linear class maps: a 1x1 map per class, pooled to one logit.

For features F (b, c, h, w), weight W (k, c) and bias B (k,): class map M_k(p) = W_k . F(p), logit_k = pool_p(M_k) + B_k.
A head always computes in float32 (float64 for float64 features), whatever autocast says: logits decide, and cost next to nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.localizer import Features, Prediction


class Head(nn.Module, ABC):
    """Base of the linear heads; a subclass says how a class map becomes one number.

    A bag (`groups=`) is pooled per class: the mean of the k largest tile logits, k = max(1, round(bag_top * tiles)). Hence a bag
    of one tile is that image, and the order of the tiles does not matter.

    Attributes:
        weight: (k, c).
        bias: (k,).
    """

    paper: ClassVar[str]

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.0, bag_top: float = 0.25) -> None:
        """Args:
        channels: c of the last stage.
        num_classes: k.
        dropout: share of feature channels dropped in training; the mask comes from torch's global generator.
        bag_top: share of a bag's tiles that its logit averages, in (0, 1].
        """
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        if not 0 < bag_top <= 1:
            raise ValueError(f"bag_top must be in (0, 1]; got {bag_top}")
        self.dropout = dropout
        self.bag_top = bag_top
        self.weight = nn.Parameter(torch.empty(num_classes, channels))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear; the bias at 0 favors no class

    @abstractmethod
    def pool(self, maps: Tensor) -> Tensor:
        """Class maps (b, k, h, w) -> (b, k). Must commute with adding a constant to a map, since the bias is added after it."""

    def class_maps(self, f: Features) -> Tensor:
        """M = W F, (b, k, h, w), without bias; float32 at least."""
        x = _at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            return functional.conv2d(x, self.weight.to(x.dtype)[:, :, None, None])

    def forward(self, f: Features, groups: Tensor | None = None, labels: Tensor | None = None) -> Prediction:
        """Logits and class maps.

        Args:
            f: features of b images or tiles.
            groups: int64 (b,), the bag of each tile, numbered 0..n - 1; None if each image stands for itself.
            labels: for heads that erase evidence in training; linear heads do not read it.

        Raises:
            ValueError: `groups` does not number the bags of these tiles.
        """
        if self.training and self.dropout:
            f = Features((*f.stages[:-1], functional.dropout2d(f.last, self.dropout)), f.extra)
        maps = self.class_maps(f)
        with torch.autocast(maps.device.type, enabled=False):
            logits = self.pool(maps) + self.bias.to(maps.dtype)
            if groups is None:
                return Prediction(logits, maps)
            return Prediction(self.pool_bags(logits, groups), maps, extra={"tile_logits": logits})

    def pool_bags(self, tile_logits: Tensor, groups: Tensor) -> Tensor:
        """Tile logits (b, k) -> bag logits (n, k): per class the mean of the largest `bag_top` share."""
        if groups.shape != tile_logits.shape[:1] or groups.dtype != torch.int64:
            raise ValueError(
                f"groups must be int64 ({len(tile_logits)},), the bag of each tile; got {groups.dtype} {tuple(groups.shape)}"
            )
        found = groups.unique().tolist()
        if found != list(range(len(found))):
            raise ValueError(f"bags must be numbered 0..n - 1 and none may be empty; got the numbers {found}")
        bags = []
        for bag in found:
            logits = tile_logits[groups == bag]
            k = max(1, round(self.bag_top * len(logits)))
            bags.append(logits.topk(k, dim=0).values.mean(0))
        return torch.stack(bags)


class Gap(Head):
    """Global average pooling: logit_k = mean_p M_k(p) + B_k = W_k . mean_p F(p) + B_k."""

    paper = "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016"

    def pool(self, maps: Tensor) -> Tensor:
        """The mean over the cells."""
        return maps.mean((2, 3))


class Lse(Head):
    """Log-sum-exp pooling: logit_k = 1/r log(1/(hw) sum_p exp(r M_k(p))) + B_k; r -> 0 is the mean, r -> inf the maximum."""

    paper = (
        "Pinheiro and Collobert, From Image-level to Pixel-level Labeling with Convolutional Networks, CVPR 2015; "
        "Sun et al., ProNet, CVPR 2016"
    )

    def __init__(self, channels: int, num_classes: int, *, r: float = 10.0, dropout: float = 0.0, bag_top: float = 0.25) -> None:
        """`r` > 0 is the sharpness. In float32 an r below 1e-3 drowns in rounding: use `gap`."""
        super().__init__(channels, num_classes, dropout=dropout, bag_top=bag_top)
        if not 0 < r < math.inf:
            raise ValueError(f"r must be positive and finite (towards 0 it is the head 'gap'); got {r}")
        self.r = r

    def pool(self, maps: Tensor) -> Tensor:
        """Log-sum-exp over the cells, finite for any finite map: the maximum is taken out before the multiplication by r."""
        cells = maps.flatten(2)
        top = cells.detach().amax(2)
        spread = torch.logsumexp(self.r * (cells - top[..., None]), 2) - math.log(cells.shape[2])
        return top + spread / self.r


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
