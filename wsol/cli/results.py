"""What stands beside a scores.json in the results folder: pictures, training history, tile statuses, costs, commands."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wsol.cli.files import read_json
from wsol.cli.plan import MAPS, RUN


def read_scores(paths: Iterable[Path], results: Path) -> list[dict[str, Any]]:
    """The contents of score files, with overlay and files of each sample filled in where `wsol heatmap` wrote some."""
    scores = []
    for path in paths:
        one = read_json(path)
        drawn = _pictures(one["key"], results)
        for method, facts in one["methods"].items():
            for sample, values in facts["samples"].items():
                values["files"] = drawn.get((sample, method), {})
                values["overlay"] = values["files"].get("overlay")
        scores.append(one)
    return scores


def _pictures(key: dict[str, Any], results: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(sample, method) -> kind of file -> its absolute path."""
    folder = results / "heatmap" / MAPS.format(**key) / key["split"]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for index in [folder / "index.json", *sorted(folder.glob("*/index.json"))]:
        if index.is_file():
            for sample, methods in read_json(index).items():
                found |= {
                    (sample, method): {kind: str((index.parent / name).absolute()) for kind, name in files.items()}
                    for method, files in methods.items()
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


def datasets(scores: Iterable[dict[str, Any]]) -> list[str]:
    """Names of the datasets that were scored."""
    return sorted({one["key"]["dataset"] for one in scores})


def statuses(scores: Iterable[dict[str, Any]], results: Path) -> list[dict[str, Any]]:
    """Tile statuses of the datasets that were scored."""
    return [read_json(path) for name in datasets(scores) for path in sorted((results / "tile" / name).glob("*.json"))]


def thumbnails(scores: Iterable[dict[str, Any]], results: Path) -> dict[str, Path]:
    """Slide -> the picture of its tissue and tiles."""
    return {path.stem: path for name in datasets(scores) for path in sorted((results / "tile" / name).glob("*.png"))}


def jobs(scores: Iterable[dict[str, Any]], results: Path) -> list[dict[str, Any]]:
    """What the benchmark files of the workflow say of the jobs of these datasets: wall and processor time in s, memory in MB."""
    folder, found = results / "benchmark", []
    for name in datasets(scores):
        for path in sorted(path for kind in (f"*/{name}.tsv", f"*/{name}/**/*.tsv") for path in folder.glob(kind)):
            place = path.relative_to(folder)
            if path.stem.endswith(".done"):  # a job that only says that others are done
                continue
            job = str(Path(*place.parts[2:]).with_suffix("")) if len(place.parts) > 2 else name
            rule = f"{place.parts[0]} (floors)" if job.startswith("floors/") else place.parts[0]
            with open(path, newline="") as file:
                for line in csv.DictReader(file, delimiter="\t"):
                    measured = {"seconds": line["s"], "cpu": line.get("cpu_time"), "memory": line.get("max_rss")}
                    found.append({"rule": rule, "job": job, **{k: _number(v) for k, v in measured.items()}})
    return [job for job in found if job["seconds"] is not None]


def _number(text: str | None) -> float | None:
    """A number of a benchmark file; what could not be measured stands there as "-" or "NA"."""
    try:
        return float(text or "")
    except ValueError:
        return None


def commands(scores: Iterable[dict[str, Any]], results: Path) -> list[tuple[str, str]]:
    """(what it made, command line) of trainings and evaluations, as their records say: of each its first fold and seed."""
    found: dict[str, str] = {}
    for one in sorted(scores, key=lambda one: (one["key"]["fold"], one["key"]["seed"])):
        key = one["key"]
        run = results / "train" / RUN.format(**key) / "run.json"
        made = {
            f"train {key['model']}": read_json(run) if run.is_file() else {},
            f"evaluate {key['model']}, {key['checkpoint']}, {key['set']}, {key['split']}": one,
        }
        for what, record in made.items():
            if line := (record.get("provenance") or {}).get("command"):
                found.setdefault(what, line)
    return sorted(found.items(), key=lambda item: item[0].startswith("evaluate"))
