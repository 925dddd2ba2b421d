"""How far a threshold carries, as plain values: what every source would have given, and what the chosen one lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsol.evaluation.counts import PixelCounts
from wsol.evaluation.groups import Cohort
from wsol.evaluation.intervals import plain
from wsol.evaluation.sensitivity import oracle_spread, transfer
from wsol.evaluation.thresholds import Threshold
from wsol.evaluation.units import pooled_at


def by_source(cohort: Cohort, candidates: Mapping[str, Threshold | str], oracle: Threshold | None) -> dict[str, dict[str, Any]]:
    """What each source of a threshold gives on the scored samples; a source without one says why ("refused").

    Args:
        cohort: the samples.
        candidates: source -> its threshold, or the reason why there is none.
        oracle: the best one on the scored masks, which bounds them all; None without positives.
    """
    best = pooled_at(cohort.counts, oracle).dice if oracle else float("nan")
    found: dict[str, dict[str, Any]] = {}
    for source, threshold in {**candidates, **({"test oracle": oracle} if oracle else {})}.items():
        if isinstance(threshold, str):
            found[source] = {"refused": threshold}
            continue
        here = pooled_at(cohort.counts, threshold, cohort.samples)
        found[source] = {
            "value": threshold.value,
            "badge": threshold.badge,
            **{name: plain(getattr(here, name)) for name in ("dice", "iou", "precision", "recall")},
            "flagged_area": _flagged(cohort, threshold),
            "gap": plain(best - here.dice),
        }
    return found


def _flagged(cohort: Cohort, threshold: Threshold) -> float | None:
    """Mean flagged area of the samples without any positive pixel; None without such."""
    chosen = cohort.negatives()
    areas = [pooled_at([c], threshold, [s]).area for c, s in zip(chosen.counts, chosen.samples, strict=True)]
    return float(np.mean(areas)) if areas else None


def carried(cohort: Cohort) -> dict[str, Any] | None:
    """What the chosen threshold loses on the scored samples, how wide the plateau is, and how far per-image oracles lie apart.

    None without any positive pixel.
    """
    counts = cohort.by_sample()
    if not PixelCounts.total(cohort.counts).positives.any():
        return None
    lost, spread = transfer(counts, cohort.threshold), oracle_spread(counts, threshold=cohort.threshold)
    plateau = lost.plateau
    return {
        "gap": plain(lost.gap),
        "plateau": [plateau.low, plateau.high] if plateau else [None, None],
        "plateau_width": plateau.width if plateau else None,
        "oracle_spread": {
            **{k: plain(getattr(spread, k)) for k in ("median", "low_quartile", "high_quartile", "iqr", "lost")},
            "samples": len(spread.values),
        },
    }
