"""Full supervision: pixels learned from masks, the upper bound that weak supervision is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from wsol.training.pixel_losses import partial_entropy, pixels_of, require_decoder, soft_dice
from wsol.training.strategies.base import Strategy

if TYPE_CHECKING:
    from wsol.data import Batch, MaskedBatch
    from wsol.models import Localizer


class UNet(Strategy):
    """Binary cross-entropy and soft Dice on the pixels, and cross-entropy on the labels, all weights of the net learning.

    On all training masks it is an upper bound; with `train_on: valpx` in a study it is what the few masks that weak supervision
    spends on thresholds are worth when they are trained on instead. Pixels are resized to the masks, not the masks to the pixels.

    Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015. The original's weights on
    the borders between touching cells are left out: masks here are regions.
    """

    supervision = "masks"
    paper = "https://arxiv.org/abs/1505.04597"

    def __init__(
        self,
        *,
        entropy: float = 1.0,
        dice: float = 1.0,
        classification: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Args:
        entropy: weight of the binary cross-entropy of the pixels.
        dice: weight of the soft Dice; 0 leaves it out, as the survey's U-Net does.
        classification: weight of the losses on the labels; 0 trains no classifier, and its logits say nothing then.
        label_smoothing: of the labels' cross-entropy.
        class_weights: of the labels' cross-entropy.
        """
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        for name, weight in {"entropy": entropy, "dice": dice, "classification": classification}.items():
            if not weight >= 0:
                raise ValueError(f"{name} is a weight and must not be negative; got {weight}")
        if entropy == dice == 0:
            raise ValueError("entropy and dice are both 0: nothing would train the pixels")
        self.entropy, self.dice, self.classification = entropy, dice, classification

    def attach(self, net: Localizer) -> None:
        """Everything learns; the head must have a decoder."""
        require_decoder(net, type(self).__name__)

    def loss(self, net: Localizer, batch: Batch, generator: torch.Generator, epoch: int) -> dict[str, Tensor]:
        """`pixel_entropy`, `dice` and the losses on the labels, those with a weight above 0; means over the images."""
        masked = cast("MaskedBatch", batch)  # `forward` has seen to it
        said = net.head(net.encode(batch.images), groups=batch.groups, labels=batch.labels)
        pixels = pixels_of(said, masked.masks.shape[-2:])
        losses = {}
        if self.entropy:
            losses["pixel_entropy"] = self.entropy * partial_entropy(pixels, masked.masks).mean()
        if self.dice:
            losses["dice"] = self.dice * soft_dice(pixels, masked.masks).mean()
        if self.classification:
            losses |= {name: self.classification * value for name, value in self.classified(said, net, batch.labels).items()}
        return losses
