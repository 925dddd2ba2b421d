"""Heads with linear class maps: a 1x1 map per class, pooled to one logit.

For features F (b, c, h, w), weight W (k, c) and bias B (k,): class map M_k(p) = W_k . F(p), logit_k = pool_p(M_k) + B_k.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.heads.base import Head, at_least_float32
from wsol.models.localizer import Features, Prediction


class LinearHead(Head):
    """Base of the linear heads; a subclass says how a class map becomes one number.

    Attributes:
        weight: (k, c).
        bias: (k,).
    """

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.0, bag_top: float = 0.25) -> None:
        """`channels` of the last stage; the others as for `Head`."""
        super().__init__(dropout=dropout, bag_top=bag_top)
        self.weight = nn.Parameter(torch.empty(num_classes, channels))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear; the bias at 0 favors no class

    @abstractmethod
    def pool(self, maps: Tensor) -> Tensor:
        """Class maps (b, k, h, w) -> (b, k). Must commute with adding a constant to a map, since the bias is added after it."""

    def class_maps(self, f: Features) -> Tensor:
        """M = W F, (b, k, h, w), without bias; float32 at least."""
        x = at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            return functional.conv2d(x, self.weight.to(x.dtype)[:, :, None, None])

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Pooled class maps plus bias, and the class maps."""
        maps = self.class_maps(f)
        with torch.autocast(maps.device.type, enabled=False):
            return Prediction(self.pool(maps) + self.bias.to(maps.dtype), maps)


class Gap(LinearHead):
    """Global average pooling: logit_k = mean_p M_k(p) + B_k = W_k . mean_p F(p) + B_k."""

    affine = True
    paper = "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016"

    def pool(self, maps: Tensor) -> Tensor:
        """The mean over the cells."""
        return maps.mean((2, 3))


class Lse(LinearHead):
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
