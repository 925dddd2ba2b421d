"""Who is ahead at which threshold: ranks over thresholds as lines that cross."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from wsol.reporting.cautions import lead
from wsol.reporting.part import Part
from wsol.reporting.svg import MARKS, MAX_LINES, Palette, inline, panels, percent_ticks, style
from wsol.reporting.table import Row


def rankings(part: Part) -> list[dict[str, Any]]:
    """For each ranking (one for each fold and seed): its sentence and its figure."""
    found = []
    for i, ranking in enumerate(part.rankings):
        stood = lead(part.table, ranking)
        shown = _shown(part, ranking)
        if stood is None or len(shown) < 2:
            continue
        tau = [t for t in ranking.get("tau") or [] if t is not None]
        words = f"{stood.text} {stood.changes} times one map overtakes another along the way."
        if tau:
            words += f" Agreement with the order by PxAP (Kendall's tau), median over thresholds: {statistics.median(tau):.2f}."
        svg = rank_figure(shown, ranking, f"{part.id}-ranks-{i}", part.palette)
        place = f"fold {ranking['fold']}, seed {ranking['seed']}"
        found.append({"name": place, "words": words, "svg": svg, "left_out": len(ranking["ranks"]) - len(shown)})
    return found


def _shown(part: Part, ranking: Mapping[str, Any]) -> list[Row]:
    """At most eight lines: the best maps, and the best stain map as the last."""
    ranked = [r for r in part.trained if r.name in ranking["ranks"]]
    floor = [part.stain] if part.stain and part.stain.name in ranking["ranks"] else []
    return ranked[: MAX_LINES - len(floor)] + floor


def rank_figure(lines: Sequence[Row], ranking: Mapping[str, Any], name: str, palette: Palette) -> str:
    """Ranks over the threshold, 1 on top; marks are at the chosen thresholds, floors are dashed in ink.

    Args:
        lines: the rows that are drawn; all are in the ranking.
        ranking: ``threshold`` (points,), ``ranks`` of each name (points,), 1 is best, None where undefined.
        name: of the figure within the page.
        palette: colors by method, dashes by model.
    """
    thresholds = [float(t) for t in ranking["threshold"]]
    deepest = max(len(ranking["ranks"]), 2)
    with style():
        figure, (ax,) = panels(1, height=0.34 * min(deepest, 14) + 1.3)
        for row in lines:
            ranks = [float("nan") if v is None else float(v) for v in ranking["ranks"][row.name]]
            look = palette.line(row)
            ax.plot(thresholds, ranks, label=row.name, **look)
            at = row.value("threshold").mean
            if at is not None:
                nearest = min(range(len(thresholds)), key=lambda i: abs(thresholds[i] - at))
                mark = "x" if row.floor else MARKS[palette.place(row)]
                ax.plot(thresholds[nearest], ranks[nearest], marker=mark, markersize=6, linestyle="none", color=look["color"])
        step = max(1, deepest // 8)
        ax.set(xlim=(0, 1), ylim=(deepest + 0.4, 0.6), xlabel="Threshold (%)", ylabel="Rank by Dice")
        ax.set_yticks([1, *range(1 + step, deepest + 1, step)])
        percent_ticks(ax.xaxis)
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Rank over the threshold of {', '.join(r.name for r in lines)}")
