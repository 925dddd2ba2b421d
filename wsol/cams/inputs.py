"""Maps at the size of the image: slopes of the logit by the pixels, and what the net says of the image with parts hidden."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wsol._names import closest
from wsol.cams.base import Cam, Evidence
from wsol.cams.evidence import chunks
from wsol.cams.hiding import Fill, checked_fill, fill_color, probabilities
from wsol.models import Localizer

Reduce = Literal["max", "sum"]
Score = Literal["prob", "logit"]


class _Pixels(Cam):
    """Base of the methods that read no stage."""

    needs_gradient = False
    needs_images = True
    local = False
    rectified = False
    resolution = "image"


class Gradient(_Pixels):
    """The slope of the target's logit by the pixels; of the three colors the largest magnitude, or the signed sum."""

    paper = "Simonyan et al., Deep Inside Convolutional Networks, arXiv 1312.6034"

    def __init__(self, *, reduce: Reduce = "max") -> None:
        """`reduce`: "max" over the colors of |slope| (the paper), or their "sum", signed."""
        if reduce not in ("max", "sum"):
            raise ValueError(closest("reduce", reduce, ("max", "sum")))
        self.reduce = reduce

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """One pass with a graph."""
        return self.reduced(pixel_slope(evidence, evidence.pixels))

    def reduced(self, slope: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, H, W)."""
        return slope.abs().amax(1) if self.reduce == "max" else slope.sum(1)


class SmoothGrad(Gradient):
    """SmoothGrad: `gradient` of the mean slope over `n` noisy copies of the image.

    Noise is normal, with a standard deviation of `level` times the range of the image's values, and the noisy image is not
    clipped. All images of a batch get the same draws, so that a map does not depend on its batch. The slopes are averaged with
    their sign, before `reduce`; the wrapper "smooth" of "gradient" averages after it.
    """

    paper = "Smilkov et al., SmoothGrad: removing noise by adding noise, arXiv 1706.03825"

    def __init__(self, *, reduce: Reduce = "max", n: int = 50, level: float = 0.15) -> None:
        """`n` copies, each one more pass; `level` 0.1 to 0.2 in the paper."""
        super().__init__(reduce=reduce)
        check_noise(n, level)
        self.n = n
        self.level = level

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The running mean of the slopes."""
        images = evidence.pixels
        mean = torch.zeros_like(images)
        for i in range(self.n):
            mean += (pixel_slope(evidence, noisy(images, self.level, evidence.generator)) - mean) / (i + 1)
        return self.reduced(mean)


class IntegratedGradients(_Pixels):
    """Integrated gradients: (x - x0) times the mean slope on the straight path from x0 to x, summed over the colors.

    The map adds up to logit(x) - logit(x0), as well as the rule integrates: compare `steps` and twice as many where it matters.
    x0 is one color: "black" (the paper), "white" (the empty glass of a slide), "mean" (what the backbone normalizes to 0). Where
    the image has that color the map is 0, whatever the net: with "black" no black pixel can count.
    """

    paper = "Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017"

    def __init__(
        self, *, baseline: Fill = "black", steps: int = 50, rule: Literal["gauss-legendre", "midpoint"] = "gauss-legendre"
    ) -> None:
        """`steps` points on the path, each one pass, placed by `rule`."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1; got {steps}")
        if rule not in ("gauss-legendre", "midpoint"):
            raise ValueError(closest("rule", rule, ("gauss-legendre", "midpoint")))
        self.baseline = checked_fill(baseline)
        if rule == "midpoint":
            self.points, self.weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
        else:
            nodes, weights = np.polynomial.legendre.leggauss(steps)
            self.points, self.weights = (nodes + 1) / 2, weights / 2

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The weighted sum of the slopes."""
        images = evidence.pixels
        base = fill_color(net, images, self.baseline)
        mean = torch.zeros_like(images)
        for point, weight in zip(self.points.tolist(), self.weights.tolist(), strict=True):
            mean += weight * pixel_slope(evidence, base + point * (images - base))
        return ((images - base) * mean).sum(1)


