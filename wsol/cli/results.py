"""What stands beside a scores.json in the results folder: pictures, training history, tile statuses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsol.cli.files import read_json
from wsol.cli.plan import MAPS, RUN


def read_scores(paths: Iterable[Path], results: Path) -> list[dict[str, Any]]:
    """The contents of score files, with the overlay of each sample filled in where `wsol heatmap` drew one."""
    scores = []
    for path in paths:
        one = read_json(path)
        drawn = _pictures(one["key"], results)
        for method, facts in one["methods"].items():
            for sample, values in facts["samples"].items():
                values["overlay"] = drawn.get((sample, method))
        scores.append(one)
    return scores


def _pictures(key: dict[str, Any], results: Path) -> dict[tuple[str, str], str]:
    """(sample, method) -> absolute path of the overlay."""
    folder = results / "heatmap" / MAPS.format(**key) / key["split"]
    found: dict[tuple[str, str], str] = {}
    for index in [folder / "index.json", *sorted(folder.glob("*/index.json"))]:
        if index.is_file():
            for sample, methods in read_json(index).items():
                found |= {
                    (sample, method): str((index.parent / files["overlay"]).absolute()) for method, files in methods.items()
                }
    return found


def histories(scores: Iterable[dict[str, Any]], results: Path) -> dict[tuple[str, int, int], list[dict[str, float]]]:
    """(model, fold, seed) -> rows of the training history."""
    from wsol.tracking import read_history

    found: dict[tuple[str, int, int], list[dict[str, float]]] = {}
    for one in scores:
        key = one["key"]
        path = results / "train" / RUN.format(**key) / "history.csv"
        if path.is_file():
            found[(key["model"], int(key["fold"]), int(key["seed"]))] = read_history(path)
    return found


def settings(scores: Iterable[dict[str, Any]], results: Path) -> dict[str, dict[str, Any]]:
    """Model -> its settings, from the record of a training run."""
    found: dict[str, dict[str, Any]] = {}
    for one in scores:
        path = results / "train" / RUN.format(**one["key"]) / "run.json"
        if path.is_file():
            found[one["key"]["model"]] = read_json(path)["settings"]
    return found


def statuses(scores: Iterable[dict[str, Any]], results: Path) -> list[dict[str, Any]]:
    """Tile statuses of the datasets that were scored."""
    names = sorted({one["key"]["dataset"] for one in scores})
    return [read_json(path) for name in names for path in sorted((results / "tile" / name).glob("*.json"))]
