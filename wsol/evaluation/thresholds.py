"""One object for a threshold: its value, its direction and where it comes from. Chosen here, applied everywhere.

The field's code reports a mirrored threshold (1 - t) chosen on the test masks. Here a threshold is an edge of the score bins,
it always means score >= value, and it cannot be made without naming its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median_high, median_low
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsol._names import closest
from wsol.evaluation.counts import Floats, PixelCounts, edges

SOURCES = ("validation masks", "fixed", "otsu", "per-image otsu", "prevalence-matched", "conformal", "test oracle")
"""Where a threshold may come from."""

METRICS = ("dice", "iou")
"""What a threshold may be best at. Both are best at the same place; the plateau differs."""

NEEDED: dict[str, tuple[str, ...]] = {
    "prevalence-matched": ("prevalence", "from"),
    "conformal": ("bound", "level", "area", "patients"),
}
"""Facts that a threshold of a source must state."""

MAY_SAY: dict[str, tuple[str, ...]] = {
    "per-image otsu": ("constant",),
    "prevalence-matched": ("flagged",),
    "conformal": ("confidence", "within"),
}
"""Facts that it may state besides."""

_WORDS = {"bound": ("marginal", "confident"), "within": ("pooled", "worst"), "from": ("given", "validation masks")}
_WHOLE = {"patients": 1, "constant": 0}  # fact -> its smallest number; every other fact is a share


def _check_facts(source: str, facts: Mapping[str, Any]) -> None:
    needed = NEEDED.get(source, ())
    known = needed + MAY_SAY.get(source, ())
    for name, fact in facts.items():
        if name not in known:
            raise ValueError(closest(f"fact of a threshold from {source!r}", name, known))
        if name in _WORDS:
            if fact not in _WORDS[name]:
                raise ValueError(closest(f"threshold fact {name}", str(fact), _WORDS[name]))
        elif name in _WHOLE:
            if isinstance(fact, bool) or not isinstance(fact, int) or fact < _WHOLE[name]:
                raise ValueError(f"threshold fact {name} must be a whole number from {_WHOLE[name]} up, got {fact!r}")
        elif isinstance(fact, bool) or not isinstance(fact, int | float) or not 0.0 <= fact <= 1.0:
            raise ValueError(f"threshold fact {name} must be a share in [0, 1], got {fact!r}")
    if missing := [name for name in needed if name not in facts]:
        raise ValueError(f"a threshold from {source!r} must state {', '.join(missing)} in its facts; got {dict(facts)}")


def _check_values(source: str, value: float, values: Mapping[str, float]) -> None:
    if source not in ("per-image otsu", "test oracle"):
        raise ValueError(f"only 'per-image otsu' and 'test oracle' have a threshold per sample, got values from {source!r}")
    if not values or "" in values:
        raise ValueError("values must hold at least one sample, each with a name; leave values=None for one threshold for all")
    for sample, one in values.items():
        if not 0.0 <= one <= 1.0:
            raise ValueError(f"a threshold must lie in [0, 1], got {one!r} for sample {sample!r}")
    every = list(values.values())
    if not median_low(every) <= value <= median_high(every):
        raise ValueError(f"the value of a threshold per sample is their median, {median_low(every)!r}; got {value!r}")


def smallest_flagged(value: float) -> np.float32:
    """The smallest float32 score that is >= `value`: what every comparison with a threshold must use.

    A plain ``score >= 0.35`` rounds 0.35 to float32 first and so flags scores just below it, which counts do not.

    Raises:
        ValueError: a value outside [0, 1], or NaN.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"a threshold must lie in [0, 1], got {value!r}")
    smallest = np.float32(value)
    return np.nextafter(smallest, np.float32(2)) if float(smallest) < value else smallest


