"""The naive baseline of slide-level learning: every tile inherits the label of its slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer


class Inherit(Strategy):
    """Cross-entropy of each tile by itself on the label of its slide, as if a tumor filled every slide that holds one.

    What bags have to beat: the normal tiles of a positive slide, most of them where lesions are small, are wrong labels here.
    The mean runs over tiles, so a slide with fewer tiles than a bag counts less. Only training is naive: validation and maps pool
    the tiles of a slide by the head's own rule, as for every other strategy. The attention of `attention-mil` learns nothing,
    for a tile by itself has all of it.

    Coudray et al., "Classification and mutation prediction from non-small cell lung cancer histopathology images using deep
    learning", Nature Medicine 2018 (tiles labeled by their slide).
    """

    multilabel = True
    paper = "https://doi.org/10.1038/s41591-018-0177-5"

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """The losses on the labels, tile by tile; images that are no tiles have labels of their own."""
        labels = batch.labels if batch.groups is None else batch.labels[batch.groups]
        images = self.seen(net, batch, generator)
        return self.classified(net.head(net.encode(images), labels=labels), net, labels)
