"""F-CAM: a decoder turns a classifier's coarse map into pixels, led by seeds, by the colors of the image and by sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wsol.training.pixel_losses import freeze_classifier, pixels_of
from wsol.training.regularizers import window_crf
from wsol.training.seeds import SeedSampler
from wsol.training.sizes import barrier_strength, log_barrier
from wsol.training.strategies.seeded import Seeded, Seeds

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer


class FCam(Seeded):
    """Seeds, a CRF-like term, and a log-barrier on the sizes of foreground and background; the classifier stays as it is.

    Foreground seeds come from the map's region above Otsu's threshold, eroded; background seeds from its lowest 20 %. The CRF
    term is `window_crf`. Sizes are shares of the image (of the bag), kept from vanishing by ``psi_t(-s) + psi_t(-(1 - s))`` with
    a t that grows by the epoch; images of `empty_class` are left out of it, having no foreground.

    Belharbi et al., "F-CAM: Full Resolution Class Activation Maps via Guided Parametric Upscaling", WACV 2022. Published: erosion
    11 x 11 at 224 px (5 here, on the decoder's grid of half the resolution), and a CRF that is a sum over all pairs of pixels
    with weight 2e-9 (here a windowed mean in [0, 1]). The weights here fit means, and were not tuned.
    """

    paper = "https://arxiv.org/abs/2109.07069"
    needs_parent = True

    def __init__(
        self,
        *,
        seeds: Seeds,
        foreground: int = 10,
        background: int = 10,
        power: float = 1.0,
        dilation: int = 3,
        lowest: float = 0.2,
        erosion: int = 5,
        weight: float = 1.0,
        crf: float = 0.5,
        radius: int = 2,
        sigma_rgb: float = 15 / 255,
        sigma_xy: float = 50.0,
        size: float = 0.1,
        strength: float = 1.0,
        strength_end: float = 10.0,
        empty_class: int | None = None,
    ) -> None:
        """Args:
        seeds: maps of the teacher, the classifier itself.
        foreground: seeds of an image drawn as foreground; for this and what follows up to `erosion` see `SeedSampler`.
        background: seeds of an image drawn as background.
        power: sharpness of the draw by the map; 0 draws evenly.
        dilation: side of a grown seed in cells, odd.
        lowest: share of the cells, those with the lowest values, that may become background.
        erosion: side in cells, odd, of the square by which the region of foreground seeds is eroded.
        weight: of the loss on seeds.
        crf: weight of the CRF term; 0 leaves it out.
        radius: of the CRF's window, in px of the decoder; for this and the next two see `window_crf`.
        sigma_rgb: of the color, for images in [0, 1].
        sigma_xy: of the distance, in px of the decoder.
        size: weight of the sizes; 0 leaves them out.
        strength: t of the barrier in the first epoch.
        strength_end: the largest t; it grows by 1 % an epoch.
        empty_class: class whose images have no foreground.
        """
        sampler = SeedSampler(
            foreground=foreground, background=background, power=power, dilation=dilation, lowest=lowest, otsu=True,
            erosion=erosion,
        )  # fmt: skip
        super().__init__(seeds=seeds, sampler=sampler, weight=weight, empty_class=empty_class)
        for name, value in {"crf": crf, "size": size}.items():
            if not value >= 0:
                raise ValueError(f"{name} is a weight and must not be negative; got {value}")
        barrier_strength(1, strength, strength_end)
        self.crf, self.radius, self.sigma_rgb, self.sigma_xy = crf, radius, sigma_rgb, sigma_xy
        self.size, self.strength, self.strength_end = size, strength, strength_end

    def attach(self, net: Localizer) -> None:
        """Only the decoder learns."""
        super().attach(net)
        freeze_classifier(net)

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """`seeds`, `negatives` where there is an empty class, `crf` and `sizes` where they have a weight; means over images."""
        pixels = pixels_of(net.head(net.encode(batch.images)))
        losses = self.on_pixels(pixels, batch, generator)
        s = pixels[:, 0].sigmoid()
        if self.crf:
            images = functional.interpolate(batch.images.float(), size=s.shape[1:], mode="area")
            each = window_crf(s, images, radius=self.radius, sigma_rgb=self.sigma_rgb, sigma_xy=self.sigma_xy)
            losses["crf"] = self.crf * each.mean()
        if self.size:
            t = barrier_strength(epoch, self.strength, self.strength_end)
            losses["sizes"] = self.size * self._sizes(s.mean((1, 2)), batch, t)
        return losses

    def _sizes(self, shares: Tensor, batch: Batch, t: float) -> Tensor:
        """Barrier on the foreground's share (b,) of each image, or its mean over each bag, that may have one; their mean."""
        if batch.groups is not None:
            bags = functional.one_hot(batch.groups, len(batch.labels)).to(shares.dtype)
            shares = (bags.T @ shares) / bags.sum(0)
        empty = self.is_empty(batch.labels)
        barrier = log_barrier(-shares, t) + log_barrier(shares - 1, t)
        return (barrier * ~empty).sum() / (~empty).sum().clamp_min(1)
