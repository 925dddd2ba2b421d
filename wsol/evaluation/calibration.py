"""Do probabilities mean what they say: Brier score, calibration error, reliability table, likelihood and temperature.

Probabilities are float (n, k), rows in [0, 1] that sum to 1; labels are class indices, int (n,). "Confidence" is the largest
probability of a row, its class (the lowest of equals) the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsol._names import closest
from wsol.evaluation.counts import Floats, quotient
from wsol.evaluation.intervals import plain
from wsol.evaluation.metrics import source

KINDS = ("width", "mass")
"""Bins of equal width in confidence, or of (nearly) equally many samples."""

TEMPERATURES = (0.01, 100.0)
"""Where a temperature is looked for. Labels that the logits separate have no best one: the lower end is given for them."""

ROUNDING = 1e-4
"""How far a row may be from a sum of 1: float16 softmax is, by less."""


def checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities as float64 and labels as int64.

    Raises:
        ValueError: not (n, k) and (n,) with n > 0; a row with NaN, outside [0, 1] or not summing to 1; a label that is no class.
    """
    rows, truth = _paired(probabilities, labels, "probabilities")
    low, high = rows.min(), rows.max()
    if low < 0 or high > 1:
        raise ValueError(f"probabilities must lie in [0, 1], got {low} ... {high}; apply softmax to logits first")
    sums = rows.sum(axis=1)
    if (off := np.abs(sums - 1)).max() > ROUNDING:
        raise ValueError(f"each row of probabilities must sum to 1; row {off.argmax()} sums to {sums[off.argmax()]}")
    return rows, truth


def _paired(values: ArrayLike, labels: ArrayLike, name: str) -> tuple[Floats, NDArray[np.int64]]:
    rows, truth = np.asarray(values, np.float64), np.asarray(labels)
    if rows.ndim != 2 or truth.shape != rows.shape[:1] or not truth.size or rows.shape[1] < 2:
        raise ValueError(f"need {name} (n, k), k > 1, and labels (n,), n > 0; got {rows.shape} and {truth.shape}")
    if not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels must be class indices, got {truth.dtype}")
    if truth.min() < 0 or truth.max() >= rows.shape[1]:
        raise ValueError(f"labels must lie in 0 ... {rows.shape[1] - 1}, got {truth.min()} ... {truth.max()}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(rows).all(axis=1))} of {len(rows)} rows of {name} hold NaN or infinity")
    return rows, truth.astype(np.int64)


@source("Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 1950")
def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over samples of sum_k (p_k - [label = k])^2, Brier's own form: in [0, 2], 0 is best, 1 - 1 / k of no knowledge.

    With two classes it is twice the `binary_brier` that many mean by the name.

    Raises:
        ValueError: see `checked`.
    """
    rows, truth = checked(probabilities, labels)
    return float(((rows - np.eye(rows.shape[1])[truth]) ** 2).sum(axis=1).mean())


def binary_brier(probabilities: ArrayLike, positive: ArrayLike) -> float:
    """Mean of (p - [positive])^2 for the probability p of the positive class: in [0, 1], 1 / 4 of no knowledge.

    Args:
        probabilities: (n,) in [0, 1].
        positive: bool (n,).

    Raises:
        ValueError: lengths differ, `positive` is not bool, or a probability is NaN or outside [0, 1].
    """
    values, truth = np.asarray(probabilities, np.float64), np.asarray(positive)
    if values.ndim != 1 or truth.dtype != np.bool_:
        raise ValueError(f"need probabilities (n,) and bool positive (n,), got {values.shape} and {truth.dtype} {truth.shape}")
    return brier(np.column_stack([1 - values, values]), truth.astype(np.int64)) / 2


@dataclass(frozen=True, eq=False)
class Reliability:
    """Per bin, from low confidence to high: mean confidence, share of right decisions (both NaN in an empty bin) and samples."""

    confidence: Floats
    accuracy: Floats
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The calibration error: mean gap between accuracy and confidence of the bins, weighed by their samples."""
        full = self.count > 0
        gaps = np.abs(self.accuracy[full] - self.confidence[full])
        return float((self.count[full] * gaps).sum() / self.count.sum())

    def to_dict(self) -> dict[str, Any]:
        """Lists for a JSON file; None for an empty bin's values."""
        return {
            "confidence": [plain(float(v)) for v in self.confidence],
            "accuracy": [plain(float(v)) for v in self.accuracy],
            "count": self.count.tolist(),
        }


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, kind: str = "width") -> Reliability:
    """The table behind a reliability diagram (Niculescu-Mizil and Caruana, ICML 2005; Guo et al., ICML 2017).

    Args:
        probabilities: (n, k).
        labels: (n,).
        bins: their number.
        kind: "width": bin m of M holds (m - 1) / M < confidence <= m / M, Guo's rule: a confidence on an edge falls below it.
            "mass": a sample falls in the bin floor(M s / n), s the number of samples with less confidence: equals stay together,
            so bins may be empty, and the result does not depend on the order of samples (our rule).

    Raises:
        ValueError: see `checked`; an unknown kind, or no bin.
    """
    rows, truth = checked(probabilities, labels)
    if kind not in KINDS:
        raise ValueError(closest("kind of bins", kind, KINDS))
    if bins < 1:
        raise ValueError(f"need at least one bin, got {bins}")
    confidence, right = rows.max(axis=1), rows.argmax(axis=1) == truth
    if kind == "width":
        group = np.clip(np.searchsorted(np.arange(bins + 1) / bins, confidence, side="left") - 1, 0, bins - 1)
    else:
        group = bins * np.searchsorted(np.sort(confidence), confidence, side="left") // len(confidence)
    count = np.bincount(group, minlength=bins)
    mean, accuracy = (quotient(np.bincount(group, weights=v, minlength=bins), count) for v in (confidence, right))
    return Reliability(mean, accuracy, count.astype(np.int64))


