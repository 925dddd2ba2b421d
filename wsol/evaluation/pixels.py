"""Score map + mask -> counts: `PixelCurve` takes one map at a time and forgets it, in O(bins) memory.

The binned part is what the field reports; `exact=True` adds a histogram over the float's own bits, whose average precision is
that of sorting all scores to within 1e-5, or 0.001 percent points (`exact.py` says when).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsol.evaluation.counts import Counts, Curve, PixelCounts
from wsol.evaluation.exact import FloatBits


@dataclass(frozen=True, eq=False)
class PixelResult:
    """Metrics of all pixels added so far, fractions in [0, 1]; without positives all but the prevalence is NaN."""

    pxap: float
    exact_ap: float | None  # None: the curve was not asked to be exact
    prevalence: float
    best_dice: float
    threshold_at_best_dice: float  # the middle of the longest run of edges that share the best Dice
    curve: Curve


def checked(score: Any, mask: Any, ignore: Any = None) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Flat arrays of one map, or a ValueError that says what was expected and what came."""
    score, mask = np.asarray(score), np.asarray(mask)
    if score.dtype != np.float32:
        raise ValueError(f"score must be float32, got {score.dtype}; convert it where it is made")
    if score.size == 0:
        raise ValueError(f"score is empty, shape {score.shape}")
    regions = {"mask": mask} if ignore is None else {"mask": mask, "ignore": np.asarray(ignore)}
    for name, region in regions.items():
        if region.dtype != np.bool_:
            raise ValueError(f"{name} must be bool, got {region.dtype}; say which values are foreground, e.g. mask > 0")
        if region.shape != score.shape:
            raise ValueError(f"{name} is {region.shape} but score is {score.shape}; resize the score to the mask, not the mask")
    flat = regions.get("ignore")
    return score.reshape(-1), mask.reshape(-1), None if flat is None else flat.reshape(-1)


def count_pixels(
    score: NDArray[np.float32], mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None, *, bins: int = 1000
) -> PixelCounts:
    """Counts of one map.

    Args:
        score: float32 (H, W) in [0, 1].
        mask: bool (H, W), True where the evidence is.
        ignore: bool (H, W), True where a pixel counts neither way; its score is still checked.
        bins: thresholds are 0, 1 / bins, ..., 1.

    Raises:
        ValueError: NaN, infinity or a score outside [0, 1]; shapes or types that do not fit.
    """
    from wsol.evaluation import kernels  # numba: only when pixels are counted

    scores, masks, skip = checked(score, mask, ignore)
    table = np.zeros((2, bins + 1), np.int64)
    if skip is None:
        bad = kernels.count_scores(scores, masks.view(np.uint8), table)
    else:
        bad = kernels.count_scores_kept(scores, masks.view(np.uint8), skip, table)
    if bad >= 0:
        place = tuple(int(i) for i in np.unravel_index(bad, np.shape(score)))
        wrong = int(np.count_nonzero(~((scores >= 0) & (scores <= 1))))
        raise ValueError(
            f"score must be finite and in [0, 1], got {float(scores[bad])} at {place} ({wrong} of {scores.size} pixels);"
            " a broken map is an error, not a blank one"
        )
    return PixelCounts(table[1], table[0])


def score_histogram(score: NDArray[np.float32], *, bins: int = 1000) -> Counts:
    """Pixels per score bin, int64 (bins + 1,), without any mask: what a label-free threshold is made from.

    Raises:
        ValueError: as `count_pixels`.
    """
    return count_pixels(score, np.zeros(np.shape(score), np.bool_), bins=bins).negatives


class PixelCurve:
    """Pixel metrics over all thresholds, one map at a time. Curves add up: workers and slides merge exactly.

    Args:
        bins: thresholds are 0, 1 / bins, ..., 1; 1000 gives the field's PxAP bit for bit.
        exact: also keep a `FloatBits` (37 MB), for `exact_ap`.

    Example:
        >>> curve = PixelCurve()
        >>> for score, mask in pairs:
        ...     curve.add(score, mask)
        >>> curve.result().pxap
    """

    def __init__(self, bins: int = 1000, exact: bool = False) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.counts = PixelCounts.empty(bins)
        self._bits: FloatBits | None = None
        if exact:
            self._bits = FloatBits()

    @property
    def exact(self) -> bool:
        """Whether `exact_ap` will be there."""
        return self._bits is not None

    def add(self, score: NDArray[np.float32], mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None) -> PixelCounts:
        """Add one map; returns its own counts, to keep per sample.

        Args:
            score: float32 (H, W) in [0, 1].
            mask: bool (H, W).
            ignore: bool (H, W), True where a pixel counts neither way.

        Raises:
            ValueError: NaN, infinity or a score outside [0, 1]; shapes or types that do not fit. The curve is then as before.
        """
        counts = count_pixels(score, mask, ignore, bins=self.counts.bins)
        if self._bits is not None:
            self._bits.add(*checked(score, mask, ignore))
        self.counts = self.counts + counts
        return counts

    def __add__(self, other: PixelCurve) -> PixelCurve:
        """The curve of both. Neither is changed.

        Raises:
            ValueError: the bins differ, or only one of the two is exact.
        """
        if not isinstance(other, PixelCurve):
            return NotImplemented
        if self.exact != other.exact:
            raise ValueError("cannot add an exact curve and a binned one: make both with the same `exact`")
        total = PixelCurve(self.counts.bins)
        total.counts = self.counts + other.counts
        if self._bits is not None and other._bits is not None:
            total._bits = self._bits + other._bits
        return total

    def exact_ap(self) -> float | None:
        """Average precision of the float-bit histogram; None if the curve is not exact, NaN without positives."""
        return None if self._bits is None else self._bits.average_precision()

    def exact_auc(self) -> float | None:
        """Area under the ROC curve of the float-bit histogram; None if not exact, NaN without both kinds of pixels."""
        return None if self._bits is None else self._bits.auc()

    def result(self) -> PixelResult:
        """All metrics of what was added so far."""
        from wsol.evaluation.thresholds import middle_of_best

        curve = self.counts.curve()
        best = middle_of_best(curve.dice)
        return PixelResult(
            pxap=self.counts.pxap,
            exact_ap=self.exact_ap(),
            prevalence=self.counts.prevalence,
            best_dice=float("nan") if best is None else float(curve.dice[best]),
            threshold_at_best_dice=float("nan") if best is None else float(curve.threshold[best]),
            curve=curve,
        )


def pixel_average_precision(
    maps: Iterable[NDArray[np.float32]], masks: Iterable[NDArray[np.bool_]], *, exact: bool = True
) -> float:
    """Average precision of all pixels of all maps together, one map in memory at a time.

    Args:
        maps: float32 (H, W) each, in [0, 1]; sizes may differ.
        masks: bool (H, W) each, one per map.
        exact: as if all scores were sorted; False is the field's PxAP over 1000 thresholds.

    Returns:
        A fraction; NaN without positives.

    Raises:
        ValueError: no maps, not one mask per map, or a map that `PixelCurve.add` refuses.
    """
    curve = PixelCurve(exact=exact)
    for number, (score, mask) in enumerate(zip_longest(maps, masks), 1):
        if score is None or mask is None:
            raise ValueError(f"need one mask per map, but the {'maps' if score is None else 'masks'} end before number {number}")
        curve.add(score, mask)
    if not curve.counts.pixels:
        raise ValueError("no maps: need at least one")
    found = curve.exact_ap()
    return curve.counts.pxap if found is None else found
