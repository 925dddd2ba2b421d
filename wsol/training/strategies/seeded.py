"""What the strategies with pixel seeds share: a teacher's maps, seeds drawn from them, and the loss on the pixels they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from wsol.training.pixel_losses import partial_entropy, require_decoder
from wsol.training.seeds import SeedSampler
from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer

Seeds = Callable[[Tensor, Tensor], Tensor]
"""(images (b, 3, H, W), labels (b,)) -> raw maps (b, h, w) of a frozen teacher for these classes."""


class Seeded(Strategy):
    """Base: a subclass says which seeds it draws, what learns, and what is lost besides.

    Args:
        seeds: maps of the teacher.
        sampler: of the seeds.
        weight: of the loss on seeds.
        empty_class: images of this class have no foreground at all: every pixel is background, and no seed is drawn.
        label_smoothing: see `losses.cross_entropy`.
        class_weights: see `losses.cross_entropy`.
    """

    def __init__(
        self,
        *,
        seeds: Seeds,
        sampler: SeedSampler,
        weight: float,
        empty_class: int | None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        if not weight > 0:
            raise ValueError(f"weight, of the loss on seeds, must be positive; got {weight}")
        require_class(empty_class)
        self.seeds = seeds
        self.sampler = sampler
        self.weight = weight
        self.empty_class = empty_class

    def settings(self) -> dict[str, Any]:
        """Those of every strategy, and of the sampler."""
        return {**super().settings(), **asdict(self.sampler)}

    def attach(self, net: Localizer) -> None:
        """The head must have a decoder."""
        require_decoder(net, type(self).__name__)

    def is_empty(self, labels: Tensor) -> Tensor:
        """Which of these labels (n,) say that there is no foreground, bool (n,)."""
        return torch.zeros_like(labels, dtype=torch.bool) if self.empty_class is None else labels == self.empty_class

    def on_pixels(self, pixels: Tensor, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """`seeds`, and `negatives` where there is an empty class; together the mean over images of the mean over their pixels.

        The teacher's maps are resized (bilinear) to the pixels (b, 1, h, w), so seeds are cells of the decoder's own grid.
        """
        classes = batch.labels if batch.groups is None else batch.labels[batch.groups]  # a tile has that of its bag
        with torch.no_grad():
            maps = self.seeds(batch.images, classes)
        maps = functional.interpolate(maps[:, None].float(), size=pixels.shape[-2:], mode="bilinear", align_corners=False)
        labels, empty = self.sampler(maps[:, 0], generator, batch.groups), self.is_empty(classes)
        labels[empty] = 0
        each = partial_entropy(pixels, labels) / len(pixels)
        losses = {"seeds": self.weight * (each * ~empty).sum()}
        return losses if self.empty_class is None else {**losses, "negatives": (each * empty).sum()}


def require_class(empty_class: int | None) -> None:
    """Raise ValueError unless `empty_class` is the index of a class, or None."""
    if empty_class is not None and empty_class < 0:
        raise ValueError(f"empty_class is the index of a class; got {empty_class}")
