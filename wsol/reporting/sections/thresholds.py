"""How much the threshold matters: whole curves, how far the chosen one carries, what other sources would have given."""

from __future__ import annotations

from typing import Any

from wsol.reporting.figures import threshold_figure
from wsol.reporting.part import Part
from wsol.reporting.svg import MAX_LINES
from wsol.reporting.table import Row


def section(part: Part) -> dict[str, Any] | None:
    """Figures by model."""
    found = {"figures": _figures(part)}
    return found if any(found.values()) else None


def _figures(part: Part) -> list[dict[str, Any]]:
    by_model: dict[tuple[str, str], list[Row]] = {}
    for row in part.trained:
        by_model.setdefault((row.model, row.checkpoint), []).append(row)
    drawn = [
        (f"{model} ({checkpoint})", len(some), threshold_figure(some, f"{part.id}-curves-{i}", part.palette, part.stain))
        for i, ((model, checkpoint), some) in enumerate(by_model.items())
    ]
    return [{"name": name, "svg": svg, "left_out": max(0, n - MAX_LINES)} for name, n, svg in drawn if svg]
