"""A threshold that bounds the flagged area of a negative patient: "at most 5 % of a normal patient is flagged, for 95 % of them".

The unit is the patient, for a promise about new patients needs exchangeable patients, and images of one patient are not
independent. Of each negative calibration patient only one number counts: the smallest edge at which no more than `area` of the
patient is flagged. As flagged area falls with the threshold, a new patient keeps to `area` at t iff its own such edge is <= t; so
a threshold is an order statistic of these edges, and ties only make it safer:

- "marginal": split conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005; as conformal risk control of
  an indicator, Angelopoulos et al., ICLR 2024). The k-th smallest, k = ceil((n + 1) level). A new patient keeps to `area` with a
  chance of at least `level`, on average over calibration sets. One unlucky set may do worse.
- "confident": a one-sided tolerance limit (Wilks, Annals of Mathematical Statistics 1941). The smallest k for which n draws leave
  at least `level` of all patients below the k-th smallest with a chance of `confidence` or more: P(Binomial(n, level) <= k - 1).

No mask is needed, only the knowledge that these patients have nothing to find. None of this survives a shift: patients of another
scanner or hospital are not exchangeable with these, and then the promise is void.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from wsol._names import closest
from wsol.evaluation.counts import Counts, Floats, at_least, edges
from wsol.evaluation.thresholds import Threshold

BOUNDS = ("marginal", "confident")
WITHIN = ("pooled", "worst")

_MOST = 2**40
"""Patients beyond which no calibration set goes."""


def patients_needed(level: float = 0.95, bound: str = "marginal", confidence: float = 0.95, exceedances: int = 0) -> int:
    """The fewest negative patients with which `conformal_threshold` may leave `exceedances` of them above the threshold.

    With 0 it is the fewest for which there is a threshold at all: 19 (marginal) or 59 (confident) at level 0.95, confidence 0.95.

    Raises:
        ValueError: a level or confidence outside (0, 1), an unknown bound, or negative exceedances.
    """
    _check(level, bound, confidence)
    if exceedances < 0:
        raise ValueError(f"exceedances is a number of patients, 0 or more, got {exceedances}")
    if bound == "marginal":
        share = Fraction(str(level))  # the decimal as it was written: 0.95 * 20 must be 19
        return math.ceil((exceedances + share) / (1 - share))
    from scipy.stats import binom

    return bisect_left(
        range(_MOST), confidence, lo=exceedances + 1, key=lambda n: float(binom.cdf(n - exceedances - 1, n, level))
    )


def conformal_threshold(
    histograms: Sequence[Counts],
    patients: Sequence[str],
    *,
    area: float = 0.05,
    level: float = 0.95,
    bound: str = "marginal",
    confidence: float = 0.95,
    within: str = "pooled",
) -> Threshold:
    """The threshold at which no more than `area` of a new negative patient is flagged, for `level` of such patients.

    Args:
        histograms: int64 (bins + 1,) per image from `score_histogram`, of negative patients only.
        patients: (n,) whose image it is.
        area: share of a patient's pixels that may be flagged, in [0, 1).
        level: share of future negative patients for which that holds, in (0, 1).
        bound: "marginal" (on average over calibration sets) or "confident" (for this one, with `confidence`).
        confidence: for the bound "confident", in (0, 1).
        within: "pooled": the area of all pixels of a patient together; "worst": of each of its images.

    Returns:
        Threshold of source "conformal", an edge of the histograms' bins, with the facts bound, level, area, patients (how many),
        within and, where it plays a role, confidence.

    Raises:
        ValueError: too few patients (the message says how many are needed and how many came), scores that flag too much even at
            threshold 1, an unknown patient "" (nothing says which images belong together), or arguments out of range.
    """
    _check(level, bound, confidence)
    if not 0.0 <= area < 1.0:
        raise ValueError(f"area is a share of the pixels in [0, 1), got {area!r}")
    tables = _checked(histograms, patients, within)
    needed = patients_needed(level, bound, confidence)
    found = required_edges(tables, patients, area, within)
    if found.size < needed:
        sure = f", confidence {confidence}" if bound == "confident" else ""
        raise ValueError(
            f"a {bound} threshold at level {level}{sure} needs at least {needed} negative patients, got {found.size};"
            " add patients or lower the level"
        )
    value = float(np.sort(found)[_rank(found.size, level, bound, confidence) - 1])
    if math.isinf(value):
        raise ValueError(
            f"{np.count_nonzero(np.isinf(found))} of {found.size} negative patients are flagged on more than {area} of their area"
            " even at threshold 1: their scores saturate; use a scale that keeps scores below 1, or a larger area"
        )
    facts = {"bound": bound, "level": level, "area": area, "patients": int(found.size), "within": within}
    return Threshold(value, "conformal", facts={**facts, "confidence": confidence} if bound == "confident" else facts)


def required_edges(histograms: Counts, patients: Sequence[str], area: float, within: str = "pooled") -> Floats:
    """Per patient, by name, the smallest edge that flags no more than `area` of it; infinity where even threshold 1 flags more.

    `histograms` are int64 (n, bins + 1), a row per image.
    """
    names, group = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if within == "pooled":
        pooled = np.zeros((names.size, histograms.shape[1]), np.int64)
        np.add.at(pooled, group, histograms)
        return _required(pooled, area)
    worst = np.zeros(names.size)
    np.maximum.at(worst, group, _required(histograms, area))
    return worst


def _required(tables: Counts, area: float) -> Floats:
    """The smallest edge of each row at which at most `area` of its pixels is at or above it; infinity if there is none."""
    kept = at_least(tables) / tables.sum(axis=1, keepdims=True) <= area
    return np.where(kept.any(axis=1), edges(tables.shape[1] - 1)[kept.argmax(axis=1)], np.inf)


def _rank(n: int, level: float, bound: str, confidence: float) -> int:
    """Which of the n ordered edges is the threshold, from 1 up; n patients are enough."""
    if bound == "marginal":
        return math.ceil((n + 1) * Fraction(str(level)))
    from scipy.stats import binom

    return int(np.argmax(binom.cdf(np.arange(n), n, level) >= confidence)) + 1


def _check(level: float, bound: str, confidence: float) -> None:
    for name, share in (("level", level), ("confidence", confidence)):
        if not 0.0 < share < 1.0:
            raise ValueError(f"{name} must lie between 0 and 1, got {share!r}")
    if bound not in BOUNDS:
        raise ValueError(closest("conformal bound", bound, BOUNDS))


def _checked(histograms: Sequence[Counts], patients: Sequence[str], within: str) -> Counts:
    if within not in WITHIN:
        raise ValueError(closest("conformal within", within, WITHIN))
    tables = [np.asarray(h) for h in histograms]
    if len(tables) != len(patients) or not tables:
        raise ValueError(f"need one patient per histogram and at least one, got {len(patients)} for {len(tables)}")
    if unknown := sum(str(p) == "" for p in patients):
        raise ValueError(
            f"the patient of {unknown} of {len(patients)} images is unknown (''): nothing says which images belong together,"
            " and a promise about patients cannot be made from images; fill in the patient"
        )
    shape = tables[0].shape
    odd = [i for i, t in enumerate(tables) if t.shape != shape or t.ndim != 1 or t.size < 2 or t.dtype.kind not in "iu"]
    if odd:
        raise ValueError(
            f"histograms must be integer counts (bins + 1,) of one length; got {tables[odd[0]].dtype} {tables[odd[0]].shape}"
            f" at {odd[0]} beside {shape}"
        )
    every = np.stack(tables).astype(np.int64)
    bad = np.flatnonzero((every.min(axis=1) < 0) | ~every.any(axis=1))
    if bad.size:
        raise ValueError(
            f"histogram {bad[0]} of patient {patients[bad[0]]!r} has no pixel or a negative count; leave the image out"
        )
    return every
