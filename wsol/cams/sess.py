"""SESS: the maps of windows of the enlarged image, weighted by how sure the net is of each, and fused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsol._names import closest
from wsol.cams.base import Evidence
from wsol.cams.evidence import chunks
from wsol.cams.finishing import finish
from wsol.cams.hiding import probabilities
from wsol.cams.inputs import window_starts
from wsol.cams.wrappers import Wrapper, resized
from wsol.models import Localizer

SCALES = tuple(1 + 64 * i / 224 for i in range(12))
"""The authors' sides, 224 + 64 i px, in shares of 224 px."""

_GRAPH = 3  # a graph holds about three times what a mere pass does
_BLUR = (11, 5.0)  # side and deviation of the authors' Gaussian, px


class Window(NamedTuple):
    """One window: the number of the scale, and its corner in px of the enlarged image."""

    scale: int
    top: int
    left: int


class Layout(NamedTuple):
    """The windows of images of one size.

    Attributes:
        size: (H, W) of the image, px.
        sizes: (H, W) of the enlarged image, for each scale.
        side: (h, w) of every window.
        windows: scale by scale, row by row.
    """

    size: tuple[int, int]
    sizes: list[tuple[int, int]]
    side: tuple[int, int]
    windows: list[Window]


class Sess(Wrapper):
    """SESS: the image is enlarged to each of `scales` and cut into windows of one size; each window gets a map of the base.

    A window's map is rectified if the base is, resized to the window, min-max scaled, and multiplied by p / max p, p the
    probability of the target in the window. Each is put back on its own; at each point the mean is taken over the windows whose
    value exceeds `threshold`, or the largest value. The map is (b, H, W) in [0, 1]; no scaling follows the fusion.

    The authors take a window of 224 px on images whose shorter side is 224 px, at sides 224 + 64 i, i < 12. Here the window is
    a share of the image, which need not be square, and the scales are those ratios: 122 windows of a square image, each one pass.
    On slides say it in microns: an image of m um per px at scale s is seen at m / s um per px, enlarged and without new detail;
    choose `scales` such that m / s stays within what the net was trained on.

    `exact=True` shrinks the maps without antialiasing as the authors do; the rest is theirs at window=224 and such images. One
    difference remains: a window whose map is constant is left out here; there its 0 / 0 blanks all that the window covers.
    """

    rectified = False
    resolution = "image"
    paper = "Tursun et al., SESS: Saliency Enhancing with Scaling and Sliding, ECCV 2022"

    def __init__(
        self,
        *,
        base: str = "grad-cam",
        base_options: Mapping[str, Any] | None = None,
        scales: Sequence[float] = SCALES,
        window: float = 1.0,
        step: float = 1.0,
        prefilter: float = 0.0,
        threshold: float = 0.0,
        pool: Literal["mean", "max"] = "mean",
        blur: bool = True,
        exact: bool = False,
    ) -> None:
        """Options.

        Args:
            base: key of `METHODS`.
            base_options: its keyword arguments.
            scales: sides of the enlarged images in shares of the image's.
            window: a share of both sides of the image, in (0, 1]; an integer above 1 is the side of a square in px.
            step: between windows, in shares of the window, in (0, 1]; the last one lies flush with the border.
            prefilter: share of the windows, those with the lowest p, that are left out unseen, in [0, 1). The authors use 0.5
                for dear bases.
            threshold: for pool "mean", in [0, 1).
            pool: "mean" or "max".
            blur: blur last, 11 px wide with a deviation of 5 px.
            exact: see the class.
        """
        super().__init__(base, base_options)
        self.rectified, self.class_specific, self.resolution = False, True, "image"
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales must be positive, and at least one; got {list(scales)}")
        if not (0 < window <= 1 or (window > 1 and float(window).is_integer())):
            raise ValueError(f"window must be a share in (0, 1], or an integer of px above 1; got {window}")
        if not 0 < step <= 1:
            raise ValueError(f"step must be a share of the window in (0, 1], or pixels go unseen; got {step}")
        if not (0 <= prefilter < 1 and 0 <= threshold < 1):
            raise ValueError(f"prefilter and threshold must be in [0, 1); got {prefilter} and {threshold}")
        if pool not in ("mean", "max"):
            raise ValueError(closest("pool", pool, ("mean", "max")))
        self.scales, self.window, self.step = tuple(scales), window, step
        self.prefilter, self.threshold, self.pool = prefilter, threshold, pool
        self.blur, self.exact = blur, exact

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Choose the windows, draw them, fuse them."""
        height, width = evidence.pixels.shape[2:]
        layout = self.layout((height, width))
        maps, chances = self._drawn(evidence, layout, self._kept(evidence, layout))
        top = chances.amax(1, keepdim=True)
        fused = self._fused(self._placed(maps, chances / torch.where(top > 0, top, 1), layout))
        return _blurred(fused) if self.blur else fused

    def layout(self, size: tuple[int, int]) -> Layout:
        """The windows of images (H, W) of `size`.

        Raises:
            ValueError: the window does not fit an enlarged image.
        """
        short = min(size)
        if self.window > 1:
            side = (int(self.window), int(self.window))
        else:
            side = (max(1, round(self.window * size[0])), max(1, round(self.window * size[1])))
        sizes = []
        for scale in self.scales:
            shorter = max(1, round(scale * short))
            height, width = shorter * size[0] // short, shorter * size[1] // short
            if height < side[0] or width < side[1]:
                raise ValueError(
                    f"windows of {side[0]} x {side[1]} px do not fit the image at scale {scale:g}, {height} x {width} px: "
                    "leave out the scale or choose a smaller window="
                )
            sizes.append((height, width))
        down, right = (max(1, round(self.step * length)) for length in side)
        windows = [
            Window(i, top, left)
            for i, (height, width) in enumerate(sizes)
            for top in window_starts(height, side[0], down)
            for left in window_starts(width, side[1], right)
        ]
        return Layout(size, sizes, side, windows)

    def _kept(self, evidence: Evidence, layout: Layout) -> Tensor:
        """Bool (b, windows): all, or all but the `prefilter` share with the lowest probability of the target."""
        kept = torch.ones((len(evidence.targets), len(layout.windows)), dtype=torch.bool)
        dropped = int(len(layout.windows) * self.prefilter)
        if dropped:
            chances = torch.empty(kept.shape)
            for owners, numbers, patches in self._cut(evidence, layout, kept):
                found = probabilities(evidence.score(patches))
                chances[owners, numbers] = evidence.of_target(found, owners.to(found.device)).cpu()
            lowest = torch.argsort(chances, dim=1, stable=True)[:, :dropped]
            kept.scatter_(1, lowest, False)
        return kept

    def _drawn(self, evidence: Evidence, layout: Layout, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Raw maps (b, windows, h, w) and probabilities of the target (b, windows); 0 for those not kept."""
        state = evidence.generator.get_state()
        parts = []
        for owners, numbers, patches in self._cut(evidence, layout, kept):
            evidence.generator.set_state(state)  # the same draws for all windows, however they are cut into chunks
            targets = evidence.targets[owners.to(evidence.targets.device)]
            drawn, logits = self.redraw(evidence, patches, targets)
            parts.append((owners, numbers, drawn, probabilities(logits).gather(1, targets[:, None])[:, 0]))
        first = parts[0][2]
        maps = first.new_zeros((*kept.shape, *first.shape[1:]))
        chances = first.new_zeros(kept.shape)
        for owners, numbers, drawn, chance in parts:
            maps[owners, numbers], chances[owners, numbers] = drawn, chance
        return maps, chances

    def _cut(self, evidence: Evidence, layout: Layout, kept: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Chunks of the kept windows of one scale: whose they are (n,), their numbers (n,), their pixels (n, 3, h, w)."""
        images = evidence.pixels
        height, width = layout.side
        share = height * width / (layout.size[0] * layout.size[1])
        row = int(_GRAPH * evidence.row * share)
        for scale, size in enumerate(layout.sizes):
            large = resized(images, size, antialias=not self.exact)
            here = torch.tensor([window.scale == scale for window in layout.windows])
            owners, numbers = (kept & here).nonzero(as_tuple=True)
            for part in chunks(len(owners), max(1, row), evidence.budget):
                corners = [layout.windows[j][1:] for j in numbers[part].tolist()]
                cut = [
                    large[i, :, top : top + height, left : left + width]
                    for i, (top, left) in zip(owners[part].tolist(), corners, strict=True)
                ]
                yield owners[part], numbers[part], torch.stack(cut)

    def _placed(self, maps: Tensor, weights: Tensor, layout: Layout) -> Iterator[Tensor]:
        """Window by window, the weighted map on the grid of the image, 0 elsewhere, (b, H, W)."""
        height, width = layout.side
        for j, (scale, top, left) in enumerate(layout.windows):
            m = finish(maps[:, j], layout.side, relu=self.base.rectified, normalize="minmax")
            canvas = m.new_zeros((len(m), 1, *layout.sizes[scale]))
            canvas[:, 0, top : top + height, left : left + width] = m * weights[:, j, None, None]
            yield resized(canvas, layout.size, antialias=not self.exact)[:, 0]

    def _fused(self, placed: Iterator[Tensor]) -> Tensor:
        first = next(placed)
        total, count = first.new_zeros(first.shape), first.new_zeros(first.shape)
        for m in itertools.chain([first], placed):
            if self.pool == "max":
                total = torch.maximum(total, m)
            else:
                total += torch.where(m > self.threshold, m, 0)
                count += m > self.threshold
        return total if self.pool == "max" else total / count.clamp(min=1)


def _blurred(maps: Tensor) -> Tensor:
    """The authors' Gaussian, with reflected borders."""
    import cv2

    side, sigma = _BLUR
    done = [cv2.GaussianBlur(m, (side, side), sigma) for m in maps.cpu().numpy()]
    return torch.from_numpy(np.stack(done)).to(maps.device)
