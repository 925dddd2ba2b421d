"""Noisy-or pooling: a class is there unless every cell says no."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wsol.models.heads.base import check_groups
from wsol.models.heads.linear import LinearHead


class NoisyOr(LinearHead):
    """Noisy-or: cell probabilities p = sigmoid(M_k(p) + B_k); logit_k is that of 1 - prod_p (1 - p).

    A bag's logit is the noisy-or of its tiles', hence of all their cells. The rule takes cells for independent, so its logit
    grows with their number: where the net knows nothing (p = 1/2) it is about n log 2 for n cells.
    """

    paper = (
        "Maron and Lozano-Perez, A Framework for Multiple-Instance Learning, NIPS 1997; "
        "Viola et al., Multiple Instance Boosting for Object Detection, NIPS 2005"
    )

    def __init__(
        self, channels: int, num_classes: int, *, background: bool = False, published_rows: bool = False, dropout: float = 0.0
    ) -> None:
        """As for `ClassMapHead`; a bag has no `bag_top`, all of its tiles count."""
        super().__init__(channels, num_classes, background=background, published_rows=published_rows, dropout=dropout)

    def pool(self, maps: Tensor) -> Tensor:
        """The noisy-or of cell logits (b, k, h, w)."""
        return noisy_or(maps.flatten(2), 2)

    def to_logits(self, maps: Tensor) -> Tensor:
        """The bias belongs to each cell: noisy-or does not commute with adding a constant."""
        return self.pool(maps + self.bias.to(maps.dtype)[:, None, None])

    def pool_bags(self, state: Tensor, groups: Tensor) -> Tensor:
        """Tile logits (b, k) -> bag logits (n, k)."""
        check_groups(groups, len(state))
        return torch.stack([noisy_or(state[groups == bag], 0) for bag in range(int(groups.max()) + 1)])


def noisy_or(logits: Tensor, dim: int) -> Tensor:
    """The logit of 1 - prod (1 - sigmoid(l)) over `dim`, finite for any finite l whose sum is finite.

    With S = sum softplus(l), which is -log prod (1 - p), it is log(exp(S) - 1). Where all l are so low that S would underflow,
    log S is taken instead.
    """
    total = functional.softplus(logits).sum(dim)
    small = total < 1e-3
    usual = torch.where(small, 1, total)  # both branches stay finite: a NaN slope of the one not taken would pass `where`
    few = torch.logsumexp(_log_softplus(torch.where(small.unsqueeze(dim), logits, -1)), dim)
    return torch.where(small, few + torch.where(small, total, 0) / 2, usual + torch.log(-torch.expm1(-usual)))


def _log_softplus(x: Tensor) -> Tensor:
    """log(softplus(x)); for low x by its series x - exp(x) / 2, since softplus underflows there."""
    low = x < -10
    high = torch.where(low, 0, x)
    return torch.where(low, x - torch.exp(torch.where(low, x, -11)) / 2, torch.log(functional.softplus(high)))