class Rise(_Pixels):
    """RISE: the mean score of the image under random masks that show a point, E[score(x seen through M) | M(p)].

    A mask is a grid of `cells` x `cells` squares, each shown with probability `p`, resized (bilinear) to one square more than the
    image and cropped at a random shift. The map is sum_i score_i M_i / sum_i M_i; the paper divides by n p instead, which is the
    same for many masks, but prints the unevenness of few masks into the map (`expected=True`). All images of a batch get the
    same masks, so that a map does not depend on its batch.

    The authors take 4,000 masks for VGG-16 and 8,000 for ResNet-50, cells = 7, p = 0.5. Fewer will not do: on an image of GlaS
    the maps of 250, 1,000 and 2,000 masks correlated with that of 4,000 others at 0.56, 0.75 and 0.91 (0.54, 0.67 and 0.90 with
    `expected=True`).
    """

    paper = "Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018, eq. 6"

    def __init__(
        self,
        *,
        n: int = 4000,
        cells: int = 7,
        p: float = 0.5,
        score: Score = "prob",
        fill: Fill = "mean",
        expected: bool = False,
        bf16: bool = False,
    ) -> None:
        """`n` masks; `score` is the target's probability (the paper) or its logit; `fill` is what hides; `bf16` as Score-CAM."""
        if n < 1 or cells < 1 or not 0 < p < 1:
            raise ValueError(f"n and cells must be at least 1, and p in (0, 1); got n={n}, cells={cells}, p={p}")
        self.n = n
        self.cells = cells
        self.p = p
        self.score = _checked_score(score)
        self.fill = checked_fill(fill)
        self.expected = expected
        self.bf16 = bf16

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Draw the masks, run the net, draw the masks once more to add them up."""
        images = evidence.pixels
        count = len(images)
        masks = self.masks(images, evidence.generator)
        color = fill_color(net, images, self.fill)

        def make(part: slice) -> Tensor:
            rows = torch.arange(part.start, part.stop, device=images.device)
            shown, owners = rows // count, rows % count
            first = part.start // count
            x = images[owners] - color
            seen = color + masks(slice(first, int(shown[-1]) + 1))[shown - first][:, None] * x
            return seen.contiguous(memory_format=torch.channels_last)

        owners = torch.arange(count, device=images.device).repeat(self.n)
        scores = said(evidence, make, owners, self.score, self.bf16).view(self.n, count).double()
        total = images.new_zeros(images[:, 0].shape, dtype=torch.float64)
        weight = images.new_zeros(images.shape[2:], dtype=torch.float64)
        for part in chunks(self.n, 8 * images[0, 0].numel(), evidence.budget):
            m = masks(part).double()
            total += torch.einsum("nb,nhw->bhw", scores[part], m)
            weight += m.sum(0)
        if self.expected:
            return total / (self.n * self.p)
        return total / torch.where(weight > 0, weight, 1)  # a point that no mask showed stays 0

    def masks(self, images: Tensor, generator: torch.Generator) -> Callable[[slice], Tensor]:
        """The rule that makes the masks of a slice, (n, H, W) in [0, 1]; everything random is drawn here."""
        height, width = images.shape[2:]
        square = (math.ceil(height / self.cells), math.ceil(width / self.cells))
        grids = (torch.rand((self.n, 1, self.cells, self.cells), generator=generator) < self.p).to(images)
        shifts = torch.stack([torch.randint(side, (self.n,), generator=generator) for side in square], 1).tolist()
        size = [(self.cells + 1) * side for side in square]

        def made(part: slice) -> Tensor:
            large = functional.interpolate(grids[part], size, mode="bilinear", align_corners=False)[:, 0]
            cropped = [one[y : y + height, x : x + width] for one, (y, x) in zip(large, shifts[part], strict=True)]
            return torch.stack(cropped)

        return made


class Occlusion(_Pixels):
    """Occlusion: how far the score falls when a square is hidden; a point gets the mean of the squares that cover it.

    Squares start every `stride` pixels, and the last of a row or column lies flush with the border, so that every pixel is
    covered and no square is cut. It costs (1 + (H - window) / stride) (1 + (W - window) / stride) runs of the net.
    """

    paper = "Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014"

    def __init__(
        self, *, window: int = 32, stride: int = 16, score: Score = "logit", fill: Fill = "mean", bf16: bool = False
    ) -> None:
        """`window` and `stride` in pixels of the image; "mean" is the paper's gray; the others as for RISE."""
        if not 1 <= stride <= window:
            raise ValueError(f"stride must be in 1..window, or pixels go uncovered; got stride={stride}, window={window}")
        self.window = window
        self.stride = stride
        self.score = _checked_score(score)
        self.fill = checked_fill(fill)
        self.bf16 = bf16

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """One run per square."""
        images = evidence.pixels
        height, width = images.shape[2:]
        if self.window > min(height, width):
            raise ValueError(f"the window of {self.window} px does not fit images of {height} x {width}: give a smaller window=")
        count, side = len(images), self.window
        color = fill_color(net, images, self.fill)
        corners = [(y, x) for y in window_starts(height, side, self.stride) for x in window_starts(width, side, self.stride)]

        def make(part: slice) -> Tensor:
            rows = range(part.start, part.stop)
            seen = images[[row % count for row in rows]].contiguous(memory_format=torch.channels_last)
            for one, (y, x) in zip(seen, (corners[row // count] for row in rows), strict=True):
                one[:, y : y + side, x : x + side] = color[0]
            return seen

        owners = torch.arange(count, device=images.device).repeat(len(corners))
        hidden = said(evidence, make, owners, self.score, self.bf16).view(len(corners), count)
        whole = said(evidence, images.__getitem__, owners[:count], self.score, self.bf16)
        total, cover = torch.zeros_like(images[:, 0]), torch.zeros_like(images[0, 0])
        for (y, x), fall in zip(corners, whole - hidden, strict=True):
            total[:, y : y + side, x : x + side] += fall[:, None, None]
            cover[y : y + side, x : x + side] += 1
        return total / cover


def pixel_slope(evidence: Evidence, images: Tensor) -> Tensor:
    """The slope of the target's logit by the pixels of these images, (b, 3, H, W).

    Raises:
        ValueError: no slope comes back to the pixels.
    """
    with torch.enable_grad():
        images = images.detach().clone().requires_grad_(True)
        score = evidence.of_target(evidence.net(images).logits).sum()
        (slope,) = torch.autograd.grad(score, images, allow_unused=True) if score.requires_grad else (None,)
    if slope is None:
        raise ValueError(
            "no slope comes back to the pixels: the net detaches its features, or runs the layers below under no_grad; take a "
            "method that starts from features, such as 'grad-cam'"
        )
    return slope


def noisy(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Images plus normal noise of `level` times the range of each image's values; the same draws for all of them."""
    spread = level * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    return images + spread * torch.randn(images.shape[1:], generator=generator).to(images.device)


def check_noise(n: int, level: float) -> None:
    """Raise unless `noisy` can be drawn n times."""
    if n < 1 or level < 0:
        raise ValueError(f"n must be at least 1 and level at least 0; got n={n}, level={level}")


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows start that cover 0..length - 1: every `stride`, the last one flush with the end."""
    return [min(i * stride, length - window) for i in range(math.ceil((length - window) / stride) + 1)]


def said(evidence: Evidence, make: Callable[[slice], Tensor], owners: Tensor, score: Score, bf16: bool) -> Tensor:
    """The target's probability or logit for changed images, (n,); `owners` (n,) says whose image each is."""
    logits = evidence.score(make, len(owners), half=bf16)
    return evidence.of_target(probabilities(logits) if score == "prob" else logits, owners)


def _checked_score(score: Score) -> Score:
    if score not in ("prob", "logit"):
        raise ValueError(closest("score", score, ("prob", "logit")))
    return score
