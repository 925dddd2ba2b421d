"""Score files as the rows of a leaderboard: one row per split, model, checkpoint and method, folds and seeds put together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RATES = (
    "pxap", "ap", "normalized_ap", "auc", "prevalence", "dice", "dice_background", "iou", "precision", "recall", "specificity",
    "oracle_dice", "oracle_iou",
)  # fmt: skip
UNITS = ("image", "slide", "patient")
FACTS: dict[str, tuple[str, ...]] = {
    "threshold_gap": ("transfer", "gap"),
    "plateau": ("transfer", "plateau_width"),
    "threshold_iqr": ("transfer", "oracle_spread", "iqr"),
    "lost_per_image": ("transfer", "oracle_spread", "lost"),
    "true_area": ("activation", "true_area"),
    "activated_area": ("activation", "activated_area"),
    "false_positive_area": ("activation", "false_positive_area"),
    "false_negative_area": ("activation", "false_negative_area"),
    "over_activated": ("activation", "over"),
    "under_activated": ("activation", "under"),
    "lesions_hit": ("regions", "hit"),
    "predicted_right": ("regions", "predicted_right"),
    "froc": ("regions", "froc", "score"),
    "max_box_acc": ("boxes", "max_box_acc"),
    "max_box_acc_v2": ("boxes", "max_box_acc_v2"),
    "gt_known_error": ("boxes", "gt_known_error"),
    "top1_error": ("boxes", "top1_error"),
    **{f"{unit}_{name}": ("macro", unit, name) for unit in UNITS for name in ("pxap", "dice", "iou")},
}
"""Numbers that a file may have of a method, and where they stand in it."""

CURVES = ("dice", "iou", "precision", "recall")
PLATEAU = 0.95
"""A threshold belongs to the plateau when its Dice reaches this share of the best."""

KEY = ("dataset", "split", "model", "checkpoint", "set")


@dataclass(frozen=True)
class Value:
    """A number over the runs (folds x seeds) of a row, as fraction or in its own unit; None where no run defines it.

    One run has its interval (`low`, `high`), several have their standard deviation (`spread`) instead: intervals of folds cannot
    be averaged.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    runs: int = 0

    @property
    def lower(self) -> float | None:
        """What the value may well be at worst: the interval's end, or one deviation below the mean."""
        if self.mean is None or self.spread is None:
            return self.low
        return self.mean - self.spread


NOTHING = Value(None)


def at(place: Any, path: Sequence[str]) -> Any:
    """What stands at `path` in nested mappings; None where it ends early."""
    for name in path:
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


@dataclass
class Row:
    """A line of the leaderboard. `values` holds ``pxap`` ... for all samples and ``pxap:<class>`` ... for one class."""

    dataset: str
    split: str
    model: str
    checkpoint: str
    set: str
    method: str
    values: dict[str, Value] = field(default_factory=dict)
    badges: dict[str, list[str]] = field(default_factory=dict)
    folds: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    samples: int = 0
    patients: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)
    parts: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = field(default_factory=list)
    """(content of scores.json, its entry of this method), one for each run."""

    @property
    def floor(self) -> bool:
        """Whether it is a floor: a map that needs no training."""
        return self.model == "floors"

    @property
    def as_published(self) -> str:
        """Defects of the published code that it was made with on purpose, "" for none."""
        return " / ".join(self.badges.get("as_published", []))

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return self.method if self.floor else f"{self.method} of {self.model} ({self.checkpoint})"

    @property
    def runs(self) -> int:
        """Number of folds x seeds behind the row."""
        return len(self.parts)

    def value(self, name: str) -> Value:
        """A value by name; one that nothing defines is empty."""
        return self.values.get(name, NOTHING)

    def found(self, *path: str) -> list[Any]:
        """What stands at `path` in the entries of its runs; runs without it are left out."""
        return [there for _, result in self.parts if (there := at(result, path)) is not None]

    def fact(self, *path: str, interval: Sequence[str] = ()) -> Value:
        """The number at `path` over its runs; `interval` is the path of its ends."""
        return over(
            [{"value": at(r, path), "ends": at(r, interval) if interval else None} for _, r in self.parts], "value", "ends"
        )


