"""MAXMIN: what the map leaves in must say the class, what it leaves out must say nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol._names import closest
from wsol.training.losses import cross_entropy
from wsol.training.sizes import barrier_strength, log_barrier
from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer, Prediction


class MaxMin(Strategy):
    """Cross-entropy, and the image cut in two by its own map: foreground X M+ and background X M-, M- = 1 - M+.

    M+ = sigmoid(w (minmax(sum_c p_c map_c) - threshold)), at the resolution of the image. The backbone sees both halves, hidden
    pixels in the color that it normalizes to 0, at `scale` of their size, and a second head, which starts as a copy of the net's
    and stays with the strategy, classifies them (p+, p-):

        H(y, p) + H(y, p+) + weight * R(p-) + psi_t(-|M+|) + psi_t(-|M-|)

    with R = -H(p-) ("eem") or H(uniform, p-) ("sem"), in nats, and the extended log-barrier psi_t that keeps both sizes from 0.
    min-max is over all cells of an image; a constant map becomes 0 everywhere. For bags of tiles min-max and sizes are those of
    the whole bag, since a tile of a tumor slide need not hold tumor.

    **What localizes** is the net's class map, as for every other net. M+ >= 0.5 where the min-max of the p-weighted map reaches
    the threshold: under min-max of each image, a fixed threshold of 0.2 is the paper's 0.5 on M+ as far as the
    net is sure of the class whose map is drawn.

    With `empty_class`, a class that has no foreground (normal tissue), the map is that of the other classes, sum_c p_c map_c with
    p among them, and M+ = sigmoid(w map) has an absolute zero. Images of the empty class are not cut: their map is pushed below 0
    by BCE(sigmoid(map), 0). The others get all terms but psi_t(-|M-|), since a tile may be all tumor. Such a map is comparable
    between images: draw the positive class, and take its sigmoid at 0.5.

    Belharbi et al., "Deep Interpretable Classification and Weakly-Supervised Segmentation of Histology Images via Max-Min
    Uncertainty", IEEE TMI 2022. Defaults are the published ones for GlaS except `weight`: the published 1e-7 (on entropies in
    bits) switches R off in effect, and 0.1 is ours, not tuned on histology. Differences of the released code: min-max runs
    over the whole batch (its comment calls that wrong), entropies are in bits, and on CAMELYON16 the loss is 10 H(y, p) +
    BCE (off by default) + psi_t(-|M+|) on tumor with a head of its own for the map: both masked terms are constant zeros. In the
    survey's repository every term but H(y, p) is multiplied by 0.
    """

    paper = "https://arxiv.org/abs/2011.07221"

    def __init__(
        self,
        *,
        background: Literal["sem", "eem"] = "sem",
        weight: float = 0.1,
        steepness: float = 5.0,
        threshold: float = 0.15,
        threshold_growth: float = 0.001,
        threshold_end: float = 0.2,
        barrier: float = 5.0,
        barrier_end: float = 10.0,
        barrier_growth: float = 1.01,
        sizes: Literal["pixels", "shares"] = "pixels",
        scale: float = 0.8,
        empty_class: int | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Args:
        background: R, "sem" (cross-entropy to uniform) or "eem" (negative entropy).
        weight: lambda, of R.
        steepness: w.
        threshold: sigma_0 in the first epoch; each further epoch adds `threshold_growth`, up to `threshold_end`.
        threshold_growth: see `threshold`.
        threshold_end: see `threshold`.
        barrier: t in the first epoch; each further epoch multiplies by `barrier_growth`, up to `barrier_end`.
        barrier_end: see `barrier`.
        barrier_growth: see `barrier`.
        sizes: "pixels", where the barrier is a weak pull (slope 1 / (t s), value below 0), or "shares" of the image, where it is
            steep (slope t) once a part holds less than 1 / t^2.
        scale: side of the halves as the backbone sees them, in (0, 1].
        empty_class: index of the class without foreground; None: every class has some, as the grades of GlaS.
        label_smoothing: of the cross-entropies.
        class_weights: of the cross-entropies.
        """
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        for name, value, known in (("background", background, ("sem", "eem")), ("sizes", sizes, ("pixels", "shares"))):
            if value not in known:
                raise ValueError(closest(name, value, known))
        if not (0 <= weight < math.inf and 0 < steepness < math.inf and 0 < scale <= 1):
            raise ValueError(f"expected weight >= 0, steepness > 0, scale in (0, 1]; got {weight}, {steepness}, {scale}")
        if not (0 <= threshold <= threshold_end < 1 and threshold_growth >= 0):
            raise ValueError(
                f"expected 0 <= threshold <= threshold_end < 1, threshold_growth >= 0; got {threshold}, {threshold_end}, "
                f"{threshold_growth}"
            )
        barrier_strength(1, barrier, barrier_end, barrier_growth)
        self.background, self.weight, self.sizes = background, weight, sizes
        self.steepness, self.scale, self.empty_class = steepness, scale, empty_class
        self.threshold, self.threshold_growth, self.threshold_end = threshold, threshold_growth, threshold_end
        self.barrier, self.barrier_end, self.barrier_growth = barrier, barrier_end, barrier_growth
        self.classifier: nn.Module | None = None

    def attach(self, net: Localizer) -> None:
        """Give the halves their head: a copy of the net's as it is at the start."""
        if self.classifier is None:
            self.classifier = copy.deepcopy(net.head)

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """`cross_entropy` H(y, p), `foreground` H(y, p+), `background` weight * R(p-), `sizes`; `empty` with an empty class.

        Raises:
            ValueError: the head has no class maps, or no class is left beside the empty one.
        """
        prediction = net.head(net.encode(batch.images), groups=batch.groups, labels=batch.labels)
        losses = self.classified(prediction, net, batch.labels)
        maps, bags = self.foreground(prediction), batch.groups
        bags = torch.arange(len(maps), device=maps.device) if bags is None else bags
        images, labels = batch.images, batch.labels
        if self.empty_class is not None:
            empty = (labels == self.empty_class)[bags]
            losses["empty"] = functional.softplus(maps[empty]).mean() if bool(empty.any()) else maps.new_zeros(())
            images, maps, labels = images[~empty], maps[~empty], labels[labels != self.empty_class]
            bags = bags[~empty].unique(return_inverse=True)[1]
        if len(labels) == 0:
            return {**losses, **{name: maps.new_zeros(()) for name in ("foreground", "background", "sizes")}}
        mask = self.mask(maps, bags, images.shape[-2:], epoch)
        groups = None if batch.groups is None else bags
        inside = self._classify(net, images, mask, groups, labels)
        outside = self._classify(net, images, 1 - mask, groups, None).float().log_softmax(1)
        R = -outside.mean() if self.background == "sem" else (outside.exp() * outside).sum(1).mean()
        losses["foreground"] = cross_entropy(
            inside, labels, label_smoothing=self.label_smoothing, class_weights=self.class_weights
        )
        return {**losses, "background": self.weight * R, "sizes": self.size_loss(mask, bags, epoch)}

    def foreground(self, prediction: Prediction) -> Tensor:
        """sum_c p_c map_c (b, 1, h, w) of images or tiles; without the empty class, if there is one."""
        if prediction.maps is None:
            raise ValueError(
                "maxmin cuts images by the class maps of the head, and this head has none; use one with maps, e.g. gap"
            )
        logits = prediction.extra.get("tile_logits", prediction.logits).float()
        if self.empty_class is not None:
            classes = logits.shape[1]
            if not (0 <= self.empty_class < classes and classes > 1):
                raise ValueError(f"empty_class must be one of at least two classes, 0..{classes - 1}; got {self.empty_class}")
            logits = logits.index_fill(1, torch.tensor(self.empty_class, device=logits.device), -math.inf)
        return (logits.softmax(1)[..., None, None] * prediction.maps.float()).sum(1, keepdim=True)

    def mask(self, maps: Tensor, bags: Tensor, size: Sequence[int], epoch: int) -> Tensor:
        """M+ (b, 1, H, W) in [0, 1] from maps (b, 1, h, w); `bags` (b,) numbers what min-max is over."""
        pixels = functional.interpolate(maps, size=tuple(size), mode="bilinear")
        if self.empty_class is None:
            pixels = _min_max(pixels, bags) - min(self.threshold + self.threshold_growth * (epoch - 1), self.threshold_end)
        return torch.sigmoid(self.steepness * pixels)

    def size_loss(self, mask: Tensor, bags: Tensor, epoch: int) -> Tensor:
        """Mean over bags of psi_t(-|M+|) + psi_t(-|M-|), the second not with an empty class."""
        t = barrier_strength(epoch, self.barrier, self.barrier_end, self.barrier_growth)
        inside = mask.flatten(1).sum(1)
        area = torch.full_like(inside, mask[0].numel())
        inside, area = (x.new_zeros(int(bags.max()) + 1).index_add(0, bags, x) for x in (inside, area))
        unit = area if self.sizes == "shares" else 1.0
        loss = log_barrier(-inside / unit, t)
        if self.empty_class is None:
            loss = loss + log_barrier((inside - area) / unit, t)
        return loss.mean()

    def _classify(self, net: Localizer, images: Tensor, mask: Tensor, groups: Tensor | None, labels: Tensor | None) -> Tensor:
        """Logits of the images where the mask leaves them."""
        if self.classifier is None:
            raise ValueError("maxmin has no head for the halves of an image yet; call attach(net) before the optimizer is made")
        half = images * mask + net.backbone.blank_color(images) * (1 - mask)
        if self.scale < 1:
            half = functional.interpolate(half, scale_factor=self.scale, mode="bilinear")
        logits: Tensor = self.classifier(net.encode(half), groups=groups, labels=labels).logits
        return logits


def _min_max(x: Tensor, bags: Tensor) -> Tensor:
    """Each bag of x (b, 1, H, W) from its minimum, 0, to its maximum, 1; all 0 where it is constant (to rounding)."""
    highest, lowest = (_largest(x, bags), -_largest(-x, bags))
    spread = highest - lowest
    constant = spread <= 1e-6 * highest.abs().clamp_min(1.0)
    return torch.where(constant, 0.0, (x - lowest) / torch.where(constant, 1.0, spread))


def _largest(x: Tensor, bags: Tensor) -> Tensor:
    """The largest value of the bag that each image belongs to, (b, 1, 1, 1)."""
    own = x.flatten(1).amax(1)
    largest = own.new_full((int(bags.max()) + 1,), -math.inf).scatter_reduce(0, bags, own, "amax")
    return largest[bags][:, None, None, None]
