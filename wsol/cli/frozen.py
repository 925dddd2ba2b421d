"""What an earlier evaluation fixed: its method, scale and threshold, tied to the model that it was about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol._names import closest
from wsol.cli.files import read_json
from wsol.cli.plan import MAPS
from wsol.cli.scoring import Scale

if TYPE_CHECKING:
    from wsol.evaluation import Threshold


@dataclass(frozen=True)
class Frozen:
    """What an earlier evaluation fixed; made before anything of the new sheet is opened.

    Attributes:
        path: the scores.json.
        key: of the run.
        method: id of the map.
        drawn: how it is drawn: id, method, options.
        facts: what the file says of the method.
        scores: the whole file.
        scale: from raw values to scores.
        threshold: on the scores.
        checked: what ties the model to the scores: "weights" (hash) or "name, fold and seed".
    """

    path: Path
    key: dict[str, Any]
    method: str
    drawn: dict[str, Any]
    facts: dict[str, Any]
    scores: dict[str, Any]
    scale: Scale
    threshold: Threshold
    checked: str


def freeze(path: Path, method: str | None, model: Path, maps: Path | None = None) -> Frozen:
    """Scale, threshold and map method of an earlier evaluation, which must be one of this model.

    Args:
        path: its scores.json.
        method: id of the map; None for the only one.
        model: checkpoint.
        maps: map file that was scored; by default looked for in the results folder that `path` stands in.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the scores are of another model, other classes or no model; no such method, or none named among several; a
            scale or threshold that each sample has of its own, which says nothing about new samples.
    """
    from wsol.evaluation import Threshold

    if not path.is_file():
        raise FileNotFoundError(f"no scores at {path}; `wsol evaluate` writes them")
    scores = read_json(path)
    key, names = scores["key"], list(scores["methods"])
    if key["model"] == "floors":
        raise ValueError(f"{path}: these are scores of floors, which no model draws; name the scores of a trained model")
    if method is None and len(names) != 1:
        raise ValueError(f"{path}: it scores {', '.join(names)}; say which one with --method")
    chosen = names[0] if method is None else method
    if chosen not in names:
        raise ValueError(f"{path}: {closest('method', chosen, names)}")
    facts = scores["methods"][chosen]
    scale, threshold = Scale(**facts["scale"]), Threshold.from_dict(facts["threshold"])
    if threshold.values is not None or scale.kind == "per-slide":
        what = f"its threshold ({threshold.source})" if threshold.values is not None else "its scale (per-slide)"
        raise ValueError(
            f"{path}: {what} is of each sample its own, and says nothing about new ones; evaluate with another first"
        )
    made = _made(path, key, maps)
    checked = _belongs(path, scores, model, made)
    return Frozen(path, key, chosen, _drawn(path, chosen, made), facts, scores, scale, threshold, checked)


def _made(path: Path, key: Mapping[str, Any], maps: Path | None) -> dict[str, Any] | None:
    """How the scored maps were drawn, as their file says; None where it is not found."""
    from wsol.data import MapReader

    if maps is None:
        parents = path.absolute().parents
        if len(parents) <= 8 or parents[7].name != "evaluate":
            return None
        maps = parents[8] / "localize" / MAPS.format(**key) / str(key["split"])
    files = [maps] if maps.is_file() else [maps.with_name(f"{maps.name}.h5"), *sorted(maps.glob("*.h5"))]
    for file in files:
        if file.is_file():
            with MapReader(file) as reader:
                return reader.provenance
    return None


def _belongs(path: Path, scores: Mapping[str, Any], model: Path, made: Mapping[str, Any] | None) -> str:
    """What ties the model to the scores; raises where they do not belong together."""
    from wsol.models import checkpoint_recipe

    _, meta = checkpoint_recipe(model)
    key = scores["key"]
    if list(meta.get("classes", [])) != list(scores["classes"]):
        raise ValueError(
            f"{path} knows the classes {scores['classes']}, {model} {meta.get('classes')}; they do not belong together"
        )
    said = {"model": meta.get("settings", {}).get("name") or key["model"], "fold": meta.get("fold"), "seed": meta.get("seed"),
            "checkpoint": model.stem}  # fmt: skip
    for name, value in said.items():
        if value != key[name]:
            raise ValueError(f"{path} is about {name} {key[name]!r}, {model} is {name} {value!r}; they do not belong together")
    if made is None:
        return "name, fold and seed"
    weights, now = made["recipe"]["sha256"], read_json(model.with_suffix(".json"))["sha256"]
    if weights != now:
        raise ValueError(
            f"{path}: its maps were drawn with other weights (sha256 {weights[:12]}) than {model} holds ({now[:12]}); name the "
            "checkpoint that drew them, or evaluate again"
        )
    return "weights"


def _drawn(path: Path, method: str, made: Mapping[str, Any] | None) -> dict[str, Any]:
    """How to draw the map: as the file of the scored maps says, else the method of that name without options."""
    from wsol.cams import METHODS

    if made is not None:
        return dict(next(m for m in made["methods"] if m["id"] == method))
    if method not in METHODS:
        raise ValueError(
            f"{path}: nothing says how {method!r} is drawn: the maps that were scored are not beside it. Name their "
            "file (maps), or leave the scores in their results folder"
        )
    return {"id": method, "method": method, "options": {}}
