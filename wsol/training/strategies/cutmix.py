"""CutMix: a piece of another image is pasted in, and the label follows by area."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch
    from wsol.models import Localizer


class Mixed(NamedTuple):
    """Images (b, 3, H, W), for each the image (b,) its piece comes from, and the share of pixels that are its own."""

    images: Tensor
    partner: Tensor
    own: float


class CutMix(Strategy):
    """Cross-entropy with the labels of both images, weighed by area: own * CE(y_a) + (1 - own) * CE(y_b).

    A batch is mixed with probability `prob`: own ~ Beta(beta, beta), a box of sides sqrt(1 - own) * (H, W) around a random pixel,
    cut off at the border, comes from the same place of another image (a permutation of the batch; box and share are those of the
    whole batch), and `own` becomes the share that is left after cutting off. Losses of the head itself are weighed alike.

    The label of a small lesion does not follow by area: a box of tumor pasted into normal tissue stays tumor, and a box of normal
    tissue that covers the only lesion leaves none.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019; beta 1 and
    prob 1 as there and in the survey of histology. The released code halves the sides before rounding, so that boxes of an odd
    side lose a pixel; here they do not.
    """

    paper = "https://arxiv.org/abs/1905.04899"

    def __init__(
        self,
        *,
        beta: float = 1.0,
        prob: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Args:
        beta: of the Beta distribution, > 0: 1 draws all shares alike, less favors shares near 0 and 1.
        prob: probability of a batch to be mixed, in [0, 1].
        label_smoothing: as for `Strategy`.
        class_weights: as for `Strategy`; they weigh the two cross-entropies apart.
        """
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be positive and finite; got {beta}")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob is the probability of a batch to be mixed, in [0, 1]; got {prob}")
        self.beta = beta
        self.prob = prob

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """See the class. Heads that erase by label get the one of the larger share.

        Raises:
            ValueError: the batch holds bags of tiles.
        """
        images, partner, own = self.mix(batch, generator)
        theirs = batch.labels[partner]
        prediction = net.head(net.encode(images), labels=batch.labels if own >= 0.5 else theirs)
        first, second = (self.classified(prediction, net, labels) for labels in (batch.labels, theirs))
        return {name: own * first[name] + (1 - own) * second[name] for name in first}

    def seen(self, net: Localizer, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mixed images."""
        return self.mix(batch, generator).images

    def mix(self, batch: Batch, generator: torch.Generator) -> Mixed:
        """Draw shares, box and partners, and paste.

        Raises:
            ValueError: the batch holds bags of tiles.
        """
        if batch.groups is not None:
            raise ValueError(
                "cutmix mixes labels by area, and the label of a slide does not follow the area of its tiles; "
                "train slides with strategy has, adl or classify"
            )
        b, _, height, width = batch.images.shape
        # Numpy has a Beta distribution that takes a generator; its seed comes from the generator of the training.
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        partner = torch.randperm(b, generator=generator).to(batch.labels.device)
        share = float(rng.beta(self.beta, self.beta))
        if rng.random() >= self.prob:
            share = 1.0
        (top, bottom), (left, right) = (_span(side, math.sqrt(1 - share), rng) for side in (height, width))
        images = batch.images.clone()
        images[..., top:bottom, left:right] = batch.images[partner, :, top:bottom, left:right]
        return Mixed(images, partner, 1 - (bottom - top) * (right - left) / (height * width))


def _span(side: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """First and last + 1 pixel of a stretch of `share * side` px around a random pixel, cut off at both ends of the side."""
    length = int(side * share)
    start = int(rng.integers(side)) - length // 2
    return max(start, 0), max(min(start + length, side), 0)
