"""NEGEV: a decoder beside a finished classifier learns pixels from the classifier's map, and from images without foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsol.training.pixel_losses import freeze_classifier, pixels_of
from wsol.training.seeds import SeedSampler
from wsol.training.strategies.seeded import Seeded, Seeds

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer


class Negev(Seeded):
    """Cross-entropy of a decoder's pixels on seeds from the teacher's map of the label; the classifier stays as it is.

    Where `empty_class` is named (normal tissue in CAMELYON16), all pixels of its images are background; GlaS has no such class.

    Belharbi et al., "Negative Evidence Matters in Interpretable Histology Image Classification", MIDL 2022: one seed of each kind
    per image and step, grown to 3 x 3 px of 224, sums over pixels, SGD at rate 0.1 for 1000 epochs on GlaS. The released trainer
    draws 10 of each, grown to 1 x 1, whatever its options say, and its background seeds are noise (see `SeedSampler`). Here: 10
    of each, on the decoder's grid, and means, for AdamW and short trainings. The softmax of two channels is one sigmoid.
    """

    paper = "https://arxiv.org/abs/2201.02445"
    needs_parent = True

    def __init__(
        self,
        *,
        seeds: Seeds,
        foreground: int = 10,
        background: int = 10,
        power: float = 1.0,
        dilation: int = 3,
        lowest: float = 1.0,
        released: bool = False,
        weight: float = 1.0,
        empty_class: int | None = None,
    ) -> None:
        """Args:
        seeds: maps of the teacher, the classifier itself.
        foreground: seeds of an image drawn as foreground; for this and what follows up to `released` see `SeedSampler`.
        background: seeds of an image drawn as background.
        power: sharpness of the draw by the map; 0 draws evenly.
        dilation: side of a grown seed in cells, odd.
        lowest: share of the cells, those with the lowest values, that may become background.
        released: background seeds as the released code draws them.
        weight: of the loss on seeds (lambda), against 1 for images of the empty class.
        empty_class: class whose images have no foreground.
        """
        sampler = SeedSampler(
            foreground=foreground, background=background, power=power, dilation=dilation, lowest=lowest, released=released
        )
        super().__init__(seeds=seeds, sampler=sampler, weight=weight, empty_class=empty_class)

    def attach(self, net: Localizer) -> None:
        """Only the decoder learns."""
        super().attach(net)
        freeze_classifier(net)

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """`seeds`, and `negatives` where there is an empty class."""
        return self.on_pixels(pixels_of(net.head(net.encode(batch.images))), batch, generator)
