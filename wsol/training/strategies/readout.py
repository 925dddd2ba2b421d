"""Readout: the direction in the features of a frozen backbone along which the maps of trained models rise, in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from wsol.training.strategies.base import Strategy
from wsol.training.strategies.seeded import Seeds, require_class

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer
    from wsol.models import Readout as Head


class Readout(Strategy):
    """Ridge regression of the teachers' maps on one stage of the backbone, which stays as it is; the base head learns the labels.

    Ours; not published. A map of a classifier is a noisy guess that is wrong in other places of each image. A linear function of
    features that never saw the labels cannot follow those mistakes: what is left is what guesses share over all images, and it is
    drawn as finely as the stage. The backbone is not that of the teachers but as it was before training (`weights: imagenet`):
    fine-tuned features tell the classes apart, not tissue. For the head `readout`.

    With features x, standardized to z over all cells of one pass, and t = sigmoid(map) resized to the cells: w solves
    (R + penalty I) w = r, R the correlations of the features and r = mean z (t - mean t); the pixels are 4 (p - 1/2), p the least
    squares fit of t on z w, so that their sigmoid is p to first order. A penalty far above the eigenvalues of R leaves
    w = r / penalty: each channel counts by its own covariance with the maps.
    """

    paper = "ours, not published"

    def __init__(
        self,
        *,
        seeds: Seeds,
        penalty: float = 3.0,
        empty_class: int | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Args:
        seeds: maps of the teachers.
        penalty: of the ridge, in units of a feature's variance; positive.
        empty_class: class whose images have no foreground: t = 0 there.
        label_smoothing: of the labels' cross-entropy.
        class_weights: of the labels' cross-entropy.
        """
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        if not penalty > 0:
            raise ValueError(f"penalty, of the ridge, must be positive; got {penalty}")
        require_class(empty_class)
        self.seeds = seeds
        self.penalty = penalty
        self.empty_class = empty_class

    def attach(self, net: Localizer) -> None:
        """Freeze the backbone and the pixels: only the base head learns by steps.

        Raises:
            ValueError: another head.
        """
        head = _head(net)
        net.backbone.requires_grad_(False)
        head.pixel.requires_grad_(False)

    @torch.no_grad()
    def prepare(self, net: Localizer, batches: Iterable[Batch]) -> None:
        """Fit the pixels on one pass over the batches.

        Raises:
            ValueError: the maps are the same everywhere, so there is nothing to read out.
        """
        head = _head(net)
        place, sums = head.pixel.weight.device, _Moments(head.pixel.in_channels)
        net.eval()
        for batch in batches:
            classes = batch.labels if batch.groups is None else batch.labels[batch.groups]  # a tile has that of its bag
            images = batch.images.to(place)
            features: Any = head.read(net.encode(images))  # a whole encode has every stage
            sums.add(features, self.targets(images, classes.to(place), features))
        weight, bias = sums.solve(self.penalty)
        head.pixel.load_state_dict({"weight": weight[None, :, None, None], "bias": bias[None]})

    def targets(self, images: Tensor, classes: Tensor, features: Tensor) -> Tensor:
        """What the teachers say of each cell, (b, h, w) in [0, 1]."""
        maps = self.seeds(images, classes)[:, None].float()
        said = functional.interpolate(maps, size=features.shape[-2:], mode="bilinear", align_corners=False)[:, 0].sigmoid()
        return said if self.empty_class is None else said * (classes != self.empty_class)[:, None, None]


class _Moments:
    """First and second moments of features and target over all cells, in double precision."""

    def __init__(self, channels: int) -> None:
        self.count, self.size = 0, channels + 1
        self.first = torch.zeros(self.size, dtype=torch.float64)
        self.second = torch.zeros(self.size, self.size, dtype=torch.float64)

    def add(self, features: Tensor, target: Tensor) -> None:
        """The cells of features (b, c, h, w) and target (b, h, w)."""
        rows = torch.cat([features.double(), target[:, None].double()], 1).movedim(1, 0).flatten(1).cpu()
        self.count += rows.shape[1]
        self.first += rows.sum(1)
        self.second += rows @ rows.T

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights (c,) and bias of the pixels."""
        mean = self.first / self.count
        covariance = self.second / self.count - mean.outer(mean)
        spread = covariance.diagonal()[:-1].clamp_min(0).sqrt()
        inverse = torch.where(spread > 1e-6, 1 / spread, 0.0)  # a channel that never changes says nothing
        inner = covariance[:-1, :-1] * inverse.outer(inverse)
        outer = covariance[:-1, -1] * inverse
        if not outer.norm() > 1e-9:
            raise ValueError("the maps of the teachers are the same everywhere, or have nothing to do with the features")
        w = torch.linalg.solve(inner + penalty * torch.eye(len(inner), dtype=torch.float64), outer / outer.norm())
        weight = 4 * (w @ outer / (w @ inner @ w)) * w * inverse
        return weight, 4 * (mean[-1] - 0.5) - weight @ mean[:-1]


def _head(net: Localizer) -> Head:
    """The net's head.

    Raises:
        ValueError: it is another than `readout`.
    """
    from wsol.models import Readout as Head

    if not isinstance(net.head, Head):
        raise ValueError(f"strategy 'readout' fits the head 'readout'; got {type(net.head).__name__}")
    return net.head
