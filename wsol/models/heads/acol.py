"""Adversarial complementary learning: a second classifier sees what the first one does not rely on."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.heads.base import Head, at_least_float32
from wsol.models.localizer import Features, Prediction


class Acol(Head):
    """ACoL: branch A finds the evidence of a class, branch B has to find more of it where A's is erased.

    A branch is 3x3 conv - ReLU - 3x3 conv - ReLU - 1x1 conv to class maps, whose means are its logits. With A's map of class y
    scaled to [0, 1] over the cells, B reads the features F with those cells at 0 where that is >= delta; no slope runs through
    the choice. Training minimizes CE(A) + CE(B); the net's logits are A's.

    Maps are the elementwise maximum of both branches' maps. The released code scales each to [0, 1] first; here B's is brought to
    the range that A's has in the same image and class, so that the joined map is raw, in A's units, without bias. Within an image
    it is the released one times A's range plus A's minimum; `released=True` gives the released one.

    Which class is erased: in training that of `labels`; without labels each class for its own map (so that a map does not
    depend on which class is predicted, at k runs of branch B), and the predicted one for B's logits.
    """

    multilabel = False
    paper = "Zhang et al., Adversarial Complementary Learning for Weakly Supervised Object Localization, CVPR 2018"

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        delta: float = 0.6,
        width: int = 256,
        released: bool = False,
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """Args:
        channels: of the last stage.
        num_classes: k.
        delta: cells are erased from this share of the range of A's map on; above 1 none are. 0.6 is the authors' (wsolevaluation
            0.7); with the survey's 0.1 next to nothing is left for B.
        width: channels inside a branch. The authors' 1024 is made for VGG-16; on the 1280 channels of `efficientnet_lite0` it
            takes eight times as long as 256.
        released: maps in [0, 1], each class and image on its own scale, as the authors draw them.
        dropout: as for `Head`.
        bag_top: as for `Head`; each branch takes its own top tiles.
        """
        super().__init__(dropout=dropout, bag_top=bag_top)
        if not delta > 0:
            raise ValueError(f"delta must be above 0 (at 0 everything is erased; above 1 nothing is); got {delta}")
        if width < 1:
            raise ValueError(f"width must be at least 1 channel; got {width}")
        self.delta = delta
        self.released = released
        self.first = _branch(channels, width, num_classes)
        self.second = _branch(channels, width, num_classes)

    def forward(self, f: Features, groups: Tensor | None = None, labels: Tensor | None = None) -> Prediction:
        """As `Head.forward`; `extra["erased_logits"]`, branch B's, are pooled over bags as A's are."""
        said = super().forward(f, groups, labels)
        if groups is None:
            return said
        return replace(said, extra={**said.extra, "erased_logits": self.pool_bags(said.extra["erased_logits"], groups)})

    def logits(self, f: Features) -> Tensor:
        """Branch A's logits (b, k) without branch B, which they do not depend on."""
        x = at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            return self.first(x).mean((2, 3))

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """A's logits, the joined maps, and B's logits as `extra["erased_logits"]` (b, k)."""
        x = at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            first = self.first(x)
            logits = first.mean((2, 3))
            second, erased_logits = self._second(x, first, logits.argmax(1), labels)
            maps = torch.maximum(minmax(first), minmax(second))
            if not self.released:
                low, high = first.amin((2, 3), keepdim=True), first.amax((2, 3), keepdim=True)
                maps = low + maps * (high - low) - cast(Tensor, self.first[-1].bias)[:, None, None]
            return Prediction(logits, maps, extra={"erased_logits": erased_logits})

    def loss(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """`erased`: the cross-entropy of branch B. Label smoothing and class weights of the strategy are for A only."""
        return {"erased": functional.cross_entropy(prediction.extra["erased_logits"].float(), labels)}

    def erase(self, x: Tensor, first: Tensor, classes: Tensor) -> Tensor:
        """Features (b, c, h, w) with 0 where A's map of the image's class in `classes` (b,) is strong; `first` (b, k, h, w)."""
        rows = torch.arange(len(x), device=x.device)
        strong = minmax(first[rows, classes]) >= self.delta
        return x.masked_fill(strong[:, None], 0)

    def kept(self, f: Features, labels: Tensor) -> Tensor:
        """1 where branch B sees the features, 0 where they are erased, (b, 1, h, w)."""
        x = at_least_float32(f.last)
        return self.erase(torch.ones_like(x[:, :1]), self.first(x), labels)

    def _second(self, x: Tensor, first: Tensor, predicted: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Branch B's class maps and logits."""
        if labels is not None:
            maps = self.second(self.erase(x, first, labels))
            return maps, maps.mean((2, 3))
        each = [self.second(self.erase(x, first, torch.full_like(predicted, c))) for c in range(first.shape[1])]
        by_erased = torch.stack(each, 1)  # (b, class erased, class drawn, h, w)
        rows = torch.arange(len(x), device=x.device)
        return by_erased.diagonal(dim1=1, dim2=2).movedim(-1, 1), by_erased[rows, predicted].mean((2, 3))


def minmax(maps: Tensor) -> Tensor:
    """Each map (..., h, w) scaled to [0, 1]; zeros where it is the same everywhere."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    spread = high - low
    return (maps - low) / torch.where(spread > 0, spread, 1)


def _branch(channels: int, width: int, num_classes: int) -> nn.Sequential:
    inside, middle = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    top = nn.Conv2d(width, num_classes, 1)
    for conv in (inside, middle):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # torch's own start shrinks the signal layer by layer
    for bias in (inside.bias, middle.bias, top.bias):
        nn.init.zeros_(cast(Tensor, bias))
    return nn.Sequential(inside, nn.ReLU(), middle, nn.ReLU(), top)
