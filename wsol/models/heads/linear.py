"""Heads with linear class maps, and the plain poolings of them: `gap`, `cam`, `max`, `lse`.

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


class ClassMapHead(Head):
    """Base of the heads with one row of weights per class; a subclass says how they become logits.

    With a background row there is one output more, first of `rows`. It is no class: it has no logit, its slope is 0 (weight decay
    alone moves it, towards 0), and no map reads it, unless `published_rows` asks for the mistake.

    Attributes:
        weight: (k, c).
        bias: (k,).
        background_weight: (1, c), or None.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        modalities: int = 1,
        *,
        background: bool = False,
        published_rows: bool = False,
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """Args:
        channels: of the last stage.
        num_classes: k.
        modalities: rows of `weight` (and of `background_weight`) per output.
        background: have a background row, as the survey's nets have (`support_background`).
        published_rows: draw the map of class c from row c of `rows`, which is that of class c - 1, and for class 0 the untrained
            background. So the survey's code drew the maps of its CAM, HaS and CutMix, and seeds made of them; the logits, the
            maps of its other heads and gradients read row c + 1.
        dropout: as for `Head`.
        bag_top: as for `Head`.
        """
        super().__init__(dropout=dropout, bag_top=bag_top)
        if published_rows and not background:
            raise ValueError("published_rows is a slip of one row that only a background row makes possible: set background=True")
        self.published_rows = published_rows
        self.weight = nn.Parameter(torch.empty(num_classes * modalities, channels))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear; the bias at 0 favors no class
        self.background_weight = nn.Parameter(torch.empty(modalities, channels)) if background else None
        if self.background_weight is not None:
            nn.init.kaiming_uniform_(self.background_weight, a=math.sqrt(5))

    @property
    def rows(self) -> Tensor:
        """Weights of all outputs: (k, c), or (k + 1, c) with the background first."""
        return self.weight if self.background_weight is None else torch.cat([self.background_weight, self.weight])

    @property
    def class_rows(self) -> Tensor:
        """Weights of the classes, (k, c): what the logits are made of."""
        return self.rows if self.background_weight is None else self.rows[1:]

    def class_maps(self, f: Features) -> Tensor:
        """M = W F, (b, k, h, w), without bias; float32 at least. What is drawn: it obeys `published_rows`."""
        return project(f, self.rows[:-1] if self.published_rows else self.class_rows)


class LinearHead(ClassMapHead):
    """Base of the heads that pool class maps; a subclass says how a class map becomes one number."""

    @abstractmethod
    def pool(self, maps: Tensor) -> Tensor:
        """Class maps (b, k, h, w) -> (b, k); the bias is added after it."""

    def to_logits(self, maps: Tensor) -> Tensor:
        """Class maps (b, k, h, w) -> logits (b, k)."""
        return self.pool(maps) + self.bias.to(maps.dtype)

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Pooled class maps plus bias, and the class maps."""
        maps = project(f, self.class_rows)
        with torch.autocast(maps.device.type, enabled=False):
            return Prediction(self.to_logits(maps), self.class_maps(f) if self.published_rows else maps)


class Gap(LinearHead):
    """Global average pooling: logit_k = mean_p M_k(p) + B_k = W_k . mean_p F(p) + B_k."""

    affine = True
    paper = "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016"

    def pool(self, maps: Tensor) -> Tensor:
        """The mean over the cells."""
        return maps.mean((2, 3))


class PooledFeatures(ClassMapHead):
    """CAM's head: features are pooled first, then weighted: logit_k = W_k . mean_p F(p) + B_k; the map is M_k in closed form.

    The survey lists it ("CAM", in its code WGAP) beside GAP. The two are one function of F, W and B, with the same logits, maps
    and slopes up to rounding; here the slope of the logits does not run through the maps, which costs less in training.
    """

    affine = True
    paper = "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016"

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Weighted means of the features, and the class maps."""
        x = at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            mean = x.mean((2, 3))
            return Prediction(functional.linear(mean, self.class_rows.to(x.dtype), self.bias.to(x.dtype)), self.class_maps(f))


class Max(LinearHead):
    """Maximum pooling: logit_k = max_p M_k(p) + B_k. Only the strongest cell of each class learns."""

    paper = (
        "Oquab et al., Is object localization for free? Weakly-supervised learning with convolutional neural networks, CVPR 2015"
    )

    def pool(self, maps: Tensor) -> Tensor:
        """The maximum over the cells; equal maxima share the slope."""
        return maps.amax((2, 3))


class Lse(LinearHead):
    """Log-sum-exp pooling: logit_k = 1/r log(1/(hw) sum_p exp(r M_k(p))) + B_k; r -> 0 is the mean, r -> inf the maximum."""

    paper = (
        "Pinheiro and Collobert, From Image-level to Pixel-level Labeling with Convolutional Networks, CVPR 2015; "
        "Sun et al., ProNet, CVPR 2016"
    )

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        r: float = 10.0,
        background: bool = False,
        published_rows: bool = False,
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """`r` > 0 is the sharpness; in float32 one below 1e-3 drowns in rounding: use `gap`. The others as for `ClassMapHead`."""
        super().__init__(
            channels, num_classes, background=background, published_rows=published_rows, dropout=dropout, bag_top=bag_top
        )
        if not 0 < r < math.inf:
            raise ValueError(f"r must be positive and finite (towards 0 it is the head 'gap'); got {r}")
        self.r = r

    def pool(self, maps: Tensor) -> Tensor:
        """Log-sum-exp over the cells, finite for any finite map: the maximum is taken out before the multiplication by r."""
        cells = maps.flatten(2)
        top = cells.detach().amax(2)
        spread = torch.logsumexp(self.r * (cells - top[..., None]), 2) - math.log(cells.shape[2])
        return top + spread / self.r


def project(f: Features, rows: Tensor) -> Tensor:
    """`rows` (n, c) times the features of every cell of the last stage, (b, n, h, w); float32 at least."""
    x = at_least_float32(f.last)
    with torch.autocast(x.device.type, enabled=False):
        return functional.conv2d(x, rows.to(x.dtype)[:, :, None, None])
