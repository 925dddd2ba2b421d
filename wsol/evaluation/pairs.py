"""Two methods on the same samples as two tables that add up by patient: what paired intervals and tests work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from wsol._names import closest
from wsol.evaluation.counts import Floats, PixelCounts, at_least, average_precision, quotient
from wsol.evaluation.intervals import cluster_sums, ratio

METRICS = ("pxap", "dice", "iou")
"""What can be compared; the last two need thresholds."""

AVERAGES = ("pooled", "image")
"""Over the pixels of all images together, or the mean over images that have a positive pixel, each counting once."""

Thresholds = float | Sequence[float] | None


class Pair(NamedTuple):
    """Sums per patient of both methods, (c, d) each, what turns sums (r, d) into values (r,), and how many patients are known."""

    a: Floats
    b: Floats
    statistic: Callable[[Floats], Floats]
    clusters: int


def pair_up(
    a: Sequence[PixelCounts],
    b: Sequence[PixelCounts],
    patients: Sequence[str],
    metric: str,
    thresholds: tuple[Thresholds, Thresholds],
    average: str,
) -> Pair:
    """The pair of two methods' counts: see `paired_difference` for the arguments and what raises."""
    _check(a, b, patients, metric, average)
    clusters = 0 if "" in patients else len(set(patients))
    if average == "image":
        tables = [_per_image(counts, metric, at) for counts, at in zip((a, b), thresholds, strict=True)]
        return Pair(cluster_sums(tables[0], patients), cluster_sums(tables[1], patients), ratio, clusters)
    if metric == "pxap":
        return Pair(*_aligned(_by_patient(a, patients), _by_patient(b, patients)), _pxap, clusters)
    first, second = (_confusions(counts, metric, at) for counts, at in zip((a, b), thresholds, strict=True))
    return Pair(cluster_sums(first, patients), cluster_sums(second, patients), _dice if metric == "dice" else _iou, clusters)


def _pxap(sums: Floats) -> Floats:
    """PxAP of (r, 2 m) positives beside negatives."""
    positives, negatives = np.split(sums, 2, axis=1)
    return average_precision(positives, negatives)


def _dice(sums: Floats) -> Floats:
    """Dice of (r, 3) true positives, false positives, positives; NaN without positives."""
    tp, fp, every = sums.T
    return quotient(2 * tp, np.where(every > 0, tp + fp + every, 0.0))


def _iou(sums: Floats) -> Floats:
    """IoU of the same columns."""
    tp, fp, every = sums.T
    return quotient(tp, np.where(every > 0, fp + every, 0.0))


def _per_image(counts: Sequence[PixelCounts], metric: str, thresholds: Thresholds) -> Floats:
    """(value, 1) per image, (0, 0) where it has no positive pixel."""
    if metric == "pxap":
        values = np.array([c.pxap for c in counts])
    else:
        values = (_dice if metric == "dice" else _iou)(_confusions(counts, metric, thresholds))
    defined = ~np.isnan(values)
    return np.column_stack([np.where(defined, values, 0.0), defined])


def _confusions(counts: Sequence[PixelCounts], metric: str, thresholds: Thresholds) -> Floats:
    """(true positives, false positives, positives) per sample, at one threshold or at each sample's own."""
    if thresholds is None:
        raise ValueError(f"{metric} needs a threshold per method, got None; only pxap goes without")
    each = [float(thresholds)] * len(counts) if isinstance(thresholds, float | int) else [float(t) for t in thresholds]
    if len(each) != len(counts):
        raise ValueError(f"need one threshold, or one per sample: got {len(each)} for {len(counts)} samples")
    found = [c.at(t) for c, t in zip(counts, each, strict=True)]
    return np.array([(f.tp, f.fp, f.tp + f.fn) for f in found], np.float64)


def _by_patient(counts: Sequence[PixelCounts], patients: Sequence[str]) -> list[PixelCounts]:
    """Counts of each patient, in the order of their names: what rows of thousands of bins cost, only patients pay."""
    groups: dict[str, list[PixelCounts]] = {}
    for patient, one in zip(patients, counts, strict=True):
        groups.setdefault(patient, []).append(one)
    return [PixelCounts.total(groups[patient]) for patient in sorted(groups)]


def _aligned(a: Sequence[PixelCounts], b: Sequence[PixelCounts]) -> tuple[Floats, Floats]:
    """Histograms of both methods, (n, 2 m) each, over one ascending grid: the rank of a score among all scores of its method.

    A swap mixes scores of two methods. Mixed as they are, a map in [0, 0.1] beside one in [0, 1] would lose by its scale alone,
    of which PxAP knows nothing. So each bin goes to the number of pixels, over all samples, at or above it. This is monotone:
    no PxAP changes. It is our choice, and makes the test for PxAP exact up to the error of these ranks only.
    """
    histograms = [PixelCounts.total(counts).histogram for counts in (a, b)]
    filled = [np.flatnonzero(histogram) for histogram in histograms]
    ranks = [at_least(histogram)[bins] for histogram, bins in zip(histograms, filled, strict=True)]
    grid = np.unique(np.concatenate(ranks))  # ascending numbers of pixels: descending scores
    tables = []
    for counts, bins, rank in zip((a, b), filled, ranks, strict=True):
        table, place = np.zeros((len(counts), 2, grid.size)), grid.size - 1 - np.searchsorted(grid, rank)
        for row, one in zip(table, counts, strict=True):
            row[:, place] = one.positives[bins], one.negatives[bins]
        tables.append(table.reshape(len(counts), -1))
    return tables[0], tables[1]


def _check(a: Sequence[PixelCounts], b: Sequence[PixelCounts], patients: Sequence[str], metric: str, average: str) -> None:
    if metric not in METRICS:
        raise ValueError(closest("metric of a comparison", metric, METRICS))
    if average not in AVERAGES:
        raise ValueError(closest("average", average, AVERAGES))
    if not len(a) == len(b) == len(patients) or not len(a):
        raise ValueError(f"need counts of both methods and a patient per sample: got {len(a)}, {len(b)} and {len(patients)}")
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        masks = [(int(c.positives.sum()), int(c.negatives.sum())) for c in (one, other)]
        if masks[0] != masks[1]:
            raise ValueError(
                f"sample {i} has {masks[0]} positive and negative pixels with one method, {masks[1]} with the other; paired"
                " methods must be scored on the same masks, in the same order"
            )
