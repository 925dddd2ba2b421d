"""What an earlier evaluation fixed: its method, scale and threshold, tied to the model that it was about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol._names import closest
from wsol.cli.files import read_json
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
    """

    path: Path
    key: dict[str, Any]
    method: str
    drawn: dict[str, Any]
    facts: dict[str, Any]
    scores: dict[str, Any]
    scale: Scale
    threshold: Threshold


def freeze(path: Path, method: str | None, model: Path) -> Frozen:
    """Scale, threshold and map method of an earlier evaluation, which must be one of this model.

    Args:
        path: its scores.json.
        method: id of the map; None for the only one.
        model: checkpoint.

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
    if "drawn_by" not in scores:
        raise ValueError(f"{path}: it does not say what drew its maps; run `wsol evaluate` again (or the study)")
    _belongs(path, scores, model)
    drawn = next(m for m in scores["drawn_by"]["methods"] if m["id"] == chosen)
    return Frozen(path, key, chosen, dict(drawn), facts, scores, scale, threshold)


def _belongs(path: Path, scores: Mapping[str, Any], model: Path) -> None:
    """Raise where the model is not the one whose maps were scored."""
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
    weights, now = str(scores["drawn_by"]["sha256"]), str(read_json(model.with_suffix(".json"))["sha256"])
    if weights != now:
        raise ValueError(
            f"{path}: its maps were drawn with other weights (sha256 {weights[:12]}) than {model} holds ({now[:12]}); name the "
            "checkpoint that drew them, or evaluate again"
        )
