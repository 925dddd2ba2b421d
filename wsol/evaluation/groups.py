"""The rows of a table: all samples pooled, and the samples of each class, with intervals by patient and macro means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsol.evaluation.counts import PixelCounts, average_precision
from wsol.evaluation.intervals import NONE, Interval, plain, ratio, resampled_sums, student_interval
from wsol.evaluation.outcomes import Confusion
from wsol.evaluation.thresholds import Threshold
from wsol.evaluation.units import macro, pooled_at


@dataclass(frozen=True)
class Cohort:
    """Samples that are scored together.

    Attributes:
        counts: one per sample, all with the same bins.
        samples: (n,) names, all different.
        labels: (n,) class names.
        patients: (n,) names, "" where unknown.
        slides: (n,) names, "" where unknown.
        threshold: at which they are read, on the edges of the bins.
    """

    counts: Sequence[PixelCounts]
    samples: Sequence[str]
    labels: Sequence[str]
    patients: Sequence[str]
    slides: Sequence[str]
    threshold: Threshold

    def part(self, chosen: Sequence[int]) -> Cohort:
        """Some of the samples, by index."""

        def some(column: Sequence[str]) -> list[str]:
            return [column[i] for i in chosen]

        names = (some(self.samples), some(self.labels), some(self.patients), some(self.slides))
        return Cohort([self.counts[i] for i in chosen], *names, self.threshold)

    def of(self, label: str) -> Cohort:
        """The samples of one class, or all of them ("all")."""
        return self.part([i for i, name in enumerate(self.labels) if label in ("all", name)])

    def negatives(self) -> Cohort:
        """The samples without any positive pixel."""
        return self.part([i for i, c in enumerate(self.counts) if c.pixels and not c.positives.any()])

    def confusions(self) -> list[Confusion]:
        """Each sample at its threshold."""
        return [c.at(self.threshold.at(s)) for c, s in zip(self.counts, self.samples, strict=True)]

    def pooled(self) -> Confusion:
        """All pixels together, each sample at its threshold."""
        return pooled_at(self.counts, self.threshold, self.samples)

    def by_sample(self) -> dict[str, PixelCounts]:
        """Sample -> counts."""
        return dict(zip(self.samples, self.counts, strict=True))


def pixel_intervals(
    counts: Sequence[PixelCounts],
    patients: Sequence[str],
    threshold: float | Sequence[float],
    *,
    generator: np.random.Generator,
    replicates: int = 1000,
) -> dict[str, Interval]:
    """Intervals of the pooled PxAP and of the pooled Dice at fixed thresholds, from one resampling of patients.

    The threshold stays as it is in every replicate: the interval is that of new test patients, not of a new validation set. With
    Student's t, since percentiles of six patients cover 8 times of 10 (see `student_interval`).

    Args:
        counts: one per sample.
        patients: one name per sample, "" where unknown.
        threshold: an edge for all samples, or one for each.
        generator: for the draws.
        replicates: number of draws.

    Returns:
        {"pxap": ..., "dice": ...}; see `bootstrap` for unknown and single patients.

    Raises:
        ValueError: no samples, bins that differ, or a threshold that is no edge.
    """
    each = [threshold] * len(counts) if isinstance(threshold, int | float) else list(threshold)
    total = PixelCounts.total(counts)
    at = [total.edge_index(t) for t in each]
    names = [str(p) for p in patients]
    if len(names) != len(counts) or len(at) != len(counts):
        raise ValueError(f"need one patient and one threshold per sample, got {len(names)} and {len(at)} for {len(counts)}")
    clusters = 0 if "" in names else len(set(names))
    if clusters < 2:
        return {"pxap": Interval(NONE, clusters), "dice": Interval(NONE, clusters)}
    width = total.bins + 1
    positives, negatives = np.stack([c.positives for c in counts]), np.stack([c.negatives for c in counts])
    found = np.array([[p[i:].sum(), n[i:].sum()] for p, n, i in zip(positives, negatives, at, strict=True)])
    table = np.concatenate([positives, negatives, found], axis=1)
    sums = resampled_sums(table, names, replicates=replicates, generator=generator)
    tp, fp, every = sums[:, -2], sums[:, -1], sums[:, :width].sum(1)
    dice = np.where(every > 0, ratio(np.stack([2 * tp, tp + fp + every], axis=1)), np.nan)
    pxap = average_precision(sums[:, :width], sums[:, width : 2 * width])
    here = pooled_dice(found.sum(0), int(positives.sum()))
    return {
        "pxap": student_interval(pxap, total.pxap, clusters, within=(0.0, 1.0)),
        "dice": student_interval(dice, here, clusters, within=(0.0, 1.0)),
    }


def pooled_dice(found: NDArray[np.int64], positives: int) -> float:
    """Dice from (TP, FP) and the number of positive pixels; NaN without positives."""
    return 2 * int(found[0]) / (int(found.sum()) + positives) if positives else float("nan")


@dataclass(frozen=True)
class Extras:
    """What a row holds beside its counts: the oracle threshold of all samples, and exact numbers per group where counted."""

    oracle: Threshold | None
    ap: Mapping[str, float | None]
    auc: Mapping[str, float | None]


def row(name: str, cohort: Cohort, extras: Extras, generator: np.random.Generator, replicates: int) -> dict[str, Any]:
    """One row of a table, as plain values: pooled over the pixels of these samples."""
    total, here = PixelCounts.total(cohort.counts), cohort.pooled()
    best = total.at(extras.oracle.value) if extras.oracle else None
    each = [cohort.threshold.at(s) for s in cohort.samples]
    intervals = pixel_intervals(cohort.counts, cohort.patients, each, generator=generator, replicates=replicates)
    auc = extras.auc.get(name)
    return {
        "pxap": plain(total.pxap),
        "pxap_interval": intervals["pxap"].ends,
        "ap": plain(extras.ap.get(name)),
        "normalized_ap": plain(total.normalized_ap),
        "auc": plain(total.roc_auc if auc is None else auc),
        "prevalence": plain(total.prevalence),
        "dice": plain(here.dice),
        "dice_interval": intervals["dice"].ends,
        "dice_background": plain(here.dice_background),
        "iou": plain(here.iou),
        "precision": plain(here.precision),
        "recall": plain(here.recall),
        "specificity": plain(here.specificity),
        "oracle_dice": plain(best.dice) if best else None,
        "oracle_iou": plain(best.iou) if best else None,
        "samples": len(cohort.counts),
        "patients": len({p for p in cohort.patients if p}),
    }


def rows_by_class(cohort: Cohort, extras: Extras, generator: np.random.Generator, replicates: int) -> dict[str, dict[str, Any]]:
    """A row for all samples and one per class, classes by name."""
    names = ["all", *sorted(set(cohort.labels))]
    return {name: row(name, cohort.of(name), extras, generator, replicates) for name in names}


def macro_means(cohort: Cohort) -> dict[str, dict[str, Any]]:
    """Means over images, slides and patients, each counting once whatever its size; a level with unknown units is left out."""
    found = {}
    for level, units in (("image", cohort.samples), ("slide", cohort.slides), ("patient", cohort.patients)):
        if "" in units:
            continue
        means = {m: macro(cohort.counts, units, m, cohort.threshold, samples=cohort.samples) for m in ("pxap", "dice", "iou")}
        found[level] = {**{m: plain(one.mean) for m, one in means.items()}, "units": means["pxap"].defined}
    return found
