"""Shap-CAM: each place's Shapley value in a game whose players are the places and whose prize is the net's confidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from wsol._names import closest
from wsol.cams.base import Evidence, OneLayer
from wsol.cams.hiding import probabilities
from wsol.models import Localizer

_ROUND = 4
"""Antithetic pairs between two looks at the error."""


class ShapCam(OneLayer):
    """Shap-CAM: phi_p, the Shapley value of place p: its mean gain v(S + p) - v(S) over the orders in which places may join.

    v(S) is the net's confidence in the class when the places outside S hold the channel means of the image. The orders are drawn:
    each comes with its reverse (antithetic), and gives one gain for every place from one run over its nested prefixes, so the
    values of an image always add up to v(all) - v(none). An image is done when its standard error is small (`tolerance`) or its
    orders are used up. All images of a batch share the orders.

    There is no authors' code, and the paper leaves score and number of orders open to us: this is our reading. At a GAP head the
    logit's values are exactly CAM centered, W . (A(p) - mean A) / (h w), whatever the orders, and probabilities need no run of
    the net. Large maps are played by square blocks of places, each place receiving its share of the block's value.
    """

    needs_gradient = False
    needs_tail = True
    local = False
    rectified = True
    paper = "Zheng et al., Shap-CAM: Visual Explanations for Convolutional Neural Networks based on Shapley Value, ECCV 2022"

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        score: Literal["prob", "logit"] = "prob",
        orders: int = 64,
        tolerance: float = 0.1,
        players: int = 256,
        closed_form: bool = True,
    ) -> None:
        """Args:
        layers: the one stage to read.
        score: the softmax probability of the class (sigmoid for a net with one logit), or its logit.
        orders: at most so many, an even number; each costs as many runs of the tail as there are players.
        tolerance: stop when the root mean square of the standard errors is below this share of that of the values; 0 uses
            all orders.
        players: at most so many; a map with more places is cut into blocks.
        closed_form: use the formula where there is one.
        """
        super().__init__(layers=layers)
        if score not in ("prob", "logit"):
            raise ValueError(closest("score", score, ("prob", "logit")))
        if orders < 2 or orders % 2 or players < 1 or tolerance < 0:
            raise ValueError(
                "expected an even number of orders from 2, players from 1, tolerance from 0; "
                f"got orders={orders}, players={players}, tolerance={tolerance}"
            )
        self.score = score
        self.orders = orders
        self.tolerance = tolerance
        self.players = players
        self.closed_form = closed_form

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Values of the blocks, shared out to their places."""
        features = evidence.stage(self.layer)
        block = blocks(features.shape[2], features.shape[3], self.players).to(features.device)
        values = self._values(self._game(evidence, features, block), evidence, int(block.max()) + 1)
        return (values / block.flatten().bincount())[:, block]

    def _values(self, game: Callable[[Tensor, Tensor], Tensor], evidence: Evidence, players: int) -> Tensor:
        """The mean gains, (b, players), by rounds until each image is precise enough."""
        device, count = evidence.logits.device, len(evidence.logits)
        total, squares = (torch.zeros(count, players, dtype=torch.float64, device=device) for _ in range(2))
        pairs = torch.zeros(count, 1, dtype=torch.float64, device=device)
        active = torch.arange(count, device=device)
        for start in range(0, self.orders // 2, _ROUND):
            size = min(_ROUND, self.orders // 2 - start)
            order = torch.rand(size, players, generator=evidence.generator).argsort(1)
            order = torch.cat([order, order.flip(1)]).to(device)
            gains = game(active, order).double().diff(dim=2)
            by_player = torch.zeros_like(gains).scatter_(2, order.expand_as(gains), gains)
            means = by_player.unflatten(1, (2, size)).mean(1)
            total[active] += means.sum(1)
            squares[active] += means.square().sum(1)
            pairs[active] += size
            active = active[~self._precise(total[active], squares[active], pairs[active])]
            if not len(active):
                break
        return (total / pairs).float()

    def _precise(self, total: Tensor, squares: Tensor, pairs: Tensor) -> Tensor:
        """Whether each image's values are known well enough, bool (n,)."""
        mean = total / pairs
        variance = (squares / pairs - mean.square()).clamp(min=0) / (pairs - 1).clamp(min=1)
        error, size = (x.mean(1).sqrt() for x in (variance, mean.square()))
        return (pairs[:, 0] > 1) & (error <= self.tolerance * size) & (self.tolerance > 0)

    def _game(self, evidence: Evidence, features: Tensor, block: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Images (n,) and orders (m, players) -> v of the prefixes of 0 to all players, (n, m, players + 1)."""
        means = features.mean((2, 3), keepdim=True)
        affine = evidence.affine(self.layer) if self.closed_form else None
        if affine is not None:
            places = affine.maps(features - means).flatten(2)
            shares = places.new_zeros(*places.shape[:2], int(block.max()) + 1).index_add_(2, block.flatten(), places)
            none = means[:, :, 0, 0] @ affine.weight.T + affine.bias

            def formula(images: Tensor, orders: Tensor) -> Tensor:
                steps = shares[images][:, :, orders].cumsum(3)
                logits = none[images][:, :, None, None] + torch.cat([torch.zeros_like(steps[..., :1]), steps], 3)
                return self._prize(evidence, logits.movedim(1, 3), images)

            return formula

        def ask(images: Tensor, orders: Tensor) -> Tensor:
            count, players = orders.shape
            ranks = orders.argsort(1)[:, block]  # (m, h, w): when each place joins
            prefixes = players + 1

            def rows(part: slice) -> Tensor:
                number = torch.arange(part.start, part.stop, device=images.device)
                i, order, size = images[number // (count * prefixes)], number // prefixes % count, number % prefixes
                inside = ranks[order] < size[:, None, None]
                return torch.where(inside[:, None], features[i], means[i])

            logits = evidence.tail(rows, self.layer, len(images) * count * prefixes)
            return self._prize(evidence, logits.reshape(len(images), count, prefixes, -1), images)

        return ask

    def _prize(self, evidence: Evidence, logits: Tensor, images: Tensor) -> Tensor:
        """Logits (n, m, players + 1, k) -> v (n, m, players + 1)."""
        owners = images.repeat_interleave(math.prod(logits.shape[1:3]))
        flat = logits.flatten(0, 2)
        return evidence.of_target(probabilities(flat) if self.score == "prob" else flat, owners).reshape(logits.shape[:3])


def blocks(height: int, width: int, most: int) -> Tensor:
    """Which block each place belongs to, int64 (h, w): the smallest squares that make at most `most` blocks."""
    side = 1
    while math.ceil(height / side) * math.ceil(width / side) > most:
        side += 1
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    return rows[:, None] * math.ceil(width / side) + columns
