"""Lesion by lesion, point by point, box by box: what is found, how much of it by size, and at what price in false alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wsol.reporting.cells import Column, Grid, cell, line
from wsol.reporting.part import Part
from wsol.reporting.svg import INK, MARKS, MAX_LINES, Palette, inline, panels, percent_ticks, style
from wsol.reporting.table import Row

UNITS = {"um2": "µm²", "px": "px"}
FALSE_POSITIVES = (0.25, 0.5, 1, 2, 4, 8)
REGIONS = {
    "lesions_hit": ("Lesions hit", "Share of the connected regions of the masks that count as found"),
    "predicted_right": ("Predicted regions right", "Share of the connected flagged regions that touch a lesion"),
    "froc": ("FROC score", "Mean sensitivity for lesions at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide (CAMELYON16)"),
}
BOXES = {
    "max_box_acc_v2": (
        "MaxBoxAcc V2",
        "Share of images with a right box, mean over IoU 0.3, 0.5 and 0.7; threshold chosen on these images",
    ),
    "max_box_acc": ("MaxBoxAcc", "Share of images whose box of the largest region has IoU 0.5; threshold chosen on these images"),
    "gt_known_error": ("GT-known error", "Share of images without a right box, the class being given"),
    "top1_error": ("Top-1 error", "Share of images without a right box or with the wrong class"),
}


def section(part: Part) -> dict[str, Any] | None:
    """Table of lesions, recall by size, FROC curve, and table of boxes."""
    rows = [r for r in part.trained if r.found("regions")]
    boxed = [r for r in part.trained if r.found("boxes")]
    found = {
        "grid": _grid(rows),
        "sizes": size_figure([r for r in rows if by_size(r)], f"{part.id}-sizes", part.palette),
        "froc": froc_figure([r for r in rows if r.found("regions", "froc", "curve")], f"{part.id}-froc", part.palette),
        "froc_words": _froc_words(rows),
        "boxes": _boxes(boxed),
        "rule": "; ".join(dict.fromkeys(str(rule) for r in rows for rule in r.found("regions", "rule"))),
    }
    return found if rows or boxed else None


def _grid(rows: Sequence[Row]) -> Grid | None:
    names = [n for n in REGIONS if any(r.value(n).mean is not None for r in rows)]
    if not names:
        return None
    columns = [Column("Lesions", "Connected regions of the masks"), *(Column(*REGIONS[n]) for n in names)]
    columns += [Column("Predicted regions", "Connected flagged regions at the chosen threshold")]
    lines = [
        line(
            r,
            [
                cell(r.fact("regions", "lesions"), "count"),
                *(cell(r.value(n)) for n in names),
                cell(r.fact("regions", "predicted"), "count"),
            ],
        )
        for r in rows
    ]
    return Grid(columns, lines, "Counts, and percent. Every lesion counts once, whatever its size.")


def by_size(row: Row) -> list[dict[str, Any]]:
    """Recall by size over the runs: lesions added up, shares weighed by them; [] where runs have different bins."""
    tables = row.found("regions", "by_size")
    if not tables or any([(b["low"], b["high"]) for b in t] != [(b["low"], b["high"]) for b in tables[0]] for t in tables):
        return []
    merged = []
    for same in zip(*tables, strict=True):
        lesions = sum(b["lesions"] for b in same)
        hit = sum(b["lesions"] * b["hit"] for b in same if b["hit"] is not None)
        merged.append({**same[0], "lesions": lesions, "hit": hit / lesions if lesions else None})
    return merged


def size_words(low: float | None, high: float | None, unit: str) -> str:
    """A range of sizes, as in ``1,000–10,000 µm²``, ``below 100 px``, ``from 10,000 µm²``."""
    if high is None or math.isinf(high):
        return f"from {low or 0:,.0f} {unit}"
    return f"{low:,.0f}–{high:,.0f} {unit}" if low else f"below {high:,.0f} {unit}"


def size_figure(lines: Sequence[Row], name: str, palette: Palette) -> str:
    """Share of lesions hit by their size, with the number of lesions below; the eight best maps. "" without rows.

    Args:
        lines: rows with recall by size, best first; those with other sizes than the first are left out.
        name: of the figure within the page.
        palette: colors by method, dashes by model.
    """
    bins = by_size(lines[0]) if lines else []
    places = [(b["low"], b["high"]) for b in bins]
    lines = [r for r in lines if [(b["low"], b["high"]) for b in by_size(r)] == places][:MAX_LINES]
    if not bins:
        return ""
    unit = UNITS.get(next(iter(lines[0].found("regions", "unit")), ""), "")
    with style():
        figure, (ax,) = panels(1, height=3.2)
        for i, row in enumerate(lines):
            shares = [float("nan") if b["hit"] is None else b["hit"] for b in by_size(row)]
            shift = 0.025 * (i - (len(lines) - 1) / 2)
            mark = MARKS[palette.place(row)]
            ax.plot([x + shift for x in range(len(bins))], shares, label=row.name, marker=mark, markersize=6, **palette.line(row))
        labels = [
            f"{size_words(b['low'], b['high'], unit)}\n{b['lesions']} lesion{'' if b['lesions'] == 1 else 's'}" for b in bins
        ]
        ax.set_xticks(range(len(bins)), labels)
        ax.set(ylim=(0, 1.03), xlim=(-0.5, len(bins) - 0.5), ylabel="Lesions hit (%)")
        percent_ticks(ax.yaxis)
        ax.grid(visible=False, axis="x")
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Share of lesions hit by size of {', '.join(r.name for r in lines)}")


def froc_figure(lines: Sequence[Row], name: str, palette: Palette) -> str:
    """Sensitivity for lesions over false positives per slide (log scale), the first run of each row. "" without rows.

    Args:
        lines: rows with a FROC curve, best first; eight are drawn.
        name: of the figure within the page.
        palette: colors by method, dashes by model.
    """
    lines = lines[:MAX_LINES]
    if not lines:
        return ""
    with style():
        figure, (ax,) = panels(1, height=3.2)
        for row in lines:
            curve = row.found("regions", "froc", "curve")[0]
            look = palette.line(row)
            ax.plot(*_densely(curve["fp"], curve["sensitivity"]), label=row.name, **look)
            points: list[dict[str, float]] = next(iter(row.found("regions", "froc", "points")), [])
            at, hit = [p["fp"] for p in points], [p["sensitivity"] for p in points]
            ax.plot(at, hit, color=look["color"], marker=MARKS[palette.place(row)], markersize=5, linestyle="none")
        ax.set_xscale("log", base=2)
        ax.set_xticks(FALSE_POSITIVES, ["1/4", "1/2", "1", "2", "4", "8"])
        ax.minorticks_off()
        ax.set(xlim=(0.1, 10), ylim=(0, 1.03), xlabel="False positives per slide", ylabel="Lesions found (%)")
        percent_ticks(ax.yaxis)
        for fp in FALSE_POSITIVES:
            ax.axvline(fp, color=INK, linewidth=0.5, linestyle=":", alpha=0.5)
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Free-response ROC of {', '.join(r.name for r in lines)}")


def _densely(fp: Sequence[float], sensitivity: Sequence[float]) -> tuple[list[float], list[float]]:
    """The curve at many rates: straight between its points, which on a logarithmic axis two ends alone would not show."""
    import numpy as np

    rates = np.unique(np.concatenate([np.geomspace(0.1, 16, 200), [f for f in fp if f >= 0.1]]))
    return rates.tolist(), np.interp(rates, fp, sensitivity).tolist()


def _froc_words(rows: Sequence[Row]) -> str:
    found: list[Mapping[str, Any]] = [one for r in rows for one in r.found("regions", "froc")]
    if not found:
        return ""
    slides, negatives = found[0].get("slides"), found[0].get("negatives")
    many = f" {slides} slides, {negatives} of them without a lesion." if slides is not None else ""
    return (
        f"Share of lesions found by points of the map, over false points per slide; marks are what the FROC score averages.{many}"
    )


def _boxes(rows: Sequence[Row]) -> Grid | None:
    names = [n for n in BOXES if any(r.value(n).mean is not None for r in rows)]
    if not names:
        return None
    overlaps = list(dict.fromkeys(iou for r in rows for at in r.found("boxes", "at") for iou in at))
    columns = [Column(*BOXES[n]) for n in names]
    columns += [
        Column(f"V2 at IoU {iou}", "Share of images with a right box at this overlap, of any region, each at its best threshold")
        for iou in overlaps
    ]
    columns += [Column("Threshold", "The one that MaxBoxAcc picks on the scored images: a bound, not a choice")]
    lines = [
        line(
            r,
            [
                *(cell(r.value(n)) for n in names),
                *(cell(r.fact("boxes", "at", iou)) for iou in overlaps),
                cell(r.fact("boxes", "threshold")),
            ],
        )
        for r in rows
    ]
    images = max((int(n) for r in rows for n in r.found("boxes", "images")), default=0)
    return Grid(
        columns, lines, f"Percent of {images} images with a box. All take the best threshold on the scored images themselves."
    )
