"""Average precision as if all scores were sorted, in fixed memory: a histogram over the bits of the float32 scores themselves.

On [0, 1] the bit pattern of a float32 grows with its value. The top 23 of 32 bits make 2.1 million bins, 2^14 per octave.
Scores in one bin are ordered no further; how its positives and negatives interleave is then taken as random, whose expected
average precision has a closed form. A bin whose scores are all equal is a true tie and is scored as one, so constant and
quantized maps are exact. Against sorting the rest is off by less than 0.001 percent points, as long as the scores of all maps
together spread over at least a fiftieth of [0, 1]; a thousandth, close below 1 or 0.5, leaves some 15 bins and is off by tenths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsol.evaluation.counts import Floats, roc_auc

_TABLE = 64
_HARMONIC = np.append(0.0, np.cumsum(1.0 / np.arange(1, _TABLE)))
_EULER = 0.5772156649015329


def harmonic(n: NDArray[Any]) -> Floats:
    """1 + 1/2 + ... + 1/n for integers n >= 0, to 1e-15: a table, then Euler and Maclaurin."""
    x = np.maximum(np.asarray(n, np.float64), _TABLE)
    series = np.log(x) + _EULER + 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)
    return np.where(np.asarray(n) < _TABLE, _HARMONIC[np.minimum(n, _TABLE - 1)], series)


def grouped_average_precision(positives: NDArray[np.int64], negatives: NDArray[np.int64], mixed: NDArray[np.bool_]) -> float:
    """Average precision of groups of pixels in descending order of score.

    Args:
        positives: int64 (g,), no group empty of both kinds.
        negatives: int64 (g,).
        mixed: bool (g,). False: the group is a tie, all its positives have the precision at its end (as scikit-learn). True: its
            pixels stand in random order; with a TP of `before` and N pixels above a group of p positives among m, the expected
            sum of precisions is p/m * sum_{r=1..m} (before + 1 + (p-1)(r-1)/(m-1)) / (N + r).

    Returns:
        Fraction in [0, 1]; NaN without positives.
    """
    total = int(positives.sum())
    if not total:
        return float("nan")
    members = positives + negatives
    tp, found = np.cumsum(positives), np.cumsum(members)
    tied = tp / found
    start, above = (tp - positives + 1).astype(np.float64), found - members
    slope = (positives - 1) / np.maximum(members - 1, 1)
    inverse = harmonic(found) - harmonic(above)
    expected = (slope * members + (start - slope * (above + 1)) * inverse) / members
    return float((np.where(mixed, expected, tied) * (positives / total)).sum())


class FloatBits:
    """Counts of checked scores by their top 23 bits: 33 MB, and 4 MB that tell true ties from near ones. Adds up exactly."""

    def __init__(self) -> None:
        from wsol.evaluation import kernels

        self.table = np.zeros((2, kernels.FLOAT_BINS), np.int64)  # rows: negative, positive; untouched pages cost nothing
        self.seen = np.zeros(kernels.FLOAT_BINS, np.uint16)

    def add(self, scores: NDArray[np.float32], masks: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None) -> None:
        """Count flat scores that are known to be in [0, 1]."""
        from wsol.evaluation import kernels

        skip = np.zeros(0, np.bool_) if ignore is None else ignore
        kernels.count_float_bits(np.ascontiguousarray(scores).view(np.uint32), masks.view(np.uint8), skip, self.table, self.seen)

    def __add__(self, other: FloatBits) -> FloatBits:
        from wsol.evaluation import kernels

        total = object.__new__(FloatBits)
        total.table = self.table + other.table
        agree = (self.seen == other.seen) | (self.seen == 0) | (other.seen == 0)
        total.seen = np.where(agree, np.maximum(self.seen, other.seen), np.uint16(kernels.MIXED))
        return total

    def average_precision(self) -> float:
        """Average precision of everything added; NaN without positives."""
        from wsol.evaluation import kernels

        used = np.flatnonzero(self.seen)[::-1]
        return grouped_average_precision(self.table[1, used], self.table[0, used], self.seen[used] == kernels.MIXED)

    def auc(self) -> float:
        """Area under the ROC curve of everything added, pairs of equal scores half; NaN without positives or negatives.

        In a bin of near ties the order of a pair is taken as random, which is one half too.
        """
        used = np.flatnonzero(self.seen)
        return float(roc_auc(self.table[1, used], self.table[0, used])) if used.size else float("nan")
