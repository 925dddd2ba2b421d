"""`wsol list`: what there is to choose from."""

from __future__ import annotations

from typing import Any

from wsol._names import closest, resolve
from wsol._options import meanings, options_of

OPTIONED = ("backbones", "heads", "cams", "strategies", "sources")
"""Lists whose entries have options."""

GIVEN = {"strategies": ("seeds",)}
"""Options that a study gives elsewhere: seeds come from `from` and `seeds` of the model."""


def catalog(what: str) -> list[dict[str, Any]]:
    """Rows with name, paper and summary (first paragraph of the docstring), in table order.

    Where there are options (`OPTIONED`), also `options`, name -> default ("required" without one), and `meanings`, name -> text.

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
    found = {name: resolve(what, name, table, package) for name in table}
    return [{**_row(name, thing), **(_options(what, thing) if what in OPTIONED else {})} for name, thing in found.items()]


def _options(what: str, thing: Any) -> dict[str, dict[str, Any]]:
    """Defaults and meanings of the options; those of a source are the arguments of its `dataset`."""
    made = getattr(thing, "dataset", thing)
    known = {name: p.default for name, p in options_of(made).items() if name not in GIVEN.get(what, ())}
    defaults = {
        name: "required" if default is options_of(made)[name].empty else list(default) if isinstance(default, tuple) else default
        for name, default in known.items()
    }
    said = meanings(made)
    return {"options": defaults, "meanings": {name: said[name] for name in known}}


def _row(name: str, thing: Any) -> dict[str, Any]:
    facts = {
        k: getattr(thing, k)
        for k in ("needs_gradient", "local", "supervision")
        if isinstance(getattr(thing, k, None), bool | str)
    }
    summary = (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return {"name": name, "paper": str(getattr(thing, "paper", "") or ""), "summary": " ".join(summary.split()), **facts}
