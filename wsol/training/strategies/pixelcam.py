"""PixelCAM: one encoder learns to classify images and pixels at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsol.training.pixel_losses import pixels_of
from wsol.training.seeds import SeedSampler
from wsol.training.strategies.seeded import Seeded, Seeds

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer


class PixelCam(Seeded):
    """Cross-entropy on the labels plus cross-entropy of the pixels on seeds from the map of a frozen teacher; all weights learn.

    Guichemerre et al., "PixelCAM: Pixel Class Activation Mapping for Histology Image Classification and ROI Localization", MIDL
    2025; for the head `pixel`. Published: 5 seeds of each kind per image and step, weight 1, dropout 0.1 before the pixels, SGD
    at rate 0.001 for 1000 epochs on GlaS. The teacher's maps lie ready on disk there; here they are drawn at every step, for the
    image as it was augmented. In the released code background seeds are noise (see `SeedSampler`).
    """

    paper = "https://arxiv.org/abs/2503.24135"

    def __init__(
        self,
        *,
        seeds: Seeds,
        foreground: int = 5,
        background: int = 5,
        power: float = 1.0,
        dilation: int = 1,
        lowest: float = 1.0,
        released: bool = False,
        weight: float = 1.0,
        empty_class: int | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Args:
        seeds: maps of the teacher.
        foreground: seeds of an image drawn as foreground; for this and what follows up to `released` see `SeedSampler`.
        background: seeds of an image drawn as background.
        power: sharpness of the draw by the map; 0 draws evenly.
        dilation: side of a grown seed in cells; those of the head `pixel` are of the last stage, large already; odd.
        lowest: share of the cells, those with the lowest values, that may become background.
        released: background seeds as the released code draws them.
        weight: of the loss on seeds (lambda).
        empty_class: class whose images have no foreground.
        label_smoothing: of the labels' cross-entropy.
        class_weights: of the labels' cross-entropy.
        """
        sampler = SeedSampler(
            foreground=foreground, background=background, power=power, dilation=dilation, lowest=lowest, released=released
        )
        super().__init__(
            seeds=seeds, sampler=sampler, weight=weight, empty_class=empty_class,
            label_smoothing=label_smoothing, class_weights=class_weights,
        )  # fmt: skip

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """The losses on the labels, `seeds`, and `negatives` where there is an empty class."""
        said = net.head(net.encode(batch.images), groups=batch.groups, labels=batch.labels)
        return {**self.classified(said, net, batch.labels), **self.on_pixels(pixels_of(said), batch, generator)}
