"""Which epoch is kept under which name. No torch: names validate without it.

Validation metrics are floats by name. The named checkpoints below expect `valcl_accuracy` and `valcl_loss` (image or slide labels
of the validation role) and `map_stability` (no label at all, see `selection`). The untrained network is never a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wsol._names import closest


@dataclass(frozen=True)
class Criterion:
    """Best epoch by one metric, ties by further metrics in order, then by the earlier epoch.

    Attributes:
        metric: name of a validation metric; None keeps the last epoch.
        higher: whether more of it is better.
        ties: (metric, higher is better) pairs that decide between equals.
        source: what the choice has seen, for the checkpoint badge.
    """

    metric: str | None
    higher: bool = True
    ties: tuple[tuple[str, bool], ...] = ()
    source: str = "validation labels"

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, ...] | None:
        """A tuple that grows with merit, or None where the metric is not a number: such an epoch is never kept.

        Raises:
            ValueError: validation did not report a metric that is needed; the message names the nearest one.
        """
        if self.metric is None:
            return ()
        rank = []
        for name, higher in ((self.metric, self.higher), *self.ties):
            if name not in metrics:
                raise ValueError(closest("validation metric", name, metrics) + "; a checkpoint criterion needs it")
            rank.append(float(metrics[name]) * (1 if higher else -1))
        if math.isnan(rank[0]):
            return None
        return tuple(-math.inf if math.isnan(value) else value for value in rank)

    def better(self, metrics: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
        """Whether `metrics` of a later epoch replaces `best` (None: nothing is kept yet)."""
        rank = self.rank(metrics)
        if rank is None:
            return False
        kept = None if best is None else self.rank(best)
        return self.metric is None or kept is None or rank > kept


CHECKPOINTS = {
    # Validation sets of a few dozen images tie all the time; the loss still tells the epochs apart.
    "b-cl": Criterion("valcl_accuracy", ties=(("valcl_loss", False),)),
    "last": Criterion(None, source="last"),
    "label-free": Criterion("map_stability", source="label-free"),
}
"""Checkpoints that can be asked for by name."""
