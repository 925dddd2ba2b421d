"""Pixel seeds: from a teacher's map a few pixels taken for foreground, a few for background, and nothing said of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from wsol.training.pixel_losses import IGNORED


@dataclass(frozen=True, kw_only=True)
class SeedSampler:
    """Draws seeds, other ones at every call.

    With m the map of an image, min-max scaled to [0, 1]: foreground ~ m^power, background ~ (1 - m)^power, each without
    replacement and within its candidates; then every seed grows to `dilation` x `dilation` cells, and a cell that both kinds
    claim is nobody's. A constant map says nothing: no seeds.

    The code released with NEGEV and PixelCAM draws its background by 1 - m / sum m. Over thousands of cells all of these are
    nearly 1, so that its background seeds are uniform noise, also inside the object; `released=True` does the same.

    Attributes:
        foreground: seeds of an image drawn as foreground, before they grow; fewer where there are fewer candidates.
        background: the same for the background.
        power: sharpness; 0 draws uniformly among the candidates, 1 is the published one.
        dilation: side of a grown seed in cells, odd; 1 leaves it a cell.
        lowest: share of the cells, those with the lowest m, that may become background; 1: all (F-CAM: 0.2).
        otsu: only cells above Otsu's threshold of the map may become foreground (F-CAM).
        erosion: side in cells, odd, of the square by which that region is eroded, unless nothing would be left; 1: not at all.
        released: the background of the released code.

    Raises:
        ValueError: an option out of its range.
    """

    foreground: int = 10
    background: int = 10
    power: float = 1.0
    dilation: int = 3
    lowest: float = 1.0
    otsu: bool = False
    erosion: int = 1
    released: bool = False

    def __post_init__(self) -> None:
        if self.foreground < 0 or self.background < 0 or self.foreground + self.background == 0:
            raise ValueError(
                f"foreground and background are numbers of seeds, not both 0; got {self.foreground} and {self.background}"
            )
        if not self.power >= 0:
            raise ValueError(f"power must not be negative; got {self.power}")
        for name, side in {"dilation": self.dilation, "erosion": self.erosion}.items():
            if side < 1 or side % 2 == 0:
                raise ValueError(f"{name} is the side of a square in cells and must be odd; got {side}")
        if not 0 < self.lowest <= 1:
            raise ValueError(f"lowest is a share of the cells, in (0, 1]; got {self.lowest}")

    def __call__(self, maps: Tensor, generator: torch.Generator, groups: Tensor | None = None) -> Tensor:
        """Seeds of b images, or of the tiles of bags.

        A bag is one image that was cut: its tiles are scaled together and share out its seeds, as many as there are tiles times
        those of an image. So a tile without evidence gets no foreground just because its slide has some.

        Args:
            maps: (b, h, w), signed; only the order and the spacing of the values within an image count.
            generator: on the CPU.
            groups: int64 (b,), the bag of each tile; None if each image stands for itself.

        Returns:
            int64 (b, h, w) on the device of the maps: 1 foreground, 0 background, `IGNORED` elsewhere.

        Raises:
            ValueError: NaN or infinity in a map.
        """
        here = maps.detach().to("cpu", torch.float32)
        if here.ndim != 3 or not bool(here.isfinite().all()):
            raise ValueError(f"maps must be finite (b, h, w); got {tuple(maps.shape)}, or a NaN or infinity in it")
        bags = torch.arange(len(here)) if groups is None else groups.cpu()
        chosen = torch.zeros((2, *here.shape), dtype=torch.bool)
        for bag in bags.unique():
            chosen[:, bags == bag] = self._drawn(here[bags == bag], generator)
        if self.dilation > 1:
            chosen = functional.max_pool2d(chosen.float(), self.dilation, 1, self.dilation // 2) > 0
        background, foreground = chosen
        seeds = torch.full(here.shape, IGNORED)
        seeds[background & ~foreground] = 0
        seeds[foreground & ~background] = 1
        return seeds.to(maps.device)

    def _drawn(self, tiles: Tensor, generator: torch.Generator) -> Tensor:
        """Background and foreground cells, bool (2, t, h, w), of the t tiles of one image."""
        low, high = tiles.min(), tiles.max()
        chosen = torch.zeros((2, tiles.numel()), dtype=torch.bool)
        if high > low:
            m = (tiles - low) / (high - low)
            draws = ((self._background(m.flatten()), self.background), (self._foreground(m).flatten(), self.foreground))
            for cells, (weights, count) in zip(chosen, draws, strict=True):
                count = min(count * len(tiles), int(weights.count_nonzero()))
                if count:
                    cells[torch.multinomial(weights, count, generator=generator)] = True
        return chosen.reshape(2, *tiles.shape)

    def _background(self, m: Tensor) -> Tensor:
        """Weights (n,) of the cells to become background."""
        weights = (1 - (m / m.sum() if self.released else m)) ** self.power
        candidates = torch.zeros_like(m)
        candidates[m.argsort(stable=True)[: max(1, round(self.lowest * m.numel()))]] = 1
        return weights * candidates

    def _foreground(self, m: Tensor) -> Tensor:
        """Weights (t, h, w) of the cells to become foreground."""
        if not self.otsu:
            return m**self.power
        region = m >= otsu_threshold(m.flatten())
        if self.erosion > 1:
            outside = functional.max_pool2d((~region).float(), self.erosion, 1, self.erosion // 2) > 0
            region = region & ~outside if bool((region & ~outside).any()) else region
        return m**self.power * region


def otsu_threshold(values: Tensor) -> float:
    """The value v (n,) that parts the values below it from the others with the largest variance between both (Otsu, 1979).

    Exact: every distinct value but the lowest is tried, there are no bins. Constant values have no two groups: ValueError.
    """
    x = values.double().sort().values
    below = torch.arange(1, len(x), dtype=torch.float64)
    sums = x.cumsum(0)
    gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / (len(x) - below)
    between = torch.where(x[1:] > x[:-1], below * (len(x) - below) * gap**2, -1.0)
    if not len(between) or float(between.max()) < 0:
        raise ValueError("all values are the same: no threshold parts them")
    return float(x[1:][between.argmax()])
