"""Where the defects of the published code act in a study: in heads, in seeds, in the evaluation. Torch-free.

`as_published` at the top of a study gives every model that a defect concerns a twin that has it, `NAME+DEFECT`: one more model,
trained, drawn and scored as any other, so that the page can show what the defect does to a number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from wsol._names import closest

IN_EVALUATION = ("test-threshold", "mirrored-threshold")
"""Defects of the evaluation: their numbers stand beside the result and never replace it (`wsol.evaluation.as_published`)."""


@dataclass(frozen=True)
class Place:
    """Where a defect lies in a model: the key (`head` or `strategy`), the values that can have it, the options that bring it."""

    key: str
    values: tuple[str, ...]
    options: Mapping[str, Any]

    def within(self, model: Mapping[str, Any]) -> bool:
        """Whether a model has the part in which the defect lies."""
        return model.get(self.key) in self.values


IN_MODELS = {
    "weight-row": Place("head", ("cam",), {"background": True, "published_rows": True}),
    "wildcat-min": Place("head", ("wildcat",), {"released_min": True}),
    "background-seeds": Place("strategy", ("negev", "pixelcam"), {"released": True}),
}
"""Defects of models. The maps of the survey's other heads read the right row, so only the head `cam` can have the wrong one."""


def _of(known: tuple[str, ...], kind: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(closest(kind, name, known))
        return name

    return AfterValidator(check)


Defect = Annotated[str, _of((*IN_EVALUATION, *IN_MODELS), "defect of the published code")]
ModelDefect = Annotated[str, _of(tuple(IN_MODELS), "defect of a model")]
EvaluationDefect = Annotated[str, _of(IN_EVALUATION, "defect of the evaluation")]


def concerns(defect: str, name: str, models: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a defect changes a model: it lies in one of its parts, or in a model that it descends from."""
    line, left = [], [name]
    while left:
        if (at := left.pop()) in models and at not in line:  # a study whose edges run in a circle is refused elsewhere
            line.append(at)
            left += parents(models[at].get("from"))
    return any(IN_MODELS[defect].within(models[one]) for one in line)


def parents(said: Any) -> list[str]:
    """What `from` names: nothing, a model, or several."""
    return [said] if isinstance(said, str) else list(said or [])


def spread(study: dict[str, Any]) -> dict[str, Any]:
    """A study, as parsed, with what its `as_published` asks for: twins among the models, and defects of the evaluation.

    What is malformed is left for the schema to refuse.

    Raises:
        ValueError: a defect concerns no model of the study, or a model has a name that is kept for twins.
    """
    wanted, models, evaluate = study.get("as_published", []), study.get("models"), study.get("evaluate", {})
    if not (isinstance(wanted, list) and isinstance(models, dict) and isinstance(evaluate, dict)):
        return study
    if not all(isinstance(model, dict) for model in models.values()):
        return study
    twins: dict[str, Any] = {}
    for defect in [d for d in wanted if d in IN_MODELS]:
        plain = [name for name in models if not models[name].get("as_published") and concerns(defect, name, models)]
        if not plain:
            place = IN_MODELS[defect]
            raise ValueError(f"as_published: {defect} needs a model with {place.key}: {' or '.join(place.values)}; there is none")
        twins |= {f"{name}+{defect}": _twin(models[name], defect, plain) for name in plain}
    for name in models:
        if "+" in str(name) and models[name] != twins.get(name):  # a study that was read, twins and all, may be read again
            raise ValueError(f"models.{name}: + is kept for the twins NAME+DEFECT that as_published makes; choose another name")
    if not wanted:
        return study
    beside = [*evaluate.get("as_published", []), *(d for d in wanted if d in IN_EVALUATION)]
    return {**study, "models": {**models, **twins}, "evaluate": {**evaluate, "as_published": list(dict.fromkeys(beside))}}


def _twin(model: Mapping[str, Any], defect: str, plain: list[str]) -> dict[str, Any]:
    """The same model with a defect; it descends from the twins of its parents where these have some."""
    line = [f"{name}+{defect}" if name in plain else name for name in parents(model.get("from"))]
    return {**model, "as_published": [defect], **({"from": line if len(line) > 1 else line[0]} if line else {})}


def require_place(defects: Collection[str], head: str, strategy: str, inherited: Collection[str]) -> None:
    """Raise ValueError for a defect that has no place in a model of this head and strategy and is not `inherited` either."""
    model = {"head": head, "strategy": strategy}
    for defect, place in ((d, IN_MODELS[d]) for d in defects if d not in inherited):
        if not place.within(model):
            raise ValueError(
                f"as_published: {defect} lies in {place.key} {' or '.join(place.values)}, and this model has {place.key} "
                f"{model[place.key]!r}; take it out, or start from a model that has the defect (--parent)"
            )


def options(defects: list[str], head: str, strategy: str) -> dict[str, dict[str, Any]]:
    """`head_options` and `strategy_options` that bring the defects; those that lie in an ancestor bring none here."""
    model = {"head": head, "strategy": strategy}
    found: dict[str, dict[str, Any]] = {"head_options": {}, "strategy_options": {}}
    for place in [IN_MODELS[d] for d in defects]:
        if place.within(model):
            found[f"{place.key}_options"] |= place.options
    return found
