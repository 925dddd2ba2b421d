"""The configuration reference, generated from the schema so that the two cannot drift apart."""

from __future__ import annotations

import json
from typing import Any

from wsol.cli.catalog import catalog
from wsol.cli.config import Config
from wsol.cli.model import Model
from wsol.cli.schema import (
    Conformal,
    Evaluate,
    Heatmap,
    Localize,
    Log,
    MapMethod,
    Prepare,
    Probe,
    Quality,
    Report,
    Section,
    Tile,
    Train,
)


def reference() -> str:
    """The configuration reference as Markdown, one table per section, generated from the schema."""
    out = ["# Configuration reference", "", "Generated from the schema by `wsol config --reference`; do not edit.", ""]
    sections: list[tuple[str, type[Section]]] = [
        ("(top level)", Config),
        ("prepare", Prepare),
        ("tile", Tile),
        ("tile.qc", Quality),
        ("models.NAME", Model),
    ]
    sections += [("maps.NAME[]", MapMethod), ("train", Train), ("localize", Localize), ("heatmap", Heatmap)]
    sections += [("evaluate", Evaluate), ("evaluate.conformal", Conformal), ("probe", Probe), ("report", Report), ("log", Log)]
    for title, schema in sections:
        out += [
            f"## `{title}`",
            "",
            (schema.__doc__ or "").strip().splitlines()[0],
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for name, field in schema.model_fields.items():
            default = (
                "required" if field.is_required() else ("" if isinstance(field.default, Section) else f"`{_default(field)}`")
            )
            out.append(f"| `{field.alias or name}` | {default} | {(field.description or 'see its section').replace('|', '/')} |")
        out.append("")
    return "\n".join([*out, *_sources()])


def _sources() -> list[str]:
    """What `prepare.options` may hold, source by source."""
    out = []
    for source in catalog("sources"):
        out += [
            f"## `prepare.options` of source `{source['name']}`",
            "",
            source["summary"],
            "",
            "| option | default | meaning |",
            "|---|---|---|",
            *(
                f"| `{name}` | {'required' if default == 'required' else f'`{json.dumps(default)}`'} | "
                f"{source['meanings'][name].replace('|', '/')} |"
                for name, default in source["options"].items()
            ),
            "",
        ]
    return out


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
