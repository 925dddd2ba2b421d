"""Thresholds that see no mask of the samples they are used on: Otsu's, pooled or of each image, and a matched prevalence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wsol.evaluation.counts import Counts, at_least, edges
from wsol.evaluation.thresholds import Threshold, middle_of_best


def _checked(histogram: Counts, bins: int, who: str) -> Counts:
    counts = np.asarray(histogram)
    if counts.shape != (bins + 1,) or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(
            f"{who} needs integer counts ({bins + 1},) from score_histogram(bins={bins}), got {counts.dtype} {counts.shape}"
        )
    if counts.min() < 0 or not counts.any():
        raise ValueError(
            f"{who} needs at least one pixel and no negative count, got a sum of {counts.sum()}, minimum {counts.min()}"
        )
    return counts


def otsu(histogram: Counts, bins: int = 1000) -> Threshold:
    """The edge that parts all scores into two groups with the largest variance between them (Otsu, 1979). Sees no mask.

    Scores that all fall in one bin have no two groups; the answer is then 0.5 and its source says "fixed".

    Args:
        histogram: int64 (bins + 1,) from `score_histogram` (add several up) or `PixelCounts.histogram`.
        bins: bins below 1; the last entry of `histogram` is the scores that are exactly 1.

    Raises:
        ValueError: no such histogram, or one without pixels.
    """
    counts = _checked(histogram, bins, "otsu")
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


def per_image_otsu(histograms: Mapping[str, Counts], bins: int = 1000) -> Threshold:
    """Otsu's threshold of each sample from its own scores alone: what remains to be done with a single image.

    An image without anything to find is parted in two all the same, so its flagged area is never small; a threshold for all
    images can say "nothing here". A sample of one score only gets 0.5; the fact "constant" counts such samples.

    Args:
        histograms: sample -> int64 (bins + 1,), its own `score_histogram`.
        bins: as in `otsu`.

    Returns:
        One value per sample; `value` is their lower median.

    Raises:
        ValueError: no samples, or a histogram that `otsu` refuses; the message names the sample.
    """
    if not histograms:
        raise ValueError("per-image otsu needs at least one sample, got none")
    found = {sample: otsu(_checked(h, bins, f"otsu of sample {sample!r}"), bins) for sample, h in histograms.items()}
    constant = sum(threshold.source == "fixed" for threshold in found.values())
    return Threshold.per_sample({sample: t.value for sample, t in found.items()}, "per-image otsu", constant=constant)


def prevalence_matched(histogram: Counts, prevalence: float, *, masks: int | None = None, bins: int = 1000) -> Threshold:
    """The edge that flags as large a share of all pixels as is expected to be foreground (quantile of the pooled scores).

    Of all edges those whose flagged share is nearest to `prevalence`; of two shares equally near the smaller one; of edges that
    flag the same pixels the middle one (as `middle_of_best`). The fact "flagged" is the share that is flagged really: scores
    with large ties, as of a constant map, may be far from any share.

    Args:
        histogram: int64 (bins + 1,) from `score_histogram`, pooled over samples.
        prevalence: expected share of foreground, in [0, 1].
        masks: how many validation masks the prevalence was counted on; None: it was given, no mask was opened.
        bins: as in `otsu`.

    Raises:
        ValueError: no such histogram, or a prevalence that is NaN or outside [0, 1].
    """
    counts = _checked(histogram, bins, "a prevalence-matched threshold")
    if not 0.0 <= prevalence <= 1.0:
        raise ValueError(f"a prevalence is a share in [0, 1], got {prevalence!r}")
    share = at_least(counts) / counts.sum()  # falls with the edge
    away = np.abs(share - prevalence)
    near = np.isclose(away, away.min(), rtol=0.0, atol=1e-12)
    at = middle_of_best(np.where(near & (share == share[near].min()), 1.0, 0.0))
    assert at is not None
    facts = {
        "prevalence": float(prevalence),
        "from": "given" if masks is None else "validation masks",
        "flagged": float(share[at]),
    }
    return Threshold(float(edges(bins)[at]), "prevalence-matched", masks=masks, facts=facts)
