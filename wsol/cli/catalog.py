"""`wsol list`: what there is to choose from."""

from __future__ import annotations

from typing import Any

from wsol._names import closest, resolve


def catalog(what: str) -> list[dict[str, Any]]:
    """Rows with name, paper and summary (first sentence of the docstring), in table order.

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
    return [_row(name, resolve(what, name, table, package)) for name in table]


def _row(name: str, thing: Any) -> dict[str, Any]:
    facts = {
        k: getattr(thing, k)
        for k in ("needs_gradient", "local", "supervision")
        if isinstance(getattr(thing, k, None), bool | str)
    }
    summary = (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return {"name": name, "paper": str(getattr(thing, "paper", "") or ""), "summary": " ".join(summary.split()), **facts}
