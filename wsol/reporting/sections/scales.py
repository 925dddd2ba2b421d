"""What another scale of the maps would change: PxAP, the order of the maps, and how far a threshold carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsol.reporting.cells import Cell, Column, Grid, line
from wsol.reporting.export import percent
from wsol.reporting.part import Part
from wsol.reporting.table import Row

MOST = 3
"""Moves that the sentence names; the table has all."""


@dataclass(frozen=True)
class Move:
    """A map that has another place under another scale."""

    scale: str
    name: str
    before: int
    after: int


def section(part: Part) -> dict[str, Any] | None:
    """The table maps x scales, and the largest moves in words."""
    rows = [r for r in part.trained if r.found("scales")]
    kinds = list(dict.fromkeys(kind for r in rows for entry in r.found("scales") for kind in entry))
    if not kinds:
        return None
    ranks = {kind: _ranks(rows, kind) for kind in kinds}
    used = _used(rows, kinds)
    columns = [Column(k[:1].upper() + k[1:], "the scale of this study" if k == used else "") for k in kinds]
    caption = "PxAP in percent; rank among these maps under that scale, and points of Dice lost to the oracle by its threshold. "
    caption += "A dash: the scale does not apply, point at it to read why."
    return {
        "grid": Grid(columns, [line(r, [_cell(r, k, ranks[k]) for k in kinds]) for r in rows], caption),
        "words": _words(moves(ranks, used), used),
    }


def _ranks(rows: list[Row], kind: str) -> dict[str, int]:
    """Name of a map -> its place by PxAP under a scale, 1 is best; those that look equal in the table share the better place."""
    pxap = {r.name: round(v, 3) for r in rows if (v := r.fact("scales", kind, "pxap").mean) is not None}
    return {name: 1 + sum(other > v for other in pxap.values()) for name, v in pxap.items()}


def _used(rows: list[Row], kinds: list[str]) -> str:
    """The scale of this study: that of most maps by their files, else by their badge, else the first."""
    said = [str(k) for r in rows for k in r.found("scale", "kind")] + [b for r in rows for b in r.badges.get("scale", [])]
    known = [k for k in said if k in kinds]
    return max(known, key=known.count) if known else kinds[0]


def moves(ranks: Mapping[str, Mapping[str, int]], used: str) -> list[Move]:
    """All maps that change their place when the scale is not the one that was used, farthest first."""
    found = [
        Move(kind, name, before, after)
        for kind, places in ranks.items()
        if kind != used
        for name, before in ranks[used].items()
        if (after := places.get(name, before)) != before
    ]
    return sorted(found, key=lambda m: (-abs(m.after - m.before), m.before, m.scale, m.name))


def _words(found: list[Move], used: str) -> str:
    if not found:
        return f"The order of the maps is the same under every scale (this study: {used})."
    named = "; ".join(f"{m.scale} moves {m.name} from rank {m.before} to {m.after}" for m in found[:MOST])
    rest = f"; {len(found) - MOST} more moves in the table" if len(found) > MOST else ""
    return f"Against {used}, the scale of this study: {named}{rest}."


def _cell(row: Row, kind: str, ranks: Mapping[str, int]) -> Cell:
    pxap = row.fact("scales", kind, "pxap").mean
    if pxap is None:
        refused = [str(why) for why in row.found("scales", kind, "refused")]
        return Cell("–", words=refused[0] if refused else "undefined")
    gap, at, ap = (row.fact("scales", kind, k).mean for k in ("gap", "threshold", "ap"))
    small = f"rank {ranks[row.name]}" + ("" if gap is None else f" · lost {percent(gap)}")
    return Cell(percent(pxap), small, repr(pxap), words=f"AP {percent(ap)}, threshold {percent(at)}")
