"""One object for a threshold: its value, its direction and where it comes from. Chosen here, applied everywhere.

The field's code reports a mirrored threshold (1 - t) chosen on the test masks. Here a threshold is an edge of the score bins,
it always means score >= value, and it cannot be made without naming its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsol._names import closest
from wsol.evaluation.counts import Counts, Floats, PixelCounts, edges

SOURCES = ("validation masks", "fixed", "otsu", "test oracle")
"""Where a threshold may come from."""

METRICS = ("dice", "iou")
"""What a threshold may be best at. Both are best at the same place; the plateau differs."""


@dataclass(frozen=True)
class Threshold:
    """A threshold on scores in [0, 1]: a pixel is positive iff score >= value.

    Args:
        value: in [0, 1].
        source: one of `SOURCES`.
        direction: always ">="; written to files so that nobody has to guess.
        masks: how many masks it was chosen on; needed by the source "validation masks" for its badge, else None.

    Raises:
        ValueError: a value outside [0, 1], an unknown source or another direction.
    """

    value: float
    source: str
    direction: str = ">="
    masks: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a threshold must lie in [0, 1], got {self.value!r}")
        if self.source not in SOURCES:
            raise ValueError(closest("threshold source", self.source, SOURCES))
        if self.direction != ">=":
            raise ValueError(f"a threshold's direction is '>=' (positive iff score >= value), got {self.direction!r}")

    @property
    def badge(self) -> str:
        """The `threshold` badge of a number made with it.

        Raises:
            ValueError: the source is "validation masks" and their number is unknown.
        """
        if self.source == "validation masks":
            if not self.masks:
                raise ValueError("a threshold from validation masks must say how many there were: Threshold(..., masks=6)")
            return f"validation masks ({self.masks})"
        return "label-free (otsu)" if self.source == "otsu" else self.source

    def apply(self, score: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Bool mask of `score`, the same pixels that counts call positive.

        A plain ``score >= 0.35`` rounds 0.35 to float32 first and so flags scores just below it.
        """
        smallest = np.float32(self.value)
        if float(smallest) < self.value:
            smallest = np.nextafter(smallest, np.float32(2))
        return np.asarray(score, np.float32) >= smallest

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        facts: dict[str, Any] = {"value": self.value, "source": self.source, "direction": self.direction}
        return facts if self.masks is None else {**facts, "masks": self.masks}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Threshold:
        """What `to_dict` wrote.

        Raises:
            ValueError: a key is missing or unknown.
        """
        known = ("value", "source", "direction", "masks")
        for key in facts:
            if key not in known:
                raise ValueError(closest("threshold key", key, known))
        if missing := [key for key in known[:3] if key not in facts]:
            raise ValueError(f"a threshold needs {', '.join(missing)}; got {dict(facts)}")
        return cls(**facts)


class Plateau(NamedTuple):
    """The range of thresholds around the best one that are nearly as good."""

    low: float
    high: float
    width: float


def middle_of_best(values: Floats) -> int | None:
    """Index of the middle of the longest run of best values (the lower middle; the lowest run of several); None if all are NaN.

    A map with few distinct scores has whole runs of thresholds that flag the same pixels. The middle of a run is the one that
    other images move least.
    """
    if np.isnan(values).all():
        return None
    best = np.flatnonzero(values == np.nanmax(values))
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    longest = max(runs, key=len)  # the first of equals
    return int(longest[(len(longest) - 1) // 2])


def _values(counts: PixelCounts, metric: str) -> Floats:
    if metric not in METRICS:
        raise ValueError(closest("threshold metric", metric, METRICS))
    if not counts.positives.any():
        raise ValueError(f"no threshold is best at {metric}: the masks hold no positive pixel; use otsu() or a fixed threshold")
    return getattr(counts.curve(), metric)


def best_threshold(
    counts: PixelCounts, metric: str = "dice", *, source: str = "validation masks", masks: int | None = None
) -> Threshold:
    """The edge at which `counts` score best; of a run of equals the middle (see `middle_of_best`).

    Args:
        counts: pooled over the masks of one role.
        metric: "dice" or "iou".
        source: whose masks were counted. Counts do not know; whoever counts test masks must say "test oracle".
        masks: how many masks were counted.

    Raises:
        ValueError: an unknown metric or source, or counts without positives.
    """
    values = _values(counts, metric)
    at = middle_of_best(values)
    assert at is not None  # there are positives, so Dice and IoU are defined everywhere
    return Threshold(float(edges(counts.bins)[at]), source, masks=masks)


def plateau(counts: PixelCounts, metric: str = "dice", share: float = 0.95) -> Plateau:
    """The unbroken range of edges around the best one that keep at least `share` of its value: how little the threshold matters.

    Raises:
        ValueError: an unknown metric, a share outside (0, 1], or counts without positives.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    values = _values(counts, metric)
    at = middle_of_best(values)
    assert at is not None
    worse = np.flatnonzero(values < share * values[at])
    low = int(worse[worse < at].max(initial=-1)) + 1
    high = int(worse[worse > at].min(initial=values.size)) - 1
    grid = edges(counts.bins)
    return Plateau(float(grid[low]), float(grid[high]), float(grid[high] - grid[low]))


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
