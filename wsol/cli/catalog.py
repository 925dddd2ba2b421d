"""`wsol list`: what there is to choose from."""

from __future__ import annotations

import inspect
from typing import Any

from wsol._names import closest, resolve


def catalog(what: str) -> list[dict[str, Any]]:
    """Rows with name, paper and summary (first sentence of the docstring), in table order; of CAM methods the options, too.

    Raises:
        ValueError: there is no such list; the message names the nearest.
    """
    from wsol import cams, data, evaluation, models, slides, training

    tables: dict[str, tuple[dict[str, str], str]] = {
        "backbones": (models.BACKBONES, "wsol.models"),
        "heads": (models.HEADS, "wsol.models"),
        "cams": (cams.METHODS, "wsol.cams"),
        "strategies": (training.STRATEGIES, "wsol.training"),
        "metrics": (evaluation.METRICS, "wsol.evaluation"),
        "sources": (data.SOURCES, "wsol.data"),
        "floors": (slides.FLOORS, "wsol.slides"),
    }
    if what not in tables:
        raise ValueError(closest("list", what, tables))
    table, package = tables[what]
    rows = [_row(name, resolve(what, name, table, package)) for name in table]
    if what == "cams":
        for row in rows:
            row["options"] = _options(resolve(what, row["name"], table, package))
    return rows


def _options(thing: Any) -> dict[str, Any]:
    """Name -> default of the keyword-only arguments."""
    known = inspect.signature(thing).parameters.values()
    return {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in known if p.kind is p.KEYWORD_ONLY}


def _row(name: str, thing: Any) -> dict[str, Any]:
    facts = {
        k: getattr(thing, k)
        for k in ("needs_gradient", "local", "supervision")
        if isinstance(getattr(thing, k, None), bool | str)
    }
    summary = (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return {"name": name, "paper": str(getattr(thing, "paper", "") or ""), "summary": " ".join(summary.split()), **facts}
