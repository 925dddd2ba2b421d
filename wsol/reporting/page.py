"""The report: one HTML file that needs nothing beside it, put together from score files and what lies around them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from wsol.reporting.badges import KINDS, chips, common, shared_chips
from wsol.reporting.export import interval, percent, write_csv, write_text
from wsol.reporting.figures import MAX_LINES, history_figure, threshold_figure
from wsol.reporting.gallery import best_of_each_model, failures, gallery
from wsol.reporting.table import Row, Value, rows
from wsol.reporting.verdict import best_stain, sentences, standing

Span = tuple[float, float]

STANDING = {"loses": "below stain map", "unclear": "not clearly above stain map", "beats": "", "": ""}
COLUMNS = {
    "ap": ("AP", "Average precision over all scores, without binning"),
    "dice": ("Dice", "Dice of all pixels at the chosen threshold, with its interval"),
    "threshold": ("Threshold", "The chosen threshold in percent of the score range; the badges say where it comes from"),
    "plateau": (
        "Plateau",
        "Share of all thresholds whose Dice is within 95 % of the best: wide means the threshold hardly matters",
    ),
    "oracle_dice": ("Oracle Dice", "Dice at the best threshold on the scored masks themselves: a bound, not a result"),
    "flagged_area": (
        "Flagged on negatives",
        "Share of the area marked, at the chosen threshold, on samples without any foreground",
    ),
    "accuracy": ("Accuracy", "Share of samples or slides classified right by the model"),
    "seconds": ("s / sample", "Median seconds to draw the map of one sample"),
}


def write_report(
    path: str | Path,
    scores: Sequence[Mapping[str, Any]],
    *,
    title: str = "wsol",
    histories: Sequence[Mapping[str, Any]] = (),
    statuses: Iterable[Mapping[str, Any]] = (),
    images: Mapping[str, Path] | None = None,
    root: str | Path = ".",
    csv: str | Path | None = None,
) -> list[Row]:
    """Writes the page, and the leaderboard as CSV beside it.

    Args:
        path: of the HTML file.
        scores: contents of scores.json files, floors included; ``samples.<sample>.overlay`` are picture paths, absolute or below
            `root`.
        title: of the page.
        histories: ``{"key": {"model", "fold", "seed"}, "rows": [{"epoch": 1, "train_loss": ...}, ...]}``.
        statuses: ``{"slide", "status", "reason"}`` of the tiled slides; those that are not ok are listed.
        images: sample -> its plain picture, shown beside the overlay.
        root: folder that relative overlay paths start from.
        csv: where the leaderboard goes; ``leaderboard.csv`` beside the page by default.

    Returns:
        The rows of the leaderboard.

    Raises:
        ValueError: no scores at all, or something that is no content of a scores.json.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    table = rows(scores)
    if not table:
        raise ValueError("no scores: a report needs at least one scores.json; run `wsol evaluate` first")
    tables = [list(group) for _, group in groupby(table, key=lambda r: (r.dataset, r.split))]
    shown = [r for part in tables for r in best_of_each_model(part)]
    environment = Environment(
        loader=PackageLoader("wsol.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        head=_head(table, scores),
        sections=[_section(part, i, Path(root), images) for i, part in enumerate(tables)],
        training=history_figure(histories, "training"),
        failures=failures(shown, statuses),
        kinds=[{"title": t, "words": w} for t, w in KINDS.values()],
        provenance=_provenance(scores),
    )
    write_text(path, page)
    write_csv(csv or Path(path).parent / "leaderboard.csv", table)
    return table


def _head(table: Sequence[Row], scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    trained = [r for r in table if not r.floor]
    folds, seeds = (sorted({n for r in table for n in getattr(r, k)}) for k in ("folds", "seeds"))
    sizes = {
        r.split: (max(q.samples for q in table if q.split == r.split), max(q.patients for q in table if q.split == r.split))
        for r in table
    }
    said = [
        ("Data", ", ".join(dict.fromkeys(r.dataset for r in table))),
        ("Classes", ", ".join(dict.fromkeys(c for r in table for c in r.classes))),
        *((f"Split {split}", people(n, p)) for split, (n, p) in sizes.items()),
        ("Models", ", ".join(dict.fromkeys(f"{r.model} ({r.checkpoint})" for r in trained))),
        ("Maps", ", ".join(dict.fromkeys(r.method for r in trained))),
        ("Runs", f"fold {_list(folds)} · seed {_list(seeds)}"),
        (
            "Training",
            ", ".join(dict.fromkeys(str(s["supervision"]) for s in scores if s.get("supervision") not in (None, "none"))),
        ),
    ]
    return [(k, v) for k, v in said if v]


def people(samples: int, patients: int) -> str:
    """Sizes in words, as in ``12 samples, 1 patient``; patients only where they are known."""
    words = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((samples, "sample"), (patients, "patient"))]
    return ", ".join(words if patients else words[:1])


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _section(table: list[Row], number: int, root: Path, images: Mapping[str, Path] | None) -> dict[str, Any]:
    """All that the page says of one split of one dataset."""
    stain, shared = best_stain(table), common(table)
    classes = [
        c for c in dict.fromkeys(c for r in table for c in r.classes) if any(r.value(f"pxap:{c}").mean is not None for r in table)
    ]
    names = [n for n in COLUMNS if any(r.value(n).mean is not None for r in table)]
    trained = [r for r in table if not r.floor]
    runs, span = max(r.runs for r in table), _span(table)
    return {
        "id": f"s{number}",
        "dataset": table[0].dataset,
        "split": table[0].split,
        "notes": list(dict.fromkeys(str(one["note"]) for r in table for one, _ in r.parts if one.get("note"))),
        "any_foreground": any(one.get("mask_means") == "any-foreground" for r in table for one, _ in r.parts),
        "classes": classes,
        "columns": [{"name": n, "title": COLUMNS[n][0], "words": COLUMNS[n][1]} for n in names],
        "rows": [_line(r, classes, names, shared, stain, span) for r in trained],
        "floors": [_line(r, classes, names, shared, stain, span) for r in table if r.floor],
        "shared": shared_chips(shared),
        "sentences": sentences(table),
        "runs": runs,
        "beside": "± standard deviation over runs" if runs > 1 else "95 % interval, resampled by patient",
        "people": people(max(r.samples for r in table), max(r.patients for r in table)),
        "stain": {"name": stain.method, "percent": percent(stain.value("pxap").mean)} if stain else None,
        "span": f"{100 * span[0]:.0f} to {100 * span[1]:.0f}",
        "figures": _figures(trained, number, stain),
        "galleries": [{"name": r.name, "shown": s} for r in best_of_each_model(table) if (s := gallery(r, root, images))],
    }


def _figures(trained: Sequence[Row], number: int, stain: Row | None) -> list[dict[str, Any]]:
    found = []
    methods = sorted({r.method for r in trained})
    by_model: dict[tuple[str, str], list[Row]] = {}
    for row in trained:
        by_model.setdefault((row.model, row.checkpoint), []).append(row)
    for i, ((model, checkpoint), some) in enumerate(by_model.items()):
        svg = threshold_figure(some, f"f{number}-{i}", stain, methods)
        if svg:
            found.append({"name": f"{model} ({checkpoint})", "svg": svg, "left_out": max(0, len(some) - MAX_LINES)})
    return found


def _line(
    row: Row, classes: Sequence[str], names: Sequence[str], shared: Mapping[str, str], stain: Row | None, span: Span
) -> dict[str, Any]:
    """One row of the leaderboard as words for the template."""
    where = standing(row, stain)
    return {
        "method": row.method, "model": row.model, "checkpoint": row.checkpoint, "runs": row.runs,
        "pxap": _cell(row.value("pxap")), "whisker": _whisker(row.value("pxap"), stain, span),
        "classes": [_class_cell(row, c) for c in classes],
        "cells": [_cell(row.value(n), "seconds" if n == "seconds" else "percent") for n in names],
        "chips": chips(row, shared), "standing": where, "mark": STANDING[where],
        "people": people(row.samples, row.patients),
    }  # fmt: skip


def _class_cell(row: Row, group: str) -> dict[str, Any]:
    score, chance = row.value(f"pxap:{group}"), row.value(f"prevalence:{group}").mean
    under = score.mean is not None and chance is not None and score.mean < chance and row.method not in ("random", "all-ones")
    return _cell(score) | {"under": f"below the prevalence, {percent(chance)}" if under else ""}


def _cell(value: Value, unit: str = "percent") -> dict[str, Any]:
    if value.mean is None:
        return {"text": "–", "beside": "", "sort": "", "under": ""}
    seconds = f"{value.mean:.3g}" if value.mean >= 0.001 else "<0.001"
    text = seconds if unit == "seconds" else percent(value.mean)
    return {"text": text, "beside": interval(value) if unit == "percent" else "", "sort": repr(value.mean), "under": ""}


def _ends(value: Value) -> tuple[float, float]:
    """Interval, or mean and deviation, or the value itself; within [0, 1]."""
    mean, spread = value.mean or 0.0, value.spread or 0.0
    low = value.low if value.low is not None else max(0.0, mean - spread)
    return low, value.high if value.high is not None else min(1.0, mean + spread)


def _span(table: Sequence[Row]) -> Span:
    """The stretch of PxAP that the lines of a table show: all its intervals, in tenths."""
    ends = [_ends(v) for r in table if (v := r.value("pxap")).mean is not None]
    low, high = min((e[0] for e in ends), default=0.0), max((e[1] for e in ends), default=1.0)
    return math.floor(10 * low) / 10, max(math.ceil(10 * high) / 10, math.floor(10 * low) / 10 + 0.1)


def _whisker(value: Value, stain: Row | None, span: Span) -> dict[str, str] | None:
    """Where dot, interval and stain mark lie on the line, in percent of its length."""
    if value.mean is None:
        return None

    def place(v: float) -> float:
        return (v - span[0]) / (span[1] - span[0])

    (low, high), limit = _ends(value), stain.value("pxap").mean if stain else None
    return {
        "low": percent(place(low)),
        "width": percent(place(high) - place(low)),
        "dot": percent(place(value.mean)),
        "stain": percent(place(limit)) if limit is not None else "",
    }


def _provenance(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Versions, seeds, hashes, and warnings about what does not fit together."""
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
            ("Folds", _list(sorted({int(s["key"]["fold"]) for s in scores}))),
            ("Seeds", _list(sorted({int(s["key"]["seed"]) for s in scores}))),
            *((f"Input {name}", _digests(digests)) for name, digests in sorted(inputs.items())),
            ("Score files", str(len(scores))),
        ],
    }


def _digests(digests: set[str]) -> str:
    some = sorted(digests)
    return ", ".join(some[:4]) + (f" and {len(some) - 4} more" if len(some) > 4 else "")
