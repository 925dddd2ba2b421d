"""All numbers of one method from the counts of its samples, as plain values: what `scores.json` holds per method.

None stands for an undefined number, so that the command line only adds badges and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wsol.evaluation.activations import activation, summarize_activation
from wsol.evaluation.carrying import by_source, carried
from wsol.evaluation.classification import accuracy, balanced_accuracy
from wsol.evaluation.counts import Floats, PixelCounts
from wsol.evaluation.groups import Cohort, Extras, macro_means, rows_by_class
from wsol.evaluation.intervals import bootstrap, bootstrap_accuracy, plain, ratio
from wsol.evaluation.sensitivity import oracle_spread
from wsol.evaluation.thresholds import Threshold, best_threshold

CURVE_POINTS = 101
"""Thresholds 0, 0.01, ..., 1 of the stored curve."""


def _negatives(cohort: Cohort, generator: np.random.Generator, replicates: int) -> dict[str, Any] | None:
    """Mean flagged area of the samples without any positive pixel, each counting once whatever its size; None without such."""
    chosen = cohort.negatives()
    if not chosen.counts:
        return None
    areas = np.array([c.area for c in chosen.confusions()])
    table = np.column_stack([areas, np.ones(len(areas))])
    interval = bootstrap(table, chosen.patients, ratio, generator=generator, replicates=replicates, kind="t", within=(0.0, 1.0))
    return {
        "flagged_area": float(areas.mean()),
        "interval": interval.ends,
        "samples": len(areas),
        "patients": len({p for p in chosen.patients if p}),
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
    slides: Sequence[str] | None = None,
    candidates: Mapping[str, Threshold | str] | None = None,
    exact: Mapping[str, float | None] | None = None,
    exact_auc: Mapping[str, float | None] | None = None,
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
        slides: (n,) names; by default each sample is its own slide.
        candidates: what other sources of a threshold would have given: a threshold, or the reason why there is none.
        exact: exact average precision per group name, from one `PixelCurve(exact=True)` per group; missing ones become None.
        exact_auc: the same for the area under the ROC curve; missing ones are taken from the bins.
        replicates: bootstrap replicates.

    Returns:
        Plain values: "threshold" and "oracle" (dicts of `Threshold`; the oracle is best on these very samples pooled, None
        without positives), "groups" {"all" and each class: ...}, "macro" {"image", "slide", "patient"}, "thresholds" (what each
        source gives), "transfer" (how far the threshold carries), "activation", "negatives" (None if every sample has a positive
        pixel), "curve" (101 points), "samples" {name: ...}.

    Raises:
        ValueError: no samples, lists of different lengths, a name twice, or a class called "all".
    """
    _check(counts, samples, labels, patients)
    total = PixelCounts.total(counts)
    cohort = Cohort(counts, samples, labels, patients, list(slides or samples), threshold.on_edges(total.bins))
    oracle = best_threshold(total, source="test oracle") if total.positives.any() else None
    extras = Extras(oracle, exact or {}, exact_auc or {})
    areas = activation(counts, [cohort.threshold.at(s) for s in samples], samples)
    return {
        "threshold": cohort.threshold.to_dict(),
        "oracle": oracle.to_dict() if oracle else None,
        "groups": rows_by_class(cohort, extras, generator, replicates),
        "macro": macro_means(cohort),
        "thresholds": by_source(cohort, candidates or {}, oracle),
        "transfer": carried(cohort),
        "activation": summarize_activation(areas),
        "negatives": _negatives(cohort, generator, replicates),
        "curve": _curve(total),
        "samples": {area.sample: {**row, **area.to_dict()} for area, row in zip(areas, _samples(cohort), strict=True)},
    }


def _samples(cohort: Cohort) -> list[dict[str, Any]]:
    """The numbers of each sample, with what it would have at its own best threshold."""
    spread = oracle_spread(cohort.by_sample())
    return [
        {
            "dice": plain(here.dice),
            "iou": plain(here.iou),
            "pxap": plain(counts.pxap),
            "prevalence": plain(counts.prevalence),
            "flagged_area": plain(here.area),
            "oracle_threshold": spread.values.get(sample),
            "oracle_dice": spread.best.get(sample),
            "label": label,
            "patient": patient,
            "overlay": None,
        }
        for sample, counts, here, label, patient in zip(
            cohort.samples, cohort.counts, cohort.confusions(), cohort.labels, cohort.patients, strict=True
        )
    ]


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
    interval = bootstrap_accuracy(labels, predicted, patients, generator=generator, replicates=replicates, kind="t")
    return {
        "accuracy": accuracy(labels, predicted),
        "balanced_accuracy": balanced_accuracy(labels, predicted),
        "interval": interval.ends,
        "samples": len(np.asarray(labels)),
        "patients": interval.clusters,
    }
