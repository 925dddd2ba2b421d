"""Counts of scores per bin, and what follows from them: the curve over thresholds, the confusion at one, average precision.

Counts are int64 and add up exactly, over images, slides and jobs. Bin i of n holds i / n <= score < (i + 1) / n, and one more bin
holds score = 1 alone: n + 1 bins, whose lower edges are the thresholds. With n = 1000 and float32 scores the counts are those of
wsolevaluation (Choe et al., CVPR 2020), whose float64 edges i * 0.001 differ by less than any float32 can tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsol.evaluation.outcomes import Confusion, Curve

__all__ = [
    "Confusion",
    "Counts",
    "Curve",
    "Floats",
    "PixelCounts",
    "at_least",
    "average_precision",
    "edges",
    "quotient",
    "roc_auc",
]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

EDGE_TOLERANCE = 1e-12
"""A threshold this near an edge, relative to it, is that edge: 350 * 0.001 is 0.35000000000000003. No float32 lies between."""


def edges(bins: int) -> Floats:
    """Lower edges of the bins, ascending: float64 (bins + 1,), from 0 to exactly 1. The best float64 of each i / bins."""
    return np.arange(bins + 1) / bins


def at_least(counts: Counts) -> Counts:
    """Sum of each bin and all above it, along the last axis: how many scores are >= the bin's edge."""
    return np.cumsum(counts[..., ::-1], axis=-1, dtype=np.int64)[..., ::-1]


