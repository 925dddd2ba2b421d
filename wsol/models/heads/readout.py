"""A head that reads pixels linearly off one stage of the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from wsol.models.heads.decoders import PixelHead
from wsol.models.localizer import Features


class Readout(PixelHead):
    """One linear function of a stage's features per cell, averaged over neighboring cells; for the strategy `readout`. Ours.

    The mean over `smooth` x `smooth` cells leaves out what lies beyond the image. It commutes with the linear function, so it is
    the same as averaging the features.
    """

    paper = "ours, not published"

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        stage: int = -2,
        smooth: int = 3,
        base: str = "gap",
        base_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Args:
        channels: of all stages, fine -> coarse.
        num_classes: k.
        stage: that is read, counted from the end: -1 the last, -2 the one below, of less meaning and more place.
        smooth: side in cells of the mean, odd; 1: none.
        base: name of the classification head.
        base_options: its options.
        """
        super().__init__(channels, num_classes, base=base, base_options=base_options)
        if not -len(channels) <= stage <= -1:
            raise ValueError(f"stage counts from the end, in {-len(channels)}..-1 for this backbone; got {stage}")
        if smooth < 1 or smooth % 2 == 0:
            raise ValueError(f"smooth is the side of a mean around a cell, an odd number; got {smooth}")
        self.stage = stage
        self.smooth = smooth
        self.pixel = nn.Conv2d(channels[stage], 1, 1)

    def read(self, f: Features) -> Tensor | None:
        """The stage (b, c, h, w); None where a resumed encode lacks it."""
        return f.stages[self.stage] if len(f.stages) >= -self.stage else None

    def decode(self, f: Features) -> Tensor | None:
        """Foreground logits (b, 1, h, w) of the cells of the stage; None where it is missing."""
        stage = self.read(f)
        if stage is None:
            return None
        pixels: Tensor = self.pixel(stage.to(self.pixel.weight.dtype))
        return functional.avg_pool2d(pixels, self.smooth, 1, self.smooth // 2, count_include_pad=False)
