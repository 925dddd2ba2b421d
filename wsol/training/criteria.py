"""Which epoch is kept under which name. No torch: names validate without it.

Validation metrics are floats by name. `valcl_accuracy` and `valcl_loss` come from the image or slide labels of the validation
role, `valpx<n>_pxap` from n validation masks, the others from no label at all (`selection` defines them). Epochs count from 1:
the untrained network is never a candidate.
"""

from __future__ import annotations

import math
import re
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
        source: what the choice has seen, as the checkpoint badge says it.
        later: among epochs that are equal in all of this keep the later one.
        masks: how many validation masks are opened for the metric.
    """

    metric: str | None
    higher: bool = True
    ties: tuple[tuple[str, bool], ...] = ()
    source: str = "validation labels (B-CL)"
    later: bool = False
    masks: int = 0

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
        return self.metric is None or kept is None or rank > kept or (self.later and rank == kept)


CHECKPOINTS = {
    # Validation sets of a few dozen images tie all the time; the loss still tells the epochs apart.
    "b-cl": Criterion("valcl_accuracy", ties=(("valcl_loss", False),)),
    # Rony et al., MELBA 2023, as released: accuracy saturates on 18 images, and ties go to the last epoch.
    "b-cl-survey": Criterion("valcl_accuracy", later=True),
    "last": Criterion(None, source="last"),
    "map-stability": Criterion("map_stability", source="label-free"),
    "rotation-stability": Criterion("rotation_stability", source="label-free"),
    "stain-stability": Criterion("stain_stability", source="label-free"),
    "scale-consistency": Criterion("scale_consistency", source="label-free"),
    "seed-agreement": Criterion("seed_agreement", source="label-free"),
    # The older name of the same: files and studies that carry it stay valid.
    "label-free": Criterion("map_stability", source="label-free"),
}
"""Checkpoints that can be asked for by name; besides them `masks-<n>`: see `criterion`."""


def criterion(name: str) -> Criterion:
    """The criterion of a checkpoint: one of `CHECKPOINTS`, or `masks-<n>`, the best PxAP on n validation masks (B-LOC).

    Raises:
        ValueError: there is no such checkpoint; the message names the nearest one.
    """
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    if found := re.fullmatch(r"masks-([1-9]\d*)", name):
        return Criterion(f"valpx{found[1]}_pxap", source=name, masks=int(found[1]))
    raise ValueError(closest("checkpoint", name, [*CHECKPOINTS, "masks-6"]) + "; masks-6 may be any number of masks")