def quotient(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Floats:
    """Numerator / denominator in float64, NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0)


def average_precision(positives: Counts | Floats, negatives: Counts | Floats) -> Floats:
    """Area under precision over recall, by the right-rectangle rule from the highest bin down: sum_j P_j (R_j - R_{j-1}).

    Terms without any score so far (precision 0/0) are dropped. No interpolation (Choe et al., CVPR 2020, PxAP).

    Args:
        positives: (..., bins) counts of positive pixels, ascending scores; leading axes are independent (bootstrap replicates).
        negatives: the same for negative pixels.

    Returns:
        (...) fractions in [0, 1]; NaN where there are no positives.
    """
    tp = np.cumsum(positives[..., ::-1], axis=-1, dtype=np.float64)
    found = tp + np.cumsum(negatives[..., ::-1], axis=-1, dtype=np.float64)
    steps = np.diff(quotient(tp, tp[..., -1:]), axis=-1, prepend=0.0)
    terms = quotient(tp, found) * steps
    if terms.ndim == 1:  # drop, not zero, the empty terms: the order of summation, and so the last bit, is then the field's
        return np.asarray(terms[found != 0].sum() if tp[-1] else np.nan)
    return np.where(tp[..., -1] > 0, np.where(found != 0, terms, 0.0).sum(axis=-1), np.nan)


def roc_auc(positives: Counts | Floats, negatives: Counts | Floats) -> Floats:
    """Area under the ROC curve: the share of (positive, negative) pairs of pixels in the right order, pairs in one bin half.

    That is Mann and Whitney's U over the number of pairs (Hanley and McNeil, Radiology 1982), on binned scores.

    Args:
        positives: (..., bins) counts of positive pixels, ascending scores; leading axes are independent (bootstrap replicates).
        negatives: the same for negative pixels.

    Returns:
        (...) fractions in [0, 1]; NaN where there are no positives or no negatives.
    """
    below = np.cumsum(negatives, axis=-1, dtype=np.float64)
    won = quotient(below - np.asarray(negatives) / 2, below[..., -1:])  # of one positive in this bin
    hits = np.asarray(positives, np.float64)
    return quotient((hits * won).sum(axis=-1), hits.sum(axis=-1))


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """How many positive and negative pixels fall in each score bin: int64 (bins + 1,) each. All binned metrics follow from it.

    Raises:
        ValueError: the arrays are not two 1-D integer arrays of one length, or hold a negative number.
    """

    positives: Counts
    negatives: Counts

    def __post_init__(self) -> None:
        for name in ("positives", "negatives"):
            array = np.asarray(getattr(self, name))
            if array.ndim != 1 or array.size < 2 or not np.issubdtype(array.dtype, np.integer):
                raise ValueError(f"{name} must be integer counts (bins + 1,), got {array.dtype} {array.shape}")
            if array.min() < 0:
                raise ValueError(f"{name} must not be negative, got {array.min()} in bin {array.argmin()}")
            object.__setattr__(self, name, array.astype(np.int64, copy=False))
        if self.positives.shape != self.negatives.shape:
            raise ValueError(f"positives have {self.positives.size} bins, negatives {self.negatives.size}; they must agree")

    @classmethod
    def empty(cls, bins: int = 1000) -> PixelCounts:
        """Counts of no pixels."""
        return cls(np.zeros(bins + 1, np.int64), np.zeros(bins + 1, np.int64))

    @classmethod
    def from_arrays(cls, positives: Counts, negatives: Counts) -> PixelCounts:
        """Counts from what `to_arrays` gave."""
        return cls(positives, negatives)

    def to_arrays(self) -> tuple[Counts, Counts]:
        """(positives, negatives), int64 (bins + 1,) each, for a table on disk."""
        return self.positives, self.negatives

    @classmethod
    def total(cls, counts: Iterable[PixelCounts]) -> PixelCounts:
        """Sum of one or more counts.

        Raises:
            ValueError: there are none, or their bins differ.
        """
        every = list(counts)
        if not every:
            raise ValueError("no counts to add: need at least one sample")
        return sum(every[1:], every[0])

    def __add__(self, other: PixelCounts) -> PixelCounts:
        if not isinstance(other, PixelCounts):
            return NotImplemented
        if other.bins != self.bins:
            raise ValueError(f"cannot add counts of {self.bins} bins and of {other.bins}")
        return PixelCounts(self.positives + other.positives, self.negatives + other.negatives)

    @property
    def bins(self) -> int:
        """Bins below 1, the `bins` of `PixelCurve`; the arrays are one longer."""
        return self.positives.size - 1

    @property
    def histogram(self) -> Counts:
        """Pixels per score bin whatever their mask: all that a label-free threshold may see."""
        return self.positives + self.negatives

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.histogram.sum())

    @property
    def prevalence(self) -> float:
        """Share of positive pixels, which is the average precision of a random map; NaN without pixels."""
        return int(self.positives.sum()) / self.pixels if self.pixels else float("nan")

    @property
    def pxap(self) -> float:
        """Average precision over the bins' edges (Choe et al., CVPR 2020), a fraction; NaN without positives."""
        return float(average_precision(self.positives, self.negatives))

    @property
    def normalized_ap(self) -> float:
        """PxAP on a scale where a random map has 0 and a perfect one 1: (PxAP - prevalence) / (1 - prevalence).

        Below 0 for a map worse than random. NaN without positives, or without negatives.
        """
        chance = self.prevalence
        return (self.pxap - chance) / (1 - chance) if chance < 1 else float("nan")

    @property
    def roc_auc(self) -> float:
        """Area under the ROC curve of the pixels, see `roc_auc`; NaN without positives or without negatives."""
        return float(roc_auc(self.positives, self.negatives))

    def curve(self) -> Curve:
        """Pixels and fractions at every edge."""
        tp, fp = at_least(self.positives), at_least(self.negatives)
        return Curve.of(edges(self.bins), tp, fp, int(tp[0]) - tp, int(fp[0]) - fp)

    def edge_index(self, threshold: float) -> int:
        """Index of the bin whose lower edge is `threshold`.

        Raises:
            ValueError: the threshold is no edge. Counts know nothing between two edges; `nearest_edge` rounds on purpose.
        """
        nearest = self.nearest_edge(threshold)
        if not abs(nearest - threshold) <= EDGE_TOLERANCE * nearest:
            raise ValueError(
                f"threshold {threshold!r} is no edge of {self.bins} bins, so counts cannot tell; the nearest edge is {nearest!r}"
                " (PixelCounts.nearest_edge)"
            )
        return round(nearest * self.bins)

    def nearest_edge(self, threshold: float) -> float:
        """The edge nearest to `threshold`.

        Raises:
            ValueError: the threshold is NaN or outside [0, 1].
        """
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"a threshold on scores in [0, 1] must lie there too, got {threshold!r}")
        return float(edges(self.bins)[round(threshold * self.bins)])

    def at(self, threshold: float) -> Confusion:
        """Pixels and fractions when a pixel is positive iff score >= threshold. Exact, so `threshold` must be an edge.

        Raises:
            ValueError: the threshold is no edge of these bins; the message names the nearest.
        """
        at = self.edge_index(threshold)
        tp, fp = int(self.positives[at:].sum()), int(self.negatives[at:].sum())
        return Confusion(float(edges(self.bins)[at]), tp, fp, int(self.positives.sum()) - tp, int(self.negatives.sum()) - fp)
