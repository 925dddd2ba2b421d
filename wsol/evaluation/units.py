"""Macro averages: a number per image, slide or patient, and their mean, so that a large unit does not outvote the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from wsol._names import closest
from wsol.evaluation.counts import PixelCounts
from wsol.evaluation.outcomes import AT_THRESHOLD, Confusion
from wsol.evaluation.thresholds import Threshold

OF_COUNTS = {"pxap": "pxap", "normalized-ap": "normalized_ap", "roc-auc": "roc_auc", "prevalence": "prevalence"}
"""Metrics without a threshold: name -> the property of `PixelCounts`."""


class Macro(NamedTuple):
    """Mean over the units where the metric is defined (NaN if nowhere), the number of units, and of those it is the mean of."""

    mean: float
    units: int
    defined: int


def macro(
    counts: Sequence[PixelCounts],
    units: Sequence[str],
    metric: str | Callable[..., float],
    threshold: float | Threshold | None = None,
    *,
    samples: Sequence[str] | None = None,
) -> Macro:
    """Mean of a metric over units: the pixels of a unit are pooled, the metric is taken per unit, each unit counts once.

    Args:
        counts: one per sample.
        units: (n,) the image, slide or patient of each sample. An empty name means unknown: then nothing says which samples
            belong together, and the mean is NaN over 0 units (as for `bootstrap`).
        metric: a name of `OF_COUNTS` or of `outcomes.AT_THRESHOLD` ("pxap", "dice", "iou", ...), or what `METRICS` holds for
            pixels: a function of counts, and of the threshold if one is given.
        threshold: for metrics at one: an edge, or a `Threshold`, which is put on the nearest edges. A threshold per sample
            flags each sample by its own; only named metrics can then be pooled. Metrics named in `OF_COUNTS` do not look at it.
        samples: (n,) names of the samples; needed for a threshold per sample.

    Returns:
        (mean, units, defined): a unit without positives has no Dice and is left out of the mean, not counted as 0.

    Raises:
        ValueError: no samples, lengths or bins that differ, an unknown metric, a missing threshold or one that is no edge.
    """
    if not counts or len(units) != len(counts):
        raise ValueError(f"need one unit per sample and at least one sample, got {len(units)} for {len(counts)}")
    if samples is not None and len(samples) != len(counts):
        raise ValueError(f"need one name per sample, got {len(samples)} for {len(counts)}")
    names = [str(u) for u in units]
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        members.setdefault(name, []).append(i)

    def value(mine: list[int]) -> float:
        return _of_unit([counts[i] for i in mine], metric, threshold, None if samples is None else [samples[i] for i in mine])

    values = np.array([value(mine) for mine in members.values()])
    if "" in names:
        return Macro(float("nan"), 0, 0)
    defined = values[~np.isnan(values)]
    return Macro(float(defined.mean()) if defined.size else float("nan"), len(members), defined.size)


def _of_unit(
    counts: Sequence[PixelCounts],
    metric: str | Callable[..., float],
    threshold: float | Threshold | None,
    samples: Sequence[str] | None,
) -> float:
    """The metric of the pooled pixels of one unit."""
    if isinstance(metric, str):
        if metric in OF_COUNTS:
            return getattr(PixelCounts.total(counts), OF_COUNTS[metric])
        if metric not in AT_THRESHOLD:
            raise ValueError(closest("pixel metric", metric, [*OF_COUNTS, *AT_THRESHOLD]))
        if threshold is None:
            raise ValueError(f"{metric} needs a threshold, got none")
        return getattr(pooled_at(counts, threshold, samples), AT_THRESHOLD[metric])
    total = PixelCounts.total(counts)
    if threshold is None:
        return metric(total)
    if isinstance(threshold, Threshold):
        if threshold.values is not None:
            raise ValueError("a threshold per sample needs a metric by name: a function of pooled counts takes one threshold")
        threshold = threshold.on_edges(total.bins).value
    return metric(total, threshold)


def pooled_at(counts: Sequence[PixelCounts], threshold: float | Threshold, samples: Sequence[str] | None = None) -> Confusion:
    """Pixels of all samples together, each flagged by the threshold or by its own; see `macro` for the arguments."""
    if not isinstance(threshold, Threshold) or threshold.values is None:
        total = PixelCounts.total(counts)
        return total.at(threshold.on_edges(total.bins).value if isinstance(threshold, Threshold) else threshold)
    if samples is None:
        raise ValueError("a threshold per sample needs the names of the samples, got none")
    each = [c.at(c.nearest_edge(threshold.at(sample))) for c, sample in zip(counts, samples, strict=True)]
    return sum(each[1:], each[0])
