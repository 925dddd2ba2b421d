"""Score files as flat run records: one per dataset, model, checkpoint, fold, seed, map set, method and protocol.

A record is what a dashboard row shows. Rates are in percent here (the files keep fractions), threshold curves have integer steps
0..100 (percent of the score range), training curves have the epoch as step.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsol.tracking.origin import canonical, config_hash

RUN_KEYS = ("dataset", "model", "checkpoint", "fold", "seed", "set")
CURVES = ("dice", "iou", "precision", "recall")
RATES = {"pxap", "ap", "prevalence", "dice", "iou", "precision", "recall", "oracle_dice", "oracle_iou", "accuracy", "auc"}
"""Metric names whose values are fractions in the files and percent in a record."""

OF_A_CLASS = {"pxap", "ap", "prevalence", "dice", "samples"}
"""What a record keeps of a single class: a dashboard with everything of every class shows nothing."""

PLATEAU = 0.95
"""A threshold belongs to the plateau when its Dice reaches this share of the best."""


@dataclass(frozen=True)
class Picture:
    """An overlay of one sample: the file, and its place among the run's pictures (0 = worst Dice)."""

    sample: str
    path: Path
    step: int
    split: str


@dataclass
class Record:
    """One flat run: what was run (`key`, `params`), under which protocol (`tags`), with what result (the rest)."""

    key: dict[str, Any]
    name: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def run_key(self) -> str:
        """The hash that finds this run again."""
        return run_key(self.key)

    def put(self, name: str, value: float | None, factor: float = 1.0) -> None:
        """Notes a metric, rounded to 4 digits; a value that is None, NaN or infinite is noted as skipped."""
        if value is None or not math.isfinite(value):
            self.skipped.append(name)
        else:
            self.metrics[name] = round(float(value) * factor, 4)


def run_key(key: Mapping[str, Any]) -> str:
    """16 hex digits of what identifies a run; independent of the order of `key`."""
    return config_hash(key)


def read_history(path: str | Path) -> list[dict[str, float]]:
    """The rows of a training history.csv; empty cells and words are left out.

    Raises:
        ValueError: there is no column `epoch`.
    """
    with Path(path).open(newline="") as file:
        reader = csv.DictReader(file)
        if "epoch" not in (reader.fieldnames or []):
            raise ValueError(f"{path}: a training history has a column 'epoch'; got {reader.fieldnames}")
        return [{k: v for k, cell in row.items() if (v := _number(cell)) is not None} for row in reader]


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def records(
    scores: Iterable[Mapping[str, Any]],
    *,
    histories: Mapping[tuple[str, int, int], Sequence[Mapping[str, float]]] | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    root: str | Path = ".",
    pictures: int = 12,
) -> list[Record]:
    """The flat runs of many score files; the splits of one run become one record.

    Args:
        scores: contents of scores.json files, floors included.
        histories: (model, fold, seed) -> rows of its history.csv.
        params: model -> plain settings, logged as parameters (nested ones as ``train.lr``).
        root: folder that relative overlay paths start from.
        pictures: overlays kept for each split: the ranks of Dice spread evenly from worst to best.

    Raises:
        ValueError: a file lacks its key or its methods, or two files are about the same run and split.
    """
    found: dict[str, Record] = {}
    ordered = sorted(((*_checked_key(one), one) for one in scores), key=lambda item: (canonical(item[0]), item[1]))
    for key, split, one in ordered:
        for method, result in one["methods"].items():
            badges = {k: str(v) for k, v in result.get("badges", {}).items()}
            protocol = " | ".join(f"{k}: {v}" for k, v in sorted(badges.items()) if k != "code")
            record = _start({**key, "method": method, "protocol": protocol}, badges, one)
            record = found.setdefault(record.run_key, record)
            if f"{split}/samples" in record.metrics:
                raise ValueError(f"two score files are about {record.name}, split {split}; hand each over once")
            _scores(record, split, one, result)
            _threshold_curves(record, split, result)
            record.pictures += _pictures(split, result, Path(root), pictures)
            flat = _flat((params or {}).get(key["model"], {}))
            record.params |= {k: v for k, v in flat.items() if k not in record.params}
    for record in found.values():
        place = (str(record.key["model"]), int(record.key["fold"]), int(record.key["seed"]))
        _training_curves(record, (histories or {}).get(place, []))
        if record.skipped:
            record.tags["wsol.skipped"] = ", ".join(sorted(set(record.skipped)))
    return list(found.values())


