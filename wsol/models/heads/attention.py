"""Attention-based multiple-instance learning: over the cells of an image (`deep-mil`), over the tiles of a bag (`attention-mil`).

Attention per class: e_k(x) = u_k . (tanh(V x + v) [* sigmoid(U x + u)]), a_k = softmax of e_k over the instances x.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol._names import closest
from wsol.models.heads.base import at_least_float32, check_groups
from wsol.models.heads.linear import ClassMapHead, PooledFeatures, project
from wsol.models.localizer import Features, Prediction

_PAPER = "Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018"


class Attention(nn.Module):
    """The scores e_k of instances; gated or not."""

    def __init__(self, channels: int, num_classes: int, width: int, gated: bool) -> None:
        """`width` is the length of the hidden vector."""
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1; got {width}")
        self.hidden = nn.Linear(channels, width)
        self.gate = nn.Linear(channels, width) if gated else None
        self.score = nn.Linear(width, num_classes, bias=False)  # softmax does not see a bias

    def forward(self, instances: Tensor) -> Tensor:
        """Instances (..., c) -> scores (..., k); call it outside autocast."""
        made = torch.tanh(_linear(self.hidden, instances))
        if self.gate is not None:
            made = made * torch.sigmoid(_linear(self.gate, instances))
        return _linear(self.score, made)


class DeepMil(ClassMapHead):
    """Deep MIL: logit_k = W_k . sum_p a_k(p) F(p) + B_k, with attention a_k over the cells of the image; a_k localizes.

    As sum_p a_k(p) M_k(p) + B_k it is a mean of the class map; with equal attention that of `gap`. Over a bag the attention is
    over all cells of all its tiles.

    `draws` says what the maps are:

    - "attention": log(n a_k(p)) for n cells, the published map on a scale on which it can be compared: 0 is equal attention (the
      fixed threshold 1/n of the 2019 protocol) whatever n, and a threshold of 0 on it, or of 1/2 on its sigmoid, is that one. The
      order of the cells of an image is that of a_k, so a per-image threshold chosen on masks finds the same masks.
      a_k itself is `extra["attention"]` (method `native` with `source="attention"`).
    - "score": e_k(p), before the softmax. It has no zero of its own, but tiles of a slide that are drawn one by one share its
      scale, which attention does not: that is relative to the tile.
    - "evidence": n a_k(p) M_k(p), what each cell adds to the logit; its mean is the logit without bias, as of a `gap` map.

    Attention says where the net looked, for or against the class; evidence has the sign.
    """

    paper = _PAPER

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        width: int = 128,
        gated: bool = False,
        draws: Literal["attention", "score", "evidence"] = "attention",
        dropout: float = 0.0,
    ) -> None:
        """Args:
        channels: of the last stage.
        num_classes: k.
        width: of the hidden vector.
        gated: multiply by sigmoid(U F + u), the paper's second form.
        draws: what the maps are, see the class.
        dropout: as for `Head`.
        """
        super().__init__(channels, num_classes, dropout=dropout)
        if draws not in ("attention", "score", "evidence"):
            raise ValueError(closest("draws", draws, ("attention", "score", "evidence")))
        self.draws = draws
        self.attention = Attention(channels, num_classes, width, gated)

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Logits, maps, `extra["attention"]` (b, k, h, w) and `extra["attention_mass"]` (b, k), log sum_p exp(e_k(p))."""
        x = at_least_float32(f.last)
        evidence = project(f, self.class_rows)
        with torch.autocast(x.device.type, enabled=False):
            scores = self.attention(x.movedim(1, 3)).movedim(3, 1)
            mass = scores.logsumexp((2, 3))
            log_attention = scores - mass[:, :, None, None]
            attention = log_attention.exp()
            evidence = evidence * attention
            logits = evidence.sum((2, 3)) + self.bias.to(x.dtype)
            cells = x.shape[2] * x.shape[3]
            drawn = {"attention": log_attention + math.log(cells), "score": scores, "evidence": cells * evidence}
        return Prediction(logits, drawn[self.draws], extra={"attention": attention, "attention_mass": mass})

    def bag_state(self, tiles: Prediction) -> Tensor:
        """Logits and attention mass of each tile, (b, 2, k)."""
        return torch.stack([tiles.logits, tiles.extra["attention_mass"]], 1)

    def pool_bags(self, state: Tensor, groups: Tensor) -> Tensor:
        """Mean of the tiles' logits, each weighted by the share of the bag's attention that its cells have."""
        return _attended(state, groups)


class AttentionMil(PooledFeatures):
    """Attention over the tiles of a bag: logit_k = W_k . sum_t a_k(t) z_t + B_k, where z_t is the mean feature of tile t.

    An image by itself is a bag of one tile, has all attention, and is that of the head `cam`: only bags teach the attention.
    The maps are the class maps M_k of each tile: a cell's evidence, which tiles drawn one by one share the scale of.
    `extra["tile_scores"]` (b, k) are the e_k of the tiles.
    """

    affine = True  # of one image; attention is among the tiles of a bag
    paper = _PAPER

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        width: int = 128,
        gated: bool = False,
        background: bool = False,
        published_rows: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Args:
        channels: of the last stage.
        num_classes: k.
        width: of the hidden vector.
        gated: multiply by sigmoid(U z + u), the paper's second form.
        background: as for `ClassMapHead`.
        published_rows: as for `ClassMapHead`.
        dropout: as for `Head`.
        """
        super().__init__(channels, num_classes, background=background, published_rows=published_rows, dropout=dropout)
        self.attention = Attention(channels, num_classes, width, gated)

    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Logits and maps of each tile by itself, and its attention scores."""
        tile = super().predict(f, labels)
        x = at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            return Prediction(tile.logits, tile.maps, extra={"tile_scores": self.attention(x.mean((2, 3)))})

    def bag_state(self, tiles: Prediction) -> Tensor:
        """Logits and attention scores of each tile, (b, 2, k): a bag's logit is linear in its tiles' for given attention."""
        return torch.stack([tiles.logits, tiles.extra["tile_scores"]], 1)

    def pool_bags(self, state: Tensor, groups: Tensor) -> Tensor:
        """Mean of the tiles' logits, weighted by their attention."""
        return _attended(state, groups)


def _attended(state: Tensor, groups: Tensor) -> Tensor:
    """Logits and scores of tiles (b, 2, k) -> bag logits (n, k): per class the mean weighted by the softmax of the scores."""
    check_groups(groups, len(state))
    logits, scores = state.unbind(1)
    return torch.stack(
        [(scores[groups == bag].softmax(0) * logits[groups == bag]).sum(0) for bag in range(int(groups.max()) + 1)]
    )


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in the precision of `x`."""
    return functional.linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))