@dataclass(frozen=True)
class Threshold:
    """A threshold on scores in [0, 1]: a pixel is positive iff score >= value.

    Args:
        value: in [0, 1]. With `values` their median (the lower of two, which is an edge too).
        source: one of `SOURCES`.
        direction: always ">="; written to files so that nobody has to guess.
        masks: how many masks it was chosen on; needed by the source "validation masks" for its badge, and by
            "prevalence-matched" where the prevalence is that of masks; else None.
        values: sample -> its own threshold, where each has one ("per-image otsu", or a "test oracle" per image); else None.
        facts: what else a reader of the source needs to know, plain values; see `NEEDED` and `MAY_SAY`. "prevalence-matched":
            prevalence, from ("given" or "validation masks"), flagged. "conformal": bound, level, area, patients, confidence,
            within. "per-image otsu": constant (samples of one score only, which got 0.5).

    Raises:
        ValueError: a value outside [0, 1] or not the median of `values`, an unknown source, another direction, facts that are
            missing, unknown or out of range, values for a source that has one threshold for all.
    """

    value: float
    source: str
    direction: str = ">="
    masks: int | None = None
    values: Mapping[str, float] | None = field(default=None, hash=False)
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a threshold must lie in [0, 1], got {self.value!r}")
        if self.source not in SOURCES:
            raise ValueError(closest("threshold source", self.source, SOURCES))
        if self.direction != ">=":
            raise ValueError(f"a threshold's direction is '>=' (positive iff score >= value), got {self.direction!r}")
        _check_facts(self.source, self.facts)
        object.__setattr__(self, "facts", dict(self.facts))
        if self.values is not None:
            _check_values(self.source, self.value, self.values)
            object.__setattr__(self, "values", dict(self.values))
        elif self.source == "per-image otsu":
            raise ValueError("a threshold from 'per-image otsu' has one value per sample: Threshold.per_sample(values, source)")

    @classmethod
    def per_sample(cls, values: Mapping[str, float], source: str, **facts: Any) -> Threshold:
        """One threshold per sample (name -> value); its `value` is their lower median."""
        if not values:
            raise ValueError("a threshold per sample needs at least one sample, got none")
        return cls(median_low(values.values()), source, values=values, facts=facts)

    def at(self, sample: str | None = None) -> float:
        """The threshold of `sample`: its own where each has one, else the one for all; without a name always `value`.

        Raises:
            ValueError: there is a threshold per sample and none for this one.
        """
        if self.values is None or sample is None:
            return self.value
        if sample not in self.values:
            raise ValueError(closest("sample of the threshold", sample, self.values))
        return self.values[sample]

    def on_edges(self, bins: int) -> Threshold:
        """The same threshold on the nearest edges of `bins` bins, where counts can tell it exactly."""

        def edge(value: float) -> float:
            return float(edges(bins)[round(value * bins)])

        values = None if self.values is None else {sample: edge(v) for sample, v in self.values.items()}
        value = edge(self.value) if values is None else median_low(values.values())
        return replace(self, value=value, values=values)

    @property
    def badge(self) -> str:
        """The `threshold` badge of a number made with it.

        Raises:
            ValueError: the threshold comes from validation masks and their number is unknown.
        """
        if "validation masks" in (self.source, self.facts.get("from")) and not self.masks:
            raise ValueError("a threshold from validation masks must say how many there were: Threshold(..., masks=6)")
        if self.source == "validation masks":
            return f"validation masks ({self.masks})"
        if self.source == "prevalence-matched":
            return f"prevalence-matched ({'given' if self.facts['from'] == 'given' else f'{self.masks} masks'})"
        if self.source == "conformal":
            return f"conformal ({self.facts['patients']} negative patients)"
        return f"label-free ({self.source})" if self.source.endswith("otsu") else self.source

    def apply(self, score: NDArray[np.float32], sample: str | None = None) -> NDArray[np.bool_]:
        """Bool mask of `score`, the same pixels that counts call positive; `sample` as in `at`.

        Raises:
            ValueError: as `at`.
        """
        return np.asarray(score, np.float32) >= smallest_flagged(self.at(sample))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; what is not there (masks, values, facts) is left out."""
        plain: dict[str, Any] = {"value": self.value, "source": self.source, "direction": self.direction}
        if self.masks is not None:
            plain["masks"] = self.masks
        if self.values is not None:
            plain["values"] = dict(self.values)
        return {**plain, "facts": dict(self.facts)} if self.facts else plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Threshold:
        """What `to_dict` wrote.

        Raises:
            ValueError: a key is missing or unknown.
        """
        known = ("value", "source", "direction", "masks", "values", "facts")
        for key in plain:
            if key not in known:
                raise ValueError(closest("threshold key", key, known))
        if missing := [key for key in known[:3] if key not in plain]:
            raise ValueError(f"a threshold needs {', '.join(missing)}; got {dict(plain)}")
        return cls(**plain)


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
