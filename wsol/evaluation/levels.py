"""Classification at the levels it is asked at: tiles or images become slides, slides become patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsol._names import closest
from wsol.evaluation.calibration import brier, checked, expected_calibration_error
from wsol.evaluation.classification import accuracy, auc, balanced_accuracy, confusion, macro_auc
from wsol.evaluation.counts import Floats
from wsol.evaluation.intervals import bootstrap_accuracy, plain

HOW = ("mean", "max")
"""How probabilities of parts become one of the whole."""


class Units(NamedTuple):
    """What `aggregate` made: names ascending, probabilities (u, k), labels (u,), and the units left out for having two labels."""

    names: list[str]
    probabilities: Floats
    labels: NDArray[np.int64]
    conflicting: list[str]


def aggregate(
    probabilities: ArrayLike, labels: ArrayLike, units: Sequence[str], how: str = "mean", *, positive: int = 1
) -> Units:
    """Probabilities and labels of units (images, slides, patients) from those of their samples.

    Labels: with two classes a unit is positive iff any of its samples is, as in clinical use: a patient with one malignant image
    is malignant. With more classes nothing says which of two labels a unit should have, so it is left out, and named in
    `conflicting`.

    Probabilities: "mean" averages them. "max" is the standard assumption of multiple instances: with two classes the positive
    class gets its highest probability, the other the rest; with more, each class its highest, divided by their sum (our choice).

    Args:
        probabilities: (n, k), rows that sum to 1.
        labels: (n,) class indices.
        units: (n,) the unit of each sample.
        how: "mean" or "max".
        positive: index of the positive class of two.

    Raises:
        ValueError: see `checked`; not one unit per sample, an unknown one (""), an unknown `how`, or a positive class that is
            none of the two.
    """
    rows, truth = checked(probabilities, labels)
    if how not in HOW:
        raise ValueError(closest("way to aggregate", how, HOW))
    if len(units) != len(rows):
        raise ValueError(f"need one unit per sample, got {len(units)} for {len(rows)}")
    if "" in units:
        raise ValueError(f"{list(units).count('')} of {len(rows)} samples have no unit (''); nothing says what they belong to")
    classes = rows.shape[1]
    if classes == 2 and positive not in (0, 1):
        raise ValueError(f"the positive class of two must be 0 or 1, got {positive}")
    names, group = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    highest = np.full((len(names), classes), -np.inf)
    np.maximum.at(highest, group, rows)
    present = np.zeros((len(names), classes), bool)
    present[group, truth] = True
    if how == "mean":
        whole = np.stack([np.bincount(group, weights=column) for column in rows.T], axis=1)
    else:
        whole = highest
        if classes == 2:
            whole[:, 1 - positive] = 1 - whole[:, positive]
    whole = whole / whole.sum(axis=1, keepdims=True)
    if classes == 2:
        known, own = np.ones(len(names), bool), np.where(present[:, positive], positive, 1 - positive)
    else:
        known, own = present.sum(axis=1) == 1, present.argmax(axis=1)
    return Units(names[known].tolist(), whole[known], own[known].astype(np.int64), names[~known].tolist())


def classify_at_levels(
    probabilities: ArrayLike,
    labels: ArrayLike,
    levels: Mapping[str, Sequence[str]],
    patients: Sequence[str],
    *,
    generator: np.random.Generator,
    how: str = "mean",
    positive: int = 1,
    bins: int = 15,
    replicates: int = 1000,
) -> dict[str, dict[str, Any]]:
    """Classification metrics at each level, as plain values (None where undefined).

    Args:
        probabilities: (n, k) of samples (tiles or images).
        labels: (n,) class indices.
        levels: level -> (n,) the unit of each sample, e.g. {"image": ..., "slide": ..., "patient": ...}. A level with an unknown
            unit ("") is left out of the result.
        patients: (n,) names for the interval, "" where unknown (then there is none). A unit must not span two patients.
        generator: for the bootstrap.
        how: "mean" or "max", see `aggregate`.
        positive: index of the positive class of two.
        bins: of the calibration error.
        replicates: bootstrap replicates.

    Returns:
        {level: {"accuracy", "interval" ([low, high] over patients), "balanced_accuracy", "auc" (of the positive class of two,
        else macro), "ece", "brier" (summed over classes, in [0, 2]), "confusion" (rows true, columns decided), "samples" (units),
        "patients" (behind the interval), "conflicting" (units left out for two labels)}}. A level whose units are all
        conflicting has None for every metric.

    Raises:
        ValueError: as `aggregate`, or a unit with samples of two patients.
    """
    who = [str(p) for p in patients]
    if len(who) != len(np.asarray(labels)):
        raise ValueError(f"need one patient per sample, got {len(who)} for {len(np.asarray(labels))}")
    result = {}
    for level, names in levels.items():
        if "" in names:
            continue
        units = aggregate(probabilities, labels, names, how, positive=positive)
        owner = _owners(level, names, who)
        result[level] = _metrics(units, [owner[name] for name in units.names], generator, positive, bins, replicates)
    return result


def _owners(level: str, units: Sequence[str], patients: Sequence[str]) -> dict[str, str]:
    """The patient of each unit."""
    owner: dict[str, str] = {}
    for unit, patient in zip(units, patients, strict=True):
        if owner.setdefault(str(unit), patient) != patient:
            raise ValueError(f"{level} {unit!r} has samples of two patients, {owner[str(unit)]!r} and {patient!r}")
    return owner


def _metrics(
    units: Units, patients: Sequence[str], generator: np.random.Generator, positive: int, bins: int, replicates: int
) -> dict[str, Any]:
    rows, truth = units.probabilities, units.labels
    facts = {"samples": len(truth), "conflicting": len(units.conflicting)}
    if not len(truth):
        names = ("accuracy", "balanced_accuracy", "auc", "ece", "brier", "confusion")
        return {**dict.fromkeys(names), "interval": [None, None], "patients": 0, **facts}
    called = rows.argmax(axis=1)
    interval = bootstrap_accuracy(truth, called, patients, generator=generator, replicates=replicates, kind="t")
    two = rows.shape[1] == 2
    return {
        "accuracy": accuracy(truth, called),
        "interval": interval.ends,
        "balanced_accuracy": balanced_accuracy(truth, called),
        "auc": plain(auc(rows[:, positive], truth == positive) if two else macro_auc(rows, truth)),
        "ece": expected_calibration_error(rows, truth, bins),
        "brier": brier(rows, truth),
        "confusion": confusion(truth, called, rows.shape[1]).tolist(),
        "patients": interval.clusters,
        **facts,
    }
