"""What stands beside a scores.json in the results folder: pictures, training history, tile statuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def kept(scores: Iterable[dict[str, Any]], results: Path) -> dict[tuple[str, int, int], dict[str, int]]:
    """(model, fold, seed) -> checkpoint -> the epoch that it is, for the checkpoints that were scored; floors have none."""
    found: dict[tuple[str, int, int], dict[str, int]] = {}
    for one in scores:
        key = one["key"]
        recipe = results / "train" / RUN.format(**key) / f"{key['checkpoint']}.json"
        if recipe.is_file() and (epoch := read_json(recipe).get("meta", {}).get("epoch")) is not None:
            found.setdefault((key["model"], int(key["fold"]), int(key["seed"])), {})[key["checkpoint"]] = int(epoch)
    return found


def checkpoint_source(run: Mapping[str, Any], name: str) -> str:
    """What chose a checkpoint, for its badge: as the record of its training says, else by the rule that its name stands for."""
    from wsol.training import criterion

    said = run.get("checkpoints", {}).get(name)
    if said is not None or name == "none":
        return str(said or name)
    try:
        return criterion(name).source
    except ValueError:
        return "unknown"


def statuses(scores: Iterable[dict[str, Any]], results: Path) -> list[dict[str, Any]]:
    """Tile statuses of the datasets that were scored."""
    names = sorted({one["key"]["dataset"] for one in scores})
    return [read_json(path) for name in names for path in sorted((results / "tile" / name).glob("*.json"))]
