"""The numbers of a score file as the metrics and curves of a record: percent where they are rates, few of each kind."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from wsol.tracking.record import Record

CURVES = ("dice", "iou", "precision", "recall")
RATES = {
    "pxap", "ap", "normalized_ap", "auc", "prevalence", "dice", "dice_background", "iou", "precision", "recall", "specificity",
    "oracle_dice", "oracle_iou", "accuracy",
}  # fmt: skip
"""Metric names whose values are fractions in the files and percent in a record."""

OF_A_CLASS = {"pxap", "ap", "prevalence", "dice", "samples"}
"""What a record keeps of a single class: a dashboard with everything of every class shows nothing."""


MORE: dict[str, tuple[str, ...]] = {
    "image_pxap": ("macro", "image", "pxap"),
    "slide_pxap": ("macro", "slide", "pxap"),
    "patient_pxap": ("macro", "patient", "pxap"),
    "patient_dice": ("macro", "patient", "dice"),
    "dice_lost_per_image": ("transfer", "oracle_spread", "lost"),
    "plateau_pct": ("transfer", "plateau_width"),
    "over_activated": ("activation", "over"),
    "under_activated": ("activation", "under"),
    "lesions_hit": ("regions", "hit"),
    "predicted_regions_right": ("regions", "predicted_right"),
    "froc": ("regions", "froc", "score"),
    "max_box_acc": ("boxes", "max_box_acc"),
    "max_box_acc_v2": ("boxes", "max_box_acc_v2"),
    "gt_known_error": ("boxes", "gt_known_error"),
    "top1_error": ("boxes", "top1_error"),
}
"""Rates that a newer file may have of a method, and where they stand in it."""

DECISIONS = {"ece": ("ece", 100.0), "brier": ("brier", 1.0), "classification_auc": ("auc", 100.0)}
"""What a record keeps of the classification of samples: name -> (name in the file, factor); a Brier score is no rate."""


def put_scores(record: Record, split: str, one: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """All metrics of one method on one split: `one` is the score file, `result` its entry of the method."""
    for group, values in result["groups"].items():
        if group == "all":
            _group(record, split, values)
        else:
            kept = {k: v for k, v in values.items() if k.removesuffix("_interval") in OF_A_CLASS}
            _group(record, f"{split}_{_plain(group)}", kept)
    parts = (
        ("classification", one.get("classification"), ("accuracy", "balanced_accuracy")),
        ("negatives", result.get("negatives"), ("flagged_area",)),
    )
    for part, values, names in parts:
        if not values:
            continue
        for name in names:
            record.put(f"{split}/{name}", values.get(name), 100)
        _interval(record, f"{split}/{names[0]}", values.get("interval"))
        if part == "negatives":
            record.put(f"{split}/negative_samples", values.get("samples"))
    chosen, oracle = (result.get(k) or {} for k in ("threshold", "oracle"))
    record.put(f"{split}/threshold_pct", chosen.get("value"), 100)
    record.put(f"{split}/oracle_threshold_pct", oracle.get("value"), 100)
    if chosen.get("source"):
        record.tags["threshold_source"] = str(chosen["source"])
    pooled = result["groups"].get("all", {})
    if pooled.get("dice") is not None and pooled.get("oracle_dice") is not None:
        record.put(f"{split}/dice_lost_to_threshold", pooled["oracle_dice"] - pooled["dice"], 100)
    record.put(f"{split}/seconds_per_sample", result.get("seconds"))
    _more(record, split, one, result)


def _more(record: Record, split: str, one: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """What only newer files have; a part that is missing or null is not noted as skipped."""
    for name, path in MORE.items():
        if (place := _at(result, path[:-1])) is not None:
            record.put(f"{split}/{name}", place.get(path[-1]), 100)
    samples = _at(one, ("classification", "levels", "sample"))
    if samples is not None:
        for name, (there, factor) in DECISIONS.items():
            record.put(f"{split}/{name}", samples.get(there), factor)


def _at(place: Any, path: Sequence[str]) -> Any:
    """What stands at `path` in nested mappings; None where it ends early."""
    for name in path:
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _group(record: Record, prefix: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name.endswith("_interval"):
            _interval(record, f"{prefix}/{name.removesuffix('_interval')}", value)
        elif name in RATES:
            record.put(f"{prefix}/{name}", value, 100)
        else:
            record.put(f"{prefix}/{name}", value)


def _interval(record: Record, name: str, interval: Sequence[float] | None) -> None:
    for end, value in zip(("low", "high"), interval or (), strict=False):
        record.put(f"{name}_{end}", value, 100)


def put_curves(record: Record, split: str, result: Mapping[str, Any]) -> None:
    """Curves of `test` are sections ``threshold_pct/``, those of another split ``threshold_pct_<split>/``; steps are percent."""
    curve = result.get("curve") or {}
    steps = [round(100 * t) for t in curve.get("threshold", [])]
    if len(set(steps)) != len(steps):
        raise ValueError(
            f"{record.name}: a logged curve has one point for each percent of threshold; got {len(steps)} thresholds"
        )
    section = "threshold_pct" if split == "test" else f"threshold_pct_{split}"
    for name in CURVES:
        points = [
            (s, round(100 * float(v), 4))
            for s, v in zip(steps, curve.get(name) or [], strict=False)
            if v is not None and math.isfinite(v)
        ]
        if points:
            record.curves[f"{section}/{name}"] = points


def _plain(name: str) -> str:
    """`name` in the letters a metric may have."""
    return re.sub(r"[^A-Za-z0-9_.: -]", "_", name)
