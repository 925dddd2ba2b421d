"""The leaderboard as files: CSV for programs (fractions), markdown for documents (percent)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsol._files import atomic
from wsol.reporting.table import Row, Value, rows


def percent(value: float | None, digits: int = 1) -> str:
    """0.647 -> "64.7"; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def interval(value: Value) -> str:
    """What stands beside a percentage: "60.2–69.1", "± 2.3" over several runs, or nothing."""
    if value.spread is not None:
        return f"± {percent(value.spread)}"
    if value.low is None or value.high is None:
        return ""
    return f"{percent(value.low)}–{percent(value.high)}"


def write_text(path: str | Path, text: str) -> None:
    """Writes under a temporary name in the same folder, then renames."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_csv(path: str | Path, table: Sequence[Row]) -> None:
    """One line per row with all it knows, as fractions; ends of an interval as ``_low``, ``_high``, else ``_sd`` over runs."""
    lines = [_line(row) for row in table]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def _line(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {k: getattr(row, k) for k in ("dataset", "split", "model", "checkpoint", "set", "method")}
    line |= {"kind": "floor" if row.floor else "localizer", "runs": row.runs}
    line |= {"folds": " ".join(map(str, row.folds)), "seeds": " ".join(map(str, row.seeds))}
    line |= {"samples": row.samples, "patients": row.patients}
    for name, value in row.values.items():
        column = name.replace(":", "_")
        line[column] = "" if value.mean is None else value.mean
        if name.split(":")[0] in ("pxap", "dice") or name in ("flagged_area", "accuracy"):
            line |= {
                f"{column}_{k}": "" if v is None else v
                for k, v in (("low", value.low), ("high", value.high), ("sd", value.spread))
            }
    return line | {f"badge_{name}": " / ".join(words) for name, words in row.badges.items()}


def lines(scores: Iterable[Mapping[str, Any]], split: str = "test") -> list[dict[str, Any]]:
    """The table of one split for programs: the columns of the CSV, None where it has an empty cell.

    Raises:
        ValueError: no row is about this split.
    """
    return [{name: None if value == "" else value for name, value in _line(row).items()} for row in _of(scores, split)]


def _of(scores: Iterable[Mapping[str, Any]], split: str) -> list[Row]:
    found = [row for row in rows(scores) if row.split == split]
    if not found:
        raise ValueError(f"no scores of split {split!r}")
    return found


def markdown(scores: Iterable[Mapping[str, Any]], split: str = "test") -> str:
    """The table of one split for documents, in percent, floors at its end; numbers with interval or spread, badges below.

    Raises:
        ValueError: no row is about this split.
    """
    table = _of(scores, split)
    classes = [c for c in table[0].classes if any(r.value(f"pxap:{c}").mean is not None for r in table)]
    many = any(r.value("flagged_area").mean is not None for r in table)
    head = [
        "model",
        "method",
        "PxAP",
        *(f"PxAP {c}" for c in classes),
        "AP",
        "Dice",
        "oracle Dice",
        *(["flagged area"] if many else []),
        "accuracy",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 2 + "---:|" * (len(head) - 2)]
    for row in table:
        names = [
            "pxap",
            *(f"pxap:{c}" for c in classes),
            "ap",
            "dice",
            "oracle_dice",
            *(["flagged_area"] if many else []),
            "accuracy",
        ]
        model = "*floor*" if row.floor else f"{row.model} ({row.checkpoint})"
        model += f" *as published: {row.as_published}*" if row.as_published else ""
        lines.append("| " + " | ".join([model, row.method, *(_cell(row.value(n)) for n in names)]) + " |")
    note = next((str(one["note"]) for r in table for one, _ in r.parts if one.get("note")), "")
    people = max(r.patients for r in table)
    below = f"Percent; split `{split}`, {max(r.samples for r in table)} samples of {people} patients; "
    below += "in brackets the 95 % interval over patients or the deviation over runs. "
    below += (
        "Oracle Dice takes its threshold from the scored masks themselves. "
        + "; ".join(f"{k}: {v}" for k, v in _common(table).items())
        + "."
    )
    return "\n".join([*([note, ""] if note else []), *lines, "", below, ""])


def _cell(value: Value) -> str:
    beside = interval(value)
    return percent(value.mean) + (f" ({beside})" if beside else "")


def _common(table: Sequence[Row]) -> dict[str, str]:
    trained = [r for r in table if not r.floor] or list(table)
    said = {name: {w for r in trained for w in r.badges.get(name, [])} for name in trained[0].badges}
    return {name: " / ".join(sorted(words)) for name, words in said.items()}
