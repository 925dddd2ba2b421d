"""Token semantic coupled attention map: where a transformer's class token looks, times what the patch tokens say is there."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol._names import closest
from wsol.models.heads.base import Head, at_least_float32
from wsol.models.localizer import Features, Prediction


class TsCam(Head):
    """TS-CAM: logits from the patch tokens by a 3x3 convolution, maps times the attention of the class token.

    Semantic map S_c = conv(F)_c, logit_c = mean_p S_c(p); map_c(p) = A(p) S_c(p), where A is the attention that the class token
    gives to p, in the mean of the attention's heads and of all blocks. The released code takes the sum of the blocks for the mean
    (12 times as much), and both multiply S with its bias. Here S is also there alone, without bias: the method 'cam'.

    It needs a backbone that hands over attention, `vit_tiny` or `vit_small`.
    """

    paper = "Gao et al., TS-CAM: Token Semantic Coupled Attention Map for Weakly Supervised Object Localization, ICCV 2021"

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        blocks: Literal["mean", "sum"] = "mean",
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """Args:
        channels: of the last stage.
        num_classes: k.
        blocks: how the attention of the blocks is joined: "mean" as in the paper, "sum" as in its code.
        dropout: as for `Head`.
        bag_top: as for `Head`.
        """
        super().__init__(dropout=dropout, bag_top=bag_top)
        if blocks not in ("mean", "sum"):
            raise ValueError(closest("blocks", blocks, ("mean", "sum")))
        self.blocks = blocks
        conv = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.weight = conv.weight
        self.bias = nn.Parameter(torch.zeros(num_classes))  # favors no class

    def class_maps(self, f: Features) -> Tensor:
        """The semantic maps without bias, (b, k, h, w); float32 at least."""
        x = at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            return functional.conv2d(x, self.weight.to(x.dtype), padding=1)

    def logits(self, f: Features) -> Tensor:
        """Logits (b, k): the attention takes no part in them."""
        maps = self.class_maps(f)
        return maps.mean((2, 3)) + self.bias.to(maps.dtype)

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Logits and coupled maps.

        Raises:
            ValueError: the features come without the attention of a class token.
        """
        attention = f.extra.get("attention")
        if attention is None:
            raise ValueError(
                "head 'ts-cam' needs features with the attention of a class token (extra['attention']); these have none: "
                "take a transformer backbone such as 'vit_tiny', or features as its encode gives them"
            )
        semantic = self.class_maps(f)
        with torch.autocast(semantic.device.type, enabled=False):
            bias = self.bias.to(semantic.dtype)
            seen = attention.to(semantic.dtype)
            seen = seen.sum(1) if self.blocks == "sum" else seen.mean(1)
            return Prediction(semantic.mean((2, 3)) + bias, seen[:, None] * (semantic + bias[:, None, None]))
