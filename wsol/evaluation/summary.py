"""All numbers of one method from the counts of its samples: pooled and per class, with intervals by patient, as plain values.

The result is what `scores.json` holds per method (None for an undefined number), so that the command line only adds badges and
files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wsol.evaluation.classification import accuracy, balanced_accuracy
from wsol.evaluation.counts import Floats, PixelCounts, average_precision
from wsol.evaluation.intervals import Interval, bootstrap, bootstrap_accuracy, percentile_interval, ratio, resampled_sums
from wsol.evaluation.thresholds import Threshold, best_threshold

CURVE_POINTS = 101
"""Thresholds 0, 0.01, ..., 1 of the stored curve."""


def plain(value: float | None) -> float | None:
    """None for a number that is not there, as JSON has no NaN."""
    return None if value is None or math.isnan(value) else float(value)


def _ends(interval: Interval) -> list[float | None]:
    return [plain(interval.low), plain(interval.high)]


def pixel_intervals(
    counts: Sequence[PixelCounts],
    patients: Sequence[str],
    threshold: float,
    *,
    generator: np.random.Generator,
    replicates: int = 1000,
) -> dict[str, Interval]:
    """Intervals of the pooled PxAP and of the pooled Dice at a fixed threshold, from one resampling of patients.

    The threshold stays as it is in every replicate: the interval is that of new test patients, not of a new validation set.

    Returns:
        {"pxap": ..., "dice": ...}; see `bootstrap` for unknown and single patients.

    Raises:
        ValueError: no samples, bins that differ, or a threshold that is no edge.
    """
    total = PixelCounts.total(counts)
    at = total.edge_index(threshold)
    names = [str(p) for p in patients]
    if len(names) != len(counts):
        raise ValueError(f"need one patient per sample, got {len(names)} for {len(counts)}")
    clusters = 0 if "" in names else len(set(names))
    if clusters < 2:
        none = percentile_interval(np.full(1, np.nan), clusters)
        return {"pxap": none, "dice": none}
    width = total.bins + 1
    table = np.concatenate([np.stack([c.positives for c in counts]), np.stack([c.negatives for c in counts])], axis=1)
    sums = resampled_sums(table, names, replicates=replicates, generator=generator)
    positives, negatives = sums[:, :width], sums[:, width:]
    tp, fp, every = positives[:, at:].sum(1), negatives[:, at:].sum(1), positives.sum(1)
    dice = np.where(every > 0, ratio(np.stack([2 * tp, tp + fp + every], axis=1)), np.nan)
    return {
        "pxap": percentile_interval(average_precision(positives, negatives), clusters),
        "dice": percentile_interval(dice, clusters),
    }


def _group(
    counts: Sequence[PixelCounts],
    patients: Sequence[str],
    threshold: float,
    oracle: float | None,
    exact: float | None,
    generator: np.random.Generator,
    replicates: int,
) -> dict[str, Any]:
    """One row of a table: pooled over the pixels of these samples."""
    total = PixelCounts.total(counts)
    here = total.at(threshold)
    best = None if oracle is None else total.at(oracle)
    intervals = pixel_intervals(counts, patients, threshold, generator=generator, replicates=replicates)
    return {
        "pxap": plain(total.pxap),
        "pxap_interval": _ends(intervals["pxap"]),
        "ap": plain(exact),
        "prevalence": plain(total.prevalence),
        "dice": plain(here.dice),
        "dice_interval": _ends(intervals["dice"]),
        "iou": plain(here.iou),
        "precision": plain(here.precision),
        "recall": plain(here.recall),
        "oracle_dice": plain(best.dice) if best else None,
        "oracle_iou": plain(best.iou) if best else None,
        "samples": len(counts),
        "patients": len({p for p in patients if p}),
    }


def _groups(
    counts: Sequence[PixelCounts],
    labels: Sequence[str],
    patients: Sequence[str],
    threshold: float,
    oracle: Threshold | None,
    exact: Mapping[str, float | None],
    generator: np.random.Generator,
    replicates: int,
) -> dict[str, dict[str, Any]]:
    """A row for all samples and one per class, classes by name."""
    best = oracle.value if oracle else None
    groups = {}
    for name in ["all", *sorted(set(labels))]:
        chosen = [i for i, label in enumerate(labels) if name in ("all", label)]
        mine, who = [counts[i] for i in chosen], [patients[i] for i in chosen]
        groups[name] = _group(mine, who, threshold, best, exact.get(name), generator, replicates)
    return groups


def _negatives(
    counts: Sequence[PixelCounts], patients: Sequence[str], threshold: float, generator: np.random.Generator, replicates: int
) -> dict[str, Any] | None:
    """Mean flagged area of the samples without any positive pixel, each counting once whatever its size; None without such."""
    chosen = [i for i, c in enumerate(counts) if c.pixels and not c.positives.any()]
    if not chosen:
        return None
    areas = np.array([counts[i].at(threshold).area for i in chosen])
    who = [patients[i] for i in chosen]
    table = np.column_stack([areas, np.ones(len(areas))])
    interval = bootstrap(table, who, ratio, generator=generator, replicates=replicates)
    return {
        "flagged_area": float(areas.mean()),
        "interval": _ends(interval),
        "samples": len(chosen),
        "patients": len({p for p in who if p}),
    }


def _curve(total: PixelCounts) -> dict[str, list[float | None]]:
    """The pooled curve at 101 of its edges, ascending."""
    curve = total.curve()
    at = np.rint(np.linspace(0, total.bins, CURVE_POINTS)).astype(int)

    def picked(values: Floats) -> list[float | None]:
        return [plain(float(v)) for v in values[at]]

    return {name: picked(getattr(curve, name)) for name in ("threshold", "dice", "iou", "precision", "recall")}


def summarize(
    counts: Sequence[PixelCounts],
    *,
    samples: Sequence[str],
    labels: Sequence[str],
    patients: Sequence[str],
    threshold: Threshold,
    generator: np.random.Generator,
    exact: Mapping[str, float | None] | None = None,
    replicates: int = 1000,
) -> dict[str, Any]:
    """Everything `scores.json` says of one method that follows from pixels.

    Args:
        counts: one per sample, all with the same bins.
        samples: (n,) names, all different.
        labels: (n,) class names; each becomes a group beside "all".
        patients: (n,) names, "" where unknown (then the groups that hold such a sample have no interval).
        threshold: chosen elsewhere. A value between two edges is rounded to the nearest, and the result says which was used.
        generator: for the bootstrap; same state, same intervals.
        exact: exact average precision per group name, from one `PixelCurve(exact=True)` per group; missing ones become None.
        replicates: bootstrap replicates.

    Returns:
        Plain values: "threshold" and "oracle" (dicts of `Threshold`; the oracle is best on these very samples pooled, None
        without positives), "groups" {"all" and each class: pxap, pxap_interval, ap, prevalence, dice, dice_interval, iou,
        precision, recall, oracle_dice, oracle_iou (both at the one pooled oracle), samples, patients}, "negatives" (None if
        every sample has a positive pixel), "curve" (101 points), "samples" {name: dice, iou, pxap, prevalence, flagged_area,
        label, patient, overlay (None)}.

    Raises:
        ValueError: no samples, lists of different lengths, a name twice, or a class called "all".
    """
    _check(counts, samples, labels, patients)
    total = PixelCounts.total(counts)
    value = total.nearest_edge(threshold.value)
    used = Threshold(value, threshold.source, threshold.direction, threshold.masks)
    oracle = best_threshold(total, source="test oracle") if total.positives.any() else None
    return {
        "threshold": used.to_dict(),
        "oracle": oracle.to_dict() if oracle else None,
        "groups": _groups(counts, labels, patients, value, oracle, exact or {}, generator, replicates),
        "negatives": _negatives(counts, patients, value, generator, replicates),
        "curve": _curve(total),
        "samples": {
            sample: _sample(c, value, label, patient)
            for sample, c, label, patient in zip(samples, counts, labels, patients, strict=True)
        },
    }


def _sample(counts: PixelCounts, threshold: float, label: str, patient: str) -> dict[str, Any]:
    here = counts.at(threshold)
    return {
        "dice": plain(here.dice),
        "iou": plain(here.iou),
        "pxap": plain(counts.pxap),
        "prevalence": plain(counts.prevalence),
        "flagged_area": plain(here.area),
        "label": label,
        "patient": patient,
        "overlay": None,
    }


def _check(counts: Sequence[PixelCounts], samples: Sequence[str], labels: Sequence[str], patients: Sequence[str]) -> None:
    if not counts:
        raise ValueError("no samples to summarize: no sample of this split has a mask")
    lengths = {"counts": len(counts), "samples": len(samples), "labels": len(labels), "patients": len(patients)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"need one sample, label and patient per counts, got {lengths}")
    if len(set(samples)) < len(samples):
        twice = sorted({s for s in samples if list(samples).count(s) > 1})
        raise ValueError(f"samples must be named once each, got twice: {', '.join(twice)}")
    if "all" in labels:
        raise ValueError("a class is called 'all', which names the group of all classes; rename the class")


def summarize_classification(
    labels: ArrayLike, predicted: ArrayLike, patients: Sequence[str], *, generator: np.random.Generator, replicates: int = 1000
) -> dict[str, Any]:
    """Accuracy with an interval by patient, as plain values.

    Args:
        labels: (n,) true class indices.
        predicted: (n,) predicted class indices.
        patients: (n,) names, "" where unknown (then there is no interval).
        generator: for the bootstrap.
        replicates: bootstrap replicates.
    """
    interval = bootstrap_accuracy(labels, predicted, patients, generator=generator, replicates=replicates)
    return {
        "accuracy": accuracy(labels, predicted),
        "balanced_accuracy": balanced_accuracy(labels, predicted),
        "interval": _ends(interval),
        "samples": len(np.asarray(labels)),
        "patients": interval.clusters,
    }