def rows(scores: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The leaderboard of score files: by dataset and split (test first), best pooled PxAP first, floors last.

    What was made with a defect of the published code stands below all that was not, whatever its PxAP.

    Raises:
        ValueError: something is not the content of a scores.json, or one run and split comes twice.
    """
    found: dict[tuple[str, ...], Row] = {}
    for one in scores:
        key = one.get("key", {})
        missing = [k for k in (*KEY, "fold", "seed") if k not in key]
        if missing or "methods" not in one:
            raise ValueError(
                f"not the content of a scores.json: {f'its key lacks {missing}' if missing else 'it has no methods'}"
            )
        for method, result in one["methods"].items():
            place = (*(str(key[k]) for k in KEY), method)
            row = found.setdefault(place, Row(*place))
            if any((p[0]["key"]["fold"], p[0]["key"]["seed"]) == (key["fold"], key["seed"]) for p in row.parts):
                raise ValueError(f"two score files are about {row.name}, {row.split}, fold {key['fold']}, seed {key['seed']}")
            row.parts.append((one, result))
    for row in found.values():
        _fill(row)
    order = {"test": 0, "valcl": 1}

    def rank(r: Row) -> tuple[Any, ...]:
        below = 2 if r.floor else 1 if r.as_published else 0
        return r.dataset, order.get(r.split, 2), r.split, below, -(r.value("pxap").mean or 0.0), r.name

    return sorted(found.values(), key=rank)


def _fill(row: Row) -> None:
    keys = [one["key"] for one, _ in row.parts]
    row.folds, row.seeds = sorted({int(k["fold"]) for k in keys}), sorted({int(k["seed"]) for k in keys})
    row.classes = list(dict.fromkeys(c for one, _ in row.parts for c in one.get("classes", [])))
    results = [result for _, result in row.parts]
    for group in dict.fromkeys(g for r in results for g in r["groups"]):
        groups = [r["groups"].get(group) or {} for r in results]
        for name in RATES:
            row.values[name if group == "all" else f"{name}:{group}"] = over(groups, name, f"{name}_interval")
    row.values["flagged_area"] = over([r.get("negatives") or {} for r in results], "flagged_area", "interval")
    classification = [one.get("classification") or {} for one, _ in row.parts]
    row.values["accuracy"] = over(classification, "accuracy", "interval")
    row.values["balanced_accuracy"] = over(classification, "balanced_accuracy", "")
    row.values["threshold"] = over([r.get("threshold") or {} for r in results], "value", "")
    row.values["oracle_threshold"] = over([r.get("oracle") or {} for r in results], "value", "")
    row.values["seconds"] = over(results, "seconds", "")
    row.values |= {name: value for name, path in FACTS.items() if (value := row.fact(*path)).mean is not None}
    for name in dict.fromkeys(b for r in results for b in r.get("badges", {})):
        row.badges[name] = list(dict.fromkeys(str(r.get("badges", {}).get(name, "?")) for r in results))
    pooled = [r["groups"].get("all") or {} for r in results]
    names = {(s, str(v.get("patient") or "")) for r in results for s, v in (r.get("samples") or {}).items()}
    row.samples = len(names) or max((int(g.get("samples") or 0) for g in pooled), default=0)
    row.patients = len({p for _, p in names if p}) or max((int(g.get("patients") or 0) for g in pooled), default=0)
    row.curves = _mean_curves(results)


def over(places: Sequence[Mapping[str, Any]], name: str, interval: str = "") -> Value:
    """The number `name` over runs, one mapping for each; a single run keeps the ends that stand under `interval`."""
    numbers = [float(v) for p in places if (v := p.get(name)) is not None and math.isfinite(v)]
    if not numbers:
        return NOTHING
    if len(places) == 1:
        low, high = places[0].get(interval) or (None, None)
        return Value(numbers[0], low, high, None, 1)
    spread = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Value(statistics.fmean(numbers), None, None, spread, len(numbers))


def plateau(curve: Mapping[str, Sequence[float | None]]) -> list[bool]:
    """For each threshold of a curve, whether its Dice is within 95 % of the best."""
    dice = [v or 0.0 for v in curve.get("dice") or []]
    best = max(dice, default=0.0)
    return [best > 0 and v >= PLATEAU * best for v in dice]


def _mean_curves(results: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Curves averaged over the runs at each threshold; NaN where no run defines a value. Empty when thresholds differ."""
    curves = [c for r in results if (c := r.get("curve"))]
    if not curves or any(list(c["threshold"]) != list(curves[0]["threshold"]) for c in curves):
        return {}
    mean: dict[str, list[float]] = {"threshold": [float(t) for t in curves[0]["threshold"]]}
    for name in CURVES:
        columns = zip(*(c[name] for c in curves if c.get(name)), strict=True)
        mean[name] = [statistics.fmean(v) if (v := [x for x in column if x is not None]) else math.nan for column in columns]
    return mean