def _checked_key(one: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    key = one.get("key", {})
    missing = [k for k in (*RUN_KEYS, "split") if k not in key]
    if missing or "methods" not in one:
        raise ValueError(f"not the content of a scores.json: {'no methods' if not missing else f'its key lacks {missing}'}")
    return {k: key[k] for k in RUN_KEYS}, str(key["split"])


def _start(key: dict[str, Any], badges: Mapping[str, str], one: Mapping[str, Any]) -> Record:
    floor = key["model"] == "floors"
    what = f"floor {key['method']}" if floor else f"{key['method']} · {key['model']} · {key['checkpoint']}"
    origin = one.get("provenance", {})
    tags = {f"badge.{k}": v for k, v in badges.items()}
    tags |= {"dataset": str(key["dataset"]), "kind": "floor" if floor else "localizer"}
    for name in ("code", "config", "created"):
        if origin.get(name):
            tags[f"wsol.{name}"] = str(origin[name])
    note = str(one.get("note") or "")
    if one.get("mask_means"):
        tags["mask_means"] = str(one["mask_means"])
    params = {k: str(v) for k, v in key.items() if k != "protocol"}
    inputs = {str(k): str(v) for k, v in (origin.get("inputs") or {}).items()}
    return Record(key, f"{what} · fold {key['fold']} · seed {key['seed']}", params, tags, inputs=inputs, note=note)


def _scores(record: Record, split: str, one: Mapping[str, Any], result: Mapping[str, Any]) -> None:
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


def _threshold_curves(record: Record, split: str, result: Mapping[str, Any]) -> None:
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
    dice = dict(record.curves.get(f"{section}/dice", []))
    if dice and max(dice.values()) > 0:
        record.put(f"{split}/plateau_pct", sum(v >= PLATEAU * max(dice.values()) for v in dice.values()) / len(dice), 100)


def _training_curves(record: Record, rows: Sequence[Mapping[str, float]]) -> None:
    """Columns ``train_x`` become ``train/x``, ``val_x`` and ``valcl_x`` become ``val/x``, the rest belongs to training."""
    for row in rows:
        for column, value in row.items():
            if column == "epoch" or not math.isfinite(value):
                continue
            found = re.fullmatch(r"(train|valcl|valpx|val)[_/](.+)", column)
            section, name = found.groups() if found else ("train", column)
            rate = any(name == r or name.endswith(f"_{r}") for r in RATES)
            point = (int(row["epoch"]), round(value * 100, 4) if rate else float(f"{value:.6g}"))
            record.curves.setdefault(f"{'val' if section == 'valcl' else section}/{name}", []).append(point)


def _pictures(split: str, result: Mapping[str, Any], root: Path, limit: int) -> list[Picture]:
    drawn = [(s, v) for s, v in (result.get("samples") or {}).items() if v.get("overlay")]
    drawn.sort(key=lambda item: (-1.0 if item[1].get("dice") is None else item[1]["dice"], item[0]))
    ranks = range(len(drawn)) if len(drawn) <= limit else [round(i * (len(drawn) - 1) / (limit - 1)) for i in range(limit)]
    return [Picture(drawn[r][0], root / drawn[r][1]["overlay"], step, split) for step, r in enumerate(ranks)]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def _plain(name: str) -> str:
    """`name` in the letters a metric may have."""
    return re.sub(r"[^A-Za-z0-9_.: -]", "_", name)