@source("Guo et al., On calibration of modern neural networks, ICML 2017")
def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, kind: str = "width") -> float:
    """Mean gap between confidence and accuracy over bins of confidence, in [0, 1]; of the decided class alone ("top-label").

    It is biased upwards with few samples per bin, so compare it between equal numbers of samples only.

    Args:
        probabilities: (n, k).
        labels: (n,).
        bins: their number.
        kind: "width" or "mass"; see `reliability` for the edges.

    Raises:
        ValueError: as `reliability`.
    """
    return reliability(probabilities, labels, bins, kind).error


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities (n, k) of logits (n, k) divided by a temperature > 0."""
    if not temperature > 0:
        raise ValueError(f"a temperature must be above 0, got {temperature}")
    return np.exp(_log_softmax(np.asarray(logits, np.float64) / temperature))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> float:
    """Mean -log softmax(logits / temperature)[label], in nats; log k of no knowledge.

    Raises:
        ValueError: not (n, k) finite logits with (n,) class indices, or a temperature that is not above 0.
    """
    rows, truth = _paired(logits, labels, "logits")
    if not temperature > 0:
        raise ValueError(f"a temperature must be above 0, got {temperature}")
    return float(-_log_softmax(rows / temperature)[np.arange(len(truth)), truth].mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature whose softmax makes `labels` most likely (temperature scaling: Guo et al., ICML 2017).

    The likelihood is convex in 1 / T, so the root of its slope is the one optimum. It changes no decision, only confidence; fit
    it on validation samples. Where every label has the highest logit the likelihood grows without end as T falls, and where
    logits know less than nothing as T grows: then the end of `TEMPERATURES` is given. Equal logits in every row: 1.

    Returns:
        T > 0, within `TEMPERATURES`.

    Raises:
        ValueError: not (n, k) finite logits with (n,) class indices.
    """
    from scipy.optimize import brentq

    rows, truth = _paired(logits, labels, "logits")
    rows = rows - rows.mean(axis=1, keepdims=True)
    if not rows.any():
        return 1.0
    own = rows[np.arange(len(truth)), truth]

    def slope(log_temperature: float) -> float:
        """Derivative of the negative log likelihood by 1 / T; it falls as T grows."""
        return float(((softmax(rows, np.exp(log_temperature)) * rows).sum(axis=1) - own).mean())

    low, high = np.log(TEMPERATURES)
    if slope(low) <= 0:
        return TEMPERATURES[0]
    if slope(high) >= 0:
        return TEMPERATURES[1]
    return float(np.exp(brentq(slope, low, high, xtol=1e-10)))
