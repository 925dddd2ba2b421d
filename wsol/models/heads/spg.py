"""Self-produced guidance: branches that learn from the classifier's own map what is surely object and surely not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.heads.acol import minmax
from wsol.models.heads.base import at_least_float32
from wsol.models.heads.linear import Gap
from wsol.models.localizer import Features, Prediction

FEW = 30 / 224**2
"""Share of the pixels: with less foreground than that, the threshold is lowered (the authors' 30 pixels of 224 x 224)."""

LOWERED = 0.7
"""The lowered threshold, as a share of the guide's maximum."""


class Spg(Gap):
    """SPG: a `gap` head whose map teaches three branches of one channel each, to shape the features below.

    A branch is told by a guide in [0, 1] of the same image: 1 where the guide is above `high`, 0 where it is below `low`, nothing
    between; its loss is the mean binary cross-entropy of what it was told. No slope runs into a guide.

        B2 (on the second-last stage) by the class map of the label, scaled to [0, 1] over the image;
        B1 (on the third-last stage) by sigmoid(B2);
        C (on the last stage) by the mean of sigmoid(B1) and sigmoid(B2).

    B1 and B2 are a 3x3 convolution of their own, then 3x3 - 1x1 that they share; C is 3x3 - 1x1; ReLU between. Where less than
    `FEW` of an image is above `high`, it counts from 0.7 of the guide's maximum on; where an image is both, 0 wins.

    The authors' Inception takes Mixed_5d and Mixed_6d for B1 and B2; wsolevaluation's ResNet-50 the first block of layer3 and all
    of it. A backbone of five stages here has its third- and second-last. Differences from the released code: there a lowered
    threshold stays lowered for the images after it in the batch, a map that is the same everywhere gives NaN (here it tells
    nothing), and so does a batch that is told nothing (here its loss is 0). With bags, each tile is guided by its bag's label.

    Maps, logits and closed forms are those of `gap`; the branches run in training only.
    """

    affine = True
    multilabel = False
    paper = "Zhang et al., Self-produced Guidance for Weakly-supervised Object Localization, ECCV 2018"
    reads = "stages"

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        thresholds: Sequence[Sequence[float]] = ((0.7, 0.05), (0.5, 0.05), (0.7, 0.1)),
        size: int = 224,
        width: int = 256,
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """Args:
        channels: of all stages; at least three.
        num_classes: k.
        thresholds: (high, low) of the guides of B2, B1 and C. The authors'; wsolevaluation and the survey have 0.01 for B2's low.
        size: side in pixels of the square to which maps and branches are resized (bilinear) before they are compared.
        width: channels inside a branch; the authors' 512 is made for larger backbones.
        dropout: as for `Head`.
        bag_top: as for `Head`.
        """
        if len(channels) < 3:
            raise ValueError(f"head 'spg' has branches on the last three stages; this backbone has {len(channels)}: take another")
        super().__init__(channels[-1], num_classes, dropout=dropout, bag_top=bag_top)
        self.thresholds = checked(thresholds)
        if size < 1 or width < 1:
            raise ValueError(f"size (pixels) and width (channels) must be at least 1; got {size} and {width}")
        self.size = size
        self.b1 = nn.Sequential(nn.Conv2d(channels[-3], width, 3, padding=1), nn.ReLU())
        self.b2 = nn.Sequential(nn.Conv2d(channels[-2], width, 3, padding=1), nn.ReLU())
        self.shared = _to_one(width, width)
        self.c = _to_one(channels[-1], width)

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """As `gap`; in training, or with labels, `extra` holds what `loss` compares: a map and three branches, (b, 1, h, w) each.

        Without labels the predicted class guides.
        """
        said = super().predict(f, labels)
        if labels is None and not self.training:
            return said
        assert said.maps is not None
        classes = said.logits.argmax(1) if labels is None else labels
        rows = torch.arange(len(classes), device=classes.device)
        fine, middle, last = (at_least_float32(stage) for stage in f.stages[-3:])
        with torch.autocast(last.device.type, enabled=False):
            branches = {
                "spg_map": said.maps.detach()[rows, classes][:, None],
                "spg_b1": self.shared(self.b1(fine)),
                "spg_b2": self.shared(self.b2(middle)),
                "spg_c": self.c(last),
            }
        return replace(said, extra={**said.extra, **branches})

    def loss(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """`spg_b2`, `spg_b1`, `spg_c`: what each branch learns from its guide; of size `size` x `size`, in float32."""
        if "spg_map" not in prediction.extra:
            raise ValueError("this prediction lacks the branches of head 'spg': it was made in evaluation mode without labels")
        with torch.autocast(labels.device.type, enabled=False):
            big = {
                name: functional.interpolate(
                    at_least_float32(prediction.extra[name]), (self.size, self.size), mode="bilinear", align_corners=False
                )
                for name in ("spg_map", "spg_b1", "spg_b2", "spg_c")
            }
            b1, b2 = (big[name].detach().sigmoid() for name in ("spg_b1", "spg_b2"))
            guides = {"spg_b2": minmax(big["spg_map"]), "spg_b1": b2, "spg_c": (b1 + b2) / 2}
            return {
                name: _told(big[name], guide, high, low)
                for (name, guide), (high, low) in zip(guides.items(), self.thresholds, strict=True)
            }


def checked(thresholds: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    """Three pairs (high, low). Raises ValueError for anything else."""
    pairs = tuple(tuple(pair) for pair in thresholds)
    if len(pairs) != 3 or any(len(pair) != 2 or not 0 <= pair[1] <= pair[0] <= 1 for pair in pairs):
        raise ValueError(f"thresholds must be three pairs (high, low), 0 <= low <= high <= 1, for B2, B1 and C; got {thresholds}")
    return tuple((high, low) for high, low in pairs)


def seeds(guide: Tensor, high: float, low: float) -> tuple[Tensor, Tensor]:
    """Guides (b, 1, H, W) in [0, 1] -> (foreground, known), both bool (b, 1, H, W); what is known and no foreground is 0."""
    above = guide > high
    enough = above.float().mean((2, 3), keepdim=True) >= FEW
    top, bottom = guide.amax((2, 3), keepdim=True), guide.amin((2, 3), keepdim=True)
    background = guide < low
    foreground = torch.where(enough, above, guide > LOWERED * top) & ~background
    return foreground, (foreground | background) & (top > bottom)


def _told(branch: Tensor, guide: Tensor, high: float, low: float) -> Tensor:
    """Mean binary cross-entropy of a branch's logits (b, 1, H, W) where its guide tells it something; 0 where that is nowhere."""
    foreground, known = seeds(guide, high, low)
    each = functional.binary_cross_entropy_with_logits(branch, foreground.to(branch.dtype), reduction="none")
    return torch.where(known, each, 0).sum() / known.sum().clamp(min=1)


def _to_one(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1))
