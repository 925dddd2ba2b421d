"""What gave nothing: slides that could not be used and why, and samples where the best maps find nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsol.reporting.gallery import found
from wsol.reporting.table import Row

LISTED = 200
"""Missed samples that are listed; slides that gave nothing always all are."""


def section(rows: Iterable[Row], statuses: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Slides that gave nothing, with what was tried and the reason, and samples of which a map misses everything (Dice 0).

    Args:
        rows: the best map of each model.
        statuses: contents of the JSON files of `wsol tile`, and records of the slides that could not be drawn.
    """
    rows = list(rows)
    lost = [_lost(s) for s in statuses if s["status"] != "ok"]
    missed = _missed(rows)
    if not lost and not missed:
        return None
    counts = {"failed": "could not be read", "empty": "without tissue"}
    said = [f"{n} slide{'s' if n > 1 else ''} {words}" for k, words in counts.items() if (n := sum(x["kind"] == k for x in lost))]
    said += [f"{len(missed)} sample{'s' if len(missed) > 1 else ''} missed"] if missed else []
    return {
        "count": len(lost) + len(missed),
        "said": ", ".join(said),
        "lost": lost,
        "missed": missed[:LISTED],
        "all": len(missed),
    }


def _lost(status: Mapping[str, Any]) -> dict[str, str]:
    kind = str(status["status"])
    verb = f"wsol {status['verb']}" if status.get("verb") else "wsol tile" if kind == "empty" else ""
    return {
        "kind": kind,
        "slide": str(status.get("slide") or status.get("sample") or "?"),
        "verb": verb,
        "why": str(status.get("reason") or ""),
    }


def _missed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Samples by the number of maps that miss them, most first."""
    by: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for sample, one in found(row).items():
            if one.values.get("dice") == 0:
                by.setdefault((row.dataset, row.split, sample), []).append(row.name)
    label = {(r.dataset, r.split, s): str(o.values.get("label", "")) for r in rows for s, o in found(r).items()}
    ordered = sorted(by.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"sample": place[2], "split": place[1], "label": label[place], "maps": maps} for place, maps in ordered]
