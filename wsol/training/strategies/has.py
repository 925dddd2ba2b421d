"""Hide-and-Seek: what cannot be seen cannot be relied on, so the net has to look at the rest of the object too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer


class HideAndSeek(Strategy):
    """Cross-entropy on images of which random blocks are hidden, each with probability `prob`.

    Blocks lie on a grid from the upper left corner (those at the right and lower border may be cut off) and take the color that
    the backbone normalizes to 0, near the mean of its pretraining data as in the paper. With bags every tile is hidden from.

    Singh and Lee, "Hide-and-Seek: Forcing a Network to be Meticulous for Weakly-supervised Object and Action Localization",
    ICCV 2017: blocks of 16, 32, 44 or 56 px in images of 224 px, prob 0.5. Later code uses far smaller blocks (4 px in
    wsolevaluation, 5 px in the survey of histology, both with prob 0.5), which is more a grain over the whole image than a part
    that is missing; and it sweeps rows up to the image's width, so that images that are no square are hidden from in part only.
    """

    multilabel = True
    paper = "https://arxiv.org/abs/1704.04232"

    def __init__(
        self,
        *,
        grid: int = 32,
        prob: float = 0.5,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Args:
        grid: side of a block in px.
        prob: probability of each block to be hidden, in [0, 1].
        label_smoothing: as for `Strategy`.
        class_weights: as for `Strategy`.
        """
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        if grid < 1:
            raise ValueError(f"grid is the side of a block in px, at least 1; got {grid}")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob is the probability of a block to be hidden, in [0, 1]; got {prob}")
        self.grid = grid
        self.prob = prob

    def seen(self, net: Localizer, batch: Batch, generator: torch.Generator) -> Tensor:
        """The images with their hidden blocks."""
        b, _, height, width = batch.images.shape
        blocks = torch.rand(b, 1, -(-height // self.grid), -(-width // self.grid), generator=generator) < self.prob
        pixels = blocks.repeat_interleave(self.grid, 2).repeat_interleave(self.grid, 3)[..., :height, :width]
        return torch.where(pixels.to(batch.images.device), net.backbone.blank_color(batch.images), batch.images)
