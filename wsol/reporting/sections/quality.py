"""What the slides are like: tissue, pen, blur and folds of each, and the pictures of those that are worth a look."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsol.reporting.cells import EMPTY, Cell, Column, Grid, Line
from wsol.reporting.export import percent
from wsol.reporting.gallery import evenly
from wsol.reporting.layers import data_uri
from wsol.reporting.svg import SERIES, inline, panels, percent_ticks, style

PICTURES = 24
"""Slides whose picture is shown."""

COLUMNS = (
    Column("Status", "ok, empty (no tile holds enough tissue) or failed (it could not be read)", number=False),
    Column("Tiles", "Tiles kept; below it all positions of the grid, glass included"),
    Column("Tissue", "Percent of the slide's area"),
    Column("Pen or border", "Percent of the slide's area"),
    Column("Flagged tiles", "Tiles with tissue that are flagged for blur, pen or a fold, kept or not"),
    Column("Dropped", "Tiles with tissue that were taken out for their flags"),
    Column("Why", "", number=False),
)

Facts = Mapping[str, Any]


def section(statuses: Sequence[Facts], pictures: Mapping[str, Path]) -> dict[str, Any] | None:
    """A table of all slides, how they are spread, and pictures of tissue and tiles; None where nothing was tiled.

    Args:
        statuses: contents of the JSON files of `wsol tile`.
        pictures: slide -> its picture.
    """
    if not statuses:
        return None
    ordered = sorted(statuses, key=lambda s: (-_concern(s), str(s["slide"])))
    shown = [s for s in ordered if str(s["slide"]) in pictures and s["status"] != "failed"]
    chosen = _chosen(shown)
    return {
        "count": len(statuses),
        "words": _words(statuses, len(chosen)),
        "grid": Grid(COLUMNS, [_line(s) for s in ordered], "The slides that ask for a look first.", first="Slide"),
        "figure": _figure(statuses),
        "pictures": [
            {"slide": s["slide"], "uri": data_uri(pictures[s["slide"]], side=640, quality=75), "reason": s.get("reason") or ""}
            for s in chosen
        ],
    }


def _flagged(status: Facts) -> int:
    return sum(int(n) for n in (status.get("flagged") or {}).values())


def _concern(status: Facts) -> float:
    """How much a slide asks to be looked at: failed, then empty, then by its share of flagged tiles."""
    if status["status"] != "ok":
        return 3.0 if status["status"] == "failed" else 2.0
    return min(1.0, _flagged(status) / max(int(status.get("tiles") or 0) + int(status.get("dropped") or 0), 1))


def _chosen(ordered: Sequence[Facts]) -> list[Facts]:
    """Half of the pictures for the slides of most concern, the others evenly over the rest."""
    if len(ordered) <= PICTURES:
        return list(ordered)
    first = list(ordered[: PICTURES // 2])
    rest = {str(s["slide"]): s for s in ordered[PICTURES // 2 :]}
    return first + [rest[name] for name in evenly(list(rest), PICTURES - len(first))]


def _line(status: Facts) -> Line:
    flags = {name: n for name, n in (status.get("flagged") or {}).items() if n}
    tiles, positions = status.get("tiles"), status.get("positions")
    mark = {"ok": "good", "empty": "careful"}.get(str(status["status"]), "loses")
    return Line(
        str(status["slide"]),
        "",
        [
            Cell(str(status["status"]), mark=mark, sort=str(status["status"])),
            EMPTY if tiles is None else Cell(f"{tiles:,}", "" if positions is None else f"of {positions:,}", repr(tiles)),
            _share(status.get("tissue_fraction")),
            _share(status.get("pen_fraction")),
            Cell(f"{_flagged(status):,}", ", ".join(f"{name} {n:,}" for name, n in flags.items()), repr(_flagged(status)))
            if "flagged" in status
            else EMPTY,
            Cell(f"{status['dropped']:,}", sort=repr(status["dropped"])) if "dropped" in status else EMPTY,
            Cell(str(status.get("reason") or ""), sort=str(status.get("reason") or "")),
        ],
    )


def _share(value: float | None) -> Cell:
    return EMPTY if value is None else Cell(percent(value), sort=repr(value))


def _words(statuses: Sequence[Facts], shown: int) -> str:
    counts = {kind: sum(s["status"] == kind for s in statuses) for kind in ("ok", "empty", "failed")}
    said = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    tiles = [int(s["tiles"]) for s in statuses if s["status"] == "ok" and s.get("tiles") is not None]
    middle = f"; {sum(tiles):,} tiles, {statistics.median(tiles):,.0f} of a slide in the median" if tiles else ""
    flagged = sum(_flagged(s) > 0 for s in statuses)
    marks = f"; {flagged} with flagged tiles" if flagged else ""
    some = f" Pictures of {shown} of them: those that ask for a look, the others spread evenly."
    pictures = "" if shown in (0, counts["ok"] + counts["empty"]) else some
    return f"{len(statuses)} slides: {said}{middle}{marks}.{pictures}"


def _figure(statuses: Sequence[Facts]) -> str:
    """How tissue, tiles and flagged tiles are spread over slides. "" for fewer than three slides."""
    from matplotlib.ticker import MaxNLocator

    cut = [s for s in statuses if s["status"] != "failed" and s.get("tissue_fraction") is not None]
    if len(cut) < 3:
        return ""
    with style():
        figure, axes = panels(3, height=2.3)
        spread: list[tuple[str, list[float]]] = [
            ("Tissue (% of the slide)", [float(s["tissue_fraction"]) for s in cut]),
            ("Tiles of a slide", [float(s.get("tiles") or 0) for s in cut]),
            ("Flagged (% of tiles with tissue)", [_concern(s) for s in cut if s["status"] == "ok"]),
        ]
        for ax, (title, values) in zip(axes, spread, strict=True):
            fractions = "%" in title
            ax.hist(values, bins=20, range=(0, 1) if fractions else None, color=SERIES[0], alpha=0.85)
            ax.set(title=title, ylabel="Slides" if ax is axes[0] else "")
            ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            if fractions:
                percent_ticks(ax.xaxis)
            else:
                ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        return inline(figure, "quality", f"How tissue, tiles and flagged tiles are spread over {len(cut)} slides")
