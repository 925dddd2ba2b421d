"""How much a result hangs on its threshold: what it loses, how far the best one moves from image to image, who is ahead where.

All of it looks at the scored masks, and so bounds what a threshold could do; none of it is a way to choose one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsol._names import closest
from wsol.evaluation.counts import Floats, PixelCounts, edges
from wsol.evaluation.thresholds import METRICS, Plateau, Threshold, best_threshold, plateau
from wsol.evaluation.units import pooled_at

NAN = float("nan")


class Transfer(NamedTuple):
    """What a threshold from elsewhere gives on the scored samples, and what the best threshold for all of them would give.

    gap = best - value. It is 0 or more for one threshold; a threshold per sample may beat the best common one, then it is
    negative. Without any positive pixel the numbers are NaN, oracle and plateau None.
    """

    value: float
    best: float
    gap: float
    oracle: Threshold | None
    plateau: Plateau | None


class Spread(NamedTuple):
    """Best thresholds of single samples: how far they lie apart, and what a common threshold loses against them.

    values: sample -> its best threshold, and best: sample -> what it reaches there; samples without positives have neither.
    median, low_quartile, high_quartile, iqr: of the values.
    lost: mean of best minus mean of the metric at the common threshold, over the same samples. All NaN without any such sample.
    """

    values: dict[str, float]
    best: dict[str, float]
    median: float
    low_quartile: float
    high_quartile: float
    iqr: float
    lost: float


class Ranking(NamedTuple):
    """Methods in order of a metric at every threshold.

    threshold: float64 (points,), ascending.
    methods: (m,) names, the rows of `ranks`.
    ranks: float64 (m, points), 1 is best; equals share the mean of their places; NaN where a method's value is undefined.
    best: (points,) name of the best method; of equals the one with the higher PxAP. "" where no method has a value.
    tau: float64 (points,), Kendall's tau-b of the values against the methods' PxAP; NaN where either side is all ties.
    changes: how often, going through the thresholds, one method overtakes another, summed over pairs.
    """

    threshold: Floats
    methods: tuple[str, ...]
    ranks: Floats
    best: tuple[str, ...]
    tau: Floats
    changes: int


def transfer(counts: PixelCounts | Mapping[str, PixelCounts], threshold: float | Threshold, metric: str = "dice") -> Transfer:
    """A threshold that was chosen elsewhere, on the scored split: its value, the oracle's, the gap between, the plateau.

    Args:
        counts: of the scored split: pooled, or sample -> counts (needed for a threshold per sample).
        threshold: an edge, or a `Threshold`, which is put on the nearest edges.
        metric: "dice" or "iou", of the pooled pixels.

    Raises:
        ValueError: an unknown metric, no samples, bins that differ, a threshold that is no edge, or a threshold per sample with
            pooled counts.
    """
    if metric not in METRICS:
        raise ValueError(closest("threshold metric", metric, METRICS))
    if isinstance(counts, PixelCounts):
        total, here = counts, pooled_at([counts], threshold)
    else:
        every, samples = list(counts.values()), list(counts)
        total, here = PixelCounts.total(every), pooled_at(every, threshold, samples)
    if not total.positives.any():
        return Transfer(NAN, NAN, NAN, None, None)
    oracle = best_threshold(total, metric, source="test oracle")
    value, best = getattr(here, metric), getattr(total.at(oracle.value), metric)
    return Transfer(value, best, best - value, oracle, plateau(total, metric))


def oracle_spread(counts: Mapping[str, PixelCounts], metric: str = "dice", threshold: float | Threshold | None = None) -> Spread:
    """The best threshold of every sample on its own mask, how far these lie apart and what one threshold for all loses.

    Args:
        counts: sample -> counts.
        metric: "dice" or "iou", of each sample.
        threshold: the common one (or one per sample) that `lost` compares with, put on the nearest edges if a `Threshold`.
            None: the best for all samples pooled; `lost` is then due to the samples' differences alone.

    Raises:
        ValueError: an unknown metric, no samples, bins that differ, or a threshold that is no edge.
    """
    if metric not in METRICS:
        raise ValueError(closest("threshold metric", metric, METRICS))
    total = PixelCounts.total(counts.values())
    chosen = {sample: c for sample, c in counts.items() if c.positives.any()}
    if not chosen:
        return Spread({}, {}, NAN, NAN, NAN, NAN, NAN)
    common = best_threshold(total, metric, source="test oracle") if threshold is None else threshold
    values = {sample: best_threshold(c, metric, source="test oracle").value for sample, c in chosen.items()}
    best = {sample: getattr(c.at(values[sample]), metric) for sample, c in chosen.items()}
    reached = [getattr(pooled_at([c], common, [sample]), metric) for sample, c in chosen.items()]
    low, median, high = (float(q) for q in np.percentile(list(values.values()), [25, 50, 75]))
    return Spread(values, best, median, low, high, high - low, float(np.mean(list(best.values())) - np.mean(reached)))


def ranking_over_thresholds(counts: Mapping[str, PixelCounts], metric: str = "dice", points: int = 101) -> Ranking:
    """Which method is ahead at which threshold, and how far that agrees with the order by PxAP, which needs none.

    Args:
        counts: method -> counts, of the same pixels.
        metric: "dice", "iou", "precision", "recall", "dice_background" or "specificity": a fraction of `Curve`.
        points: thresholds from 0 to 1, evenly among the edges; no more than there are edges.

    Raises:
        ValueError: no methods, methods scored on different pixels or bins, an unknown metric, or a number of points that the
            edges do not offer.
    """
    known = ("dice", "iou", "precision", "recall", "dice_background", "specificity")
    if metric not in known:
        raise ValueError(closest("metric over thresholds", metric, known))
    methods = tuple(counts)
    pixels = {name: (c.bins, int(c.positives.sum()), int(c.negatives.sum())) for name, c in counts.items()}
    if len(set(pixels.values())) != 1:
        raise ValueError(
            f"methods must be scored on the same pixels, got (bins, positives, negatives) {pixels or 'of no method'}"
        )
    bins = counts[methods[0]].bins
    if not 2 <= points <= bins + 1:
        raise ValueError(f"points must lie between 2 and the {bins + 1} edges, got {points}")
    at = np.rint(np.linspace(0, bins, points)).astype(int)
    values = np.stack([getattr(c.curve(), metric)[at] for c in counts.values()])
    pxap = np.array([c.pxap for c in counts.values()])
    with np.errstate(invalid="ignore"):
        order = np.sign(values[:, None] - values[None, :])  # (m, m, points): 1 where the row is ahead, NaN where undefined
        expected = np.sign(pxap[:, None] - pxap[None, :])
    ranks = 1 + np.nansum(order == -1, axis=1) + (np.sum(order == 0, axis=1) - 1) / 2
    ranks[np.isnan(values)] = np.nan
    pairs = np.triu_indices(len(methods), 1)
    return Ranking(
        threshold=edges(bins)[at],
        methods=methods,
        ranks=ranks,
        best=_leaders(methods, values, pxap),
        tau=_tau(order[pairs], expected[pairs]),
        changes=_overtakings(order[pairs]),
    )


def _leaders(methods: tuple[str, ...], values: Floats, pxap: Floats) -> tuple[str, ...]:
    """Name of the best method at each point; of equals the one with the higher PxAP, then the first."""
    by_pxap = sorted(range(len(methods)), key=lambda i: -pxap[i] if pxap[i] == pxap[i] else np.inf)
    ordered = np.where(np.isnan(values), -1.0, values)[by_pxap]
    return tuple("" if column.max() < 0 else methods[by_pxap[int(column.argmax())]] for column in ordered.T)


def _tau(order: NDArray[np.float64], expected: NDArray[np.float64]) -> Floats:
    """Kendall's tau-b at each point, from the signs of the differences of all pairs: (pairs, points) against (pairs,).

    Pairs with an undefined value are left out.
    """
    other = np.where(np.isnan(order), np.nan, expected[:, None])
    agree, left, right = (np.nansum(a * b, axis=0) for a, b in ((order, other), (order, order), (other, other)))
    scale = np.sqrt(left * right)
    return np.divide(agree, scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def _overtakings(order: NDArray[np.float64]) -> int:
    """Changes of sign along the points, summed over pairs; ties and undefined values between two signs do not count."""
    changes = 0
    for signs in order:
        clear = signs[(signs == 1) | (signs == -1)]
        changes += int(np.count_nonzero(np.diff(clear)))
    return changes
