"""Which samples are worth looking at, and their pictures inlined small."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsol.reporting.table import Row

SIDE = 720
"""Longest side of an inlined picture in px."""


@dataclass(frozen=True)
class Shown:
    """A sample of the gallery: why it is shown (`rank`), its numbers, and its pictures as data URIs."""

    rank: str
    sample: str
    label: str
    patient: str
    fold: int
    seed: int
    dice: float | None
    pxap: float | None
    flagged: float | None
    overlay: str
    image: str


def data_uri(path: str | Path, side: int = SIDE, quality: int = 82) -> str:
    """A picture file, made smaller than `side` px, as a JPEG ``data:`` URI.

    Raises:
        FileNotFoundError: no such file.
    """
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def gallery(row: Row, root: Path, images: Mapping[str, Path] | None = None) -> list[Shown]:
    """Best, median and worst sample of a row by Dice at the chosen threshold, of those with an overlay and any foreground."""
    drawn = [(one, s, v) for one, result in row.parts for s, v in (result.get("samples") or {}).items() if v.get("overlay")]
    ranked = sorted((item for item in drawn if item[2].get("dice") is not None), key=lambda item: (-item[2]["dice"], item[1]))
    if not ranked:
        return []
    last = len(ranked) - 1
    ranks = {"best": 0} | ({"median": last // 2} if last > 1 else {}) | ({"worst": last} if last else {})
    chosen = [(name, *ranked[i]) for name, i in ranks.items()]
    empty = [item for item in drawn if item[2].get("dice") is None]
    if empty:
        chosen.append(("most flagged negative", *max(empty, key=lambda item: item[2].get("flagged_area") or 0.0)))
    return [_shown(name, one, sample, values, root, images or {}) for name, one, sample, values in chosen]


def _shown(
    rank: str, one: Mapping[str, Any], sample: str, values: Mapping[str, Any], root: Path, images: Mapping[str, Path]
) -> Shown:
    picture = images.get(sample)
    return Shown(
        rank=rank, sample=sample, label=str(values.get("label", "")), patient=str(values.get("patient") or ""),
        fold=int(one["key"]["fold"]), seed=int(one["key"]["seed"]),
        dice=values.get("dice"), pxap=values.get("pxap"), flagged=values.get("flagged_area"),
        overlay=data_uri(root / values["overlay"]), image=data_uri(picture) if picture else "",
    )  # fmt: skip


def best_of_each_model(table: Sequence[Row], limit: int = 4) -> list[Row]:
    """The best row (by pooled PxAP) of each model and checkpoint, best first; floors are left out."""
    seen: dict[tuple[str, str], Row] = {}
    for row in table:
        if not row.floor:
            seen.setdefault((row.model, row.checkpoint), row)
    return list(seen.values())[:limit]


def failures(rows: Iterable[Row], statuses: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Slides that gave nothing, and samples where the best map of a model misses everything (Dice 0)."""
    found = [
        {"sample": str(s.get("slide") or s.get("sample") or "?"), "what": str(s["status"]), "why": str(s.get("reason") or "")}
        for s in statuses
        if s.get("status") != "ok"
    ]
    for row in rows:
        for one, result in row.parts:
            missed = [s for s, v in (result.get("samples") or {}).items() if v.get("dice") == 0]
            where = f"{row.name}, {row.split}, fold {one['key']['fold']}, seed {one['key']['seed']}"
            found += [{"sample": s, "what": "missed", "why": f"no overlap with the mask: {where}"} for s in missed]
    return found
