"""Thresholds that see no mask of the samples they are used on: Otsu's, pooled or of each image, and a matched prevalence."""

from __future__ import annotations

import numpy as np

from wsol.evaluation.counts import Counts, edges
from wsol.evaluation.thresholds import Threshold, middle_of_best


def otsu(histogram: Counts, bins: int = 1000) -> Threshold:
    """The edge that parts all scores into two groups with the largest variance between them (Otsu, 1979). Sees no mask.

    Scores that all fall in one bin have no two groups; the answer is then 0.5 and its source says "fixed".

    Args:
        histogram: int64 (bins + 1,) from `score_histogram` (add several up) or `PixelCounts.histogram`.
        bins: bins below 1; the last entry of `histogram` is the scores that are exactly 1.

    Raises:
        ValueError: no such histogram, or one without pixels.
    """
    counts = np.asarray(histogram)
    if counts.shape != (bins + 1,) or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(
            f"otsu needs integer counts ({bins + 1},) from score_histogram(bins={bins}), got {counts.dtype} {counts.shape}"
        )
    if counts.min() < 0 or not counts.any():
        raise ValueError(
            f"otsu needs at least one pixel and no negative count, got a sum of {counts.sum()}, minimum {counts.min()}"
        )
    if np.count_nonzero(counts) == 1:
        return Threshold(0.5, "fixed")
    grid = edges(bins)
    centers = np.append((grid[:-1] + grid[1:]) / 2, 1.0)
    below = np.cumsum(counts)[:-1].astype(np.float64)  # pixels below edge 1, 2, ...
    total, moment = float(counts.sum()), np.cumsum(counts * centers)
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = moment[:-1] / below - (moment[-1] - moment[:-1]) / above
    between = np.where((below > 0) & (above > 0), below * above * gap**2, 0.0)
    same = np.isclose(between, between.max(), rtol=1e-12, atol=0.0)  # empty bins between the groups: equal but for rounding
    at = middle_of_best(np.where(same, 1.0, 0.0))
    assert at is not None
    return Threshold(float(grid[at + 1]), "otsu")
