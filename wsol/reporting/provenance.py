"""Where the numbers of a page come from: versions, seeds, hashes, masks that were opened, and what does not fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMMANDS = 40
"""Command lines that are shown."""


def provenance(
    scores: Sequence[Mapping[str, Any]], commands: Sequence[tuple[str, str]] = (), packages: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Versions, seeds, hashes, commands, and warnings about what does not fit together.

    Args:
        scores: contents of scores.json files.
        commands: (what it made, command line).
        packages: package -> version, of what wrote the page.
    """
    origins = [s.get("provenance") or {} for s in scores]
    made = [str(r["badges"]["code"]) for s in scores for r in s["methods"].values() if r.get("badges", {}).get("code")]
    versions = sorted({*(str(o["code"]) for o in origins if o.get("code")), *made})
    created = sorted(str(o["created"]) for o in origins if o.get("created"))
    inputs: dict[str, set[str]] = {}
    for origin in origins:
        for name, digest in (origin.get("inputs") or {}).items():
            inputs.setdefault(str(name), set()).add(str(digest))
    warnings = []
    if len(versions) > 1:
        warnings.append(
            f"Mixed code versions: the numbers of this page were made by {len(versions)} versions ({', '.join(versions)})."
        )
    if any(".dirty" in v for v in versions):
        warnings.append("Some numbers were made by code with uncommitted changes; the commit alone does not reproduce them.")
    warnings += [
        f"Mixed input: {name} has {len(d)} different contents."
        for name, d in inputs.items()
        if len(d) > 1 and name in ("manifest", "masks")
    ]
    return {
        "warnings": warnings,
        "facts": [
            ("Code", ", ".join(versions) or "unknown"),
            ("Evaluated (UTC)", f"{created[0]} to {created[-1]}" if len(set(created)) > 1 else "".join(created[:1]) or "unknown"),
            (
                "Evaluation settings (hash)",
                ", ".join(sorted({str(o["config"]) for o in origins if o.get("config")})) or "unknown",
            ),
            ("Folds", listed(sorted({int(s["key"]["fold"]) for s in scores}))),
            ("Seeds", listed(sorted({int(s["key"]["seed"]) for s in scores}))),
            *((f"Input {name}", _digests(digests)) for name, digests in sorted(inputs.items())),
            *_opened(scores),
            ("Score files", str(len(scores))),
            *([("This page", ", ".join(f"{name} {version}" for name, version in packages.items()))] if packages else []),
        ],
        "commands": [{"what": what, "line": line} for what, line in commands[:COMMANDS]],
        "more": max(0, len(commands) - COMMANDS),
    }


def _opened(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How many masks were opened to choose with, and how many to score; the most of any file."""
    opened = [one["masks_opened"] for one in scores if one.get("masks_opened")]
    if not opened:
        return []
    chosen, scored = (max(int(o.get(k) or 0) for o in opened) for k in ("validation", "scored"))
    return [("Masks opened", f"{chosen} of the validation split to choose with, {scored} to score")]


def _digests(digests: set[str]) -> str:
    some = sorted(digests)
    return ", ".join(some[:4]) + (f" and {len(some) - 4} more" if len(some) > 4 else "")


def listed(numbers: Sequence[int]) -> str:
    """Numbers in words, as in ``0, 1, 4``."""
    return ", ".join(map(str, numbers))
