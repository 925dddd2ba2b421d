"""Score files as flat run records: one per dataset, model, checkpoint, fold, seed, map set, method and protocol.

A record is what a dashboard row shows. Rates are in percent here (the files keep fractions), threshold curves have integer steps
0..100 (percent of the score range), training curves have the epoch as step.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsol.tracking.metrics import RATES, put_curves, put_scores
from wsol.tracking.origin import canonical
from wsol.tracking.record import Picture, Record

RUN_KEYS = ("dataset", "model", "checkpoint", "fold", "seed", "set")


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
    audit: Mapping[str, Mapping[str, int]] | None = None,
    weights: Mapping[tuple[str, int, int, str], Path] | None = None,
    root: str | Path = ".",
    pictures: int = 12,
) -> list[Record]:
    """The flat runs of many score files; the splits of one run become one record.

    Args:
        scores: contents of scores.json files, floors included.
        histories: (model, fold, seed) -> rows of its history.csv.
        params: model -> plain settings, logged as parameters (nested ones as ``train.lr``).
        audit: dataset -> ``{"errors", "warnings"}``, how many the auditor found; tags of every run of the dataset.
        weights: (model, fold, seed, checkpoint) -> its checkpoint (.safetensors).
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
            put_scores(record, split, one, result)
            put_curves(record, split, result)
            record.pictures += _pictures(split, result, Path(root), pictures)
            flat = _flat((params or {}).get(key["model"], {}))
            record.params |= {k: v for k, v in flat.items() if k not in record.params}
    for record in found.values():
        place = (str(record.key["model"]), int(record.key["fold"]), int(record.key["seed"]))
        _training_curves(record, (histories or {}).get(place, []))
        record.weights = (weights or {}).get((*place, str(record.key["checkpoint"])))
        counts = (audit or {}).get(str(record.key["dataset"]), {})
        record.tags |= {f"audit.{name}": str(counts[name]) for name in ("errors", "warnings") if name in counts}
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
    if one.get("protocol"):
        tags["protocol"] = str(one["protocol"])
    note = str(one.get("note") or "")
    if one.get("mask_means"):
        tags["mask_means"] = str(one["mask_means"])
    params = {k: str(v) for k, v in key.items() if k != "protocol"}
    inputs = {str(k): str(v) for k, v in (origin.get("inputs") or {}).items()}
    return Record(key, f"{what} · fold {key['fold']} · seed {key['seed']}", params, tags, inputs=inputs, note=note)


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
