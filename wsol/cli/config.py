"""The configuration file: the only schema, torch-free, one description per field.

A study is one YAML file. At its top stand the grid (`models`, `maps`, `checkpoints`, `folds`, `seeds`) and a section per verb.
An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from wsol._names import closest
from wsol.cli.files import parse_yaml
from wsol.cli.model import Model
from wsol.cli.published import Defect, concerns, spread
from wsol.cli.schema import Evaluate, Heatmap, Localize, Log, MapMethod, Prepare, Probe, Report, Tile, Train
from wsol.cli.sections import Name, Once, Section, Seed, Some, refuse_odd_path

S = TypeVar("S", bound=Section)


class Config(Section):
    """A study."""

    results: Annotated[str, AfterValidator(refuse_odd_path)] = Field(
        "results", description="folder for everything that is written"
    )
    prepare: Prepare
    tile: Tile = Tile()
    models: dict[Name, Model] = Field(description="localizers by name; an edge between two is `from`")
    maps: dict[Name, Annotated[list[str | MapMethod], Field(min_length=1)]] = Field(
        description="map sets by name: lists of methods, drawn in one job per model"
    )
    checkpoints: Annotated[list[Name], Once] = Field(
        default=["b-cl"],
        min_length=1,
        description="checkpoints to draw maps with: b-cl (validation labels; b-cl-survey: ties to the last epoch), last, masks-N "
        "(N validation masks, as masks-6); without labels map-stability, rotation-stability, stain-stability, scale-consistency, "
        "seed-agreement",
    )
    folds: Annotated[list[Some], Once] = Field(default=[0], min_length=1, description="folds of the split")
    seeds: Annotated[list[Seed], Once] = Field(default=[0], min_length=1, description="training seeds, each below 2^32")
    slides_per_job: Some = Field(
        0,
        description="slides that one job works on; 0: one up to 500 slides, then as many as keep it at 500 jobs",
    )
    as_published: list[Defect] = Field(
        default_factory=list,
        description="known defects of the published code to show: weight-row, wildcat-min, background-seeds (each gives the "
        "models that it concerns a twin NAME+DEFECT), test-threshold, mirrored-threshold (beside every result)",
    )
    train: Train = Train()
    localize: Localize = Localize()
    heatmap: Heatmap = Heatmap()
    evaluate: Evaluate = Evaluate()
    probe: Probe = Probe()
    report: Report = Report()
    log: Log = Log()

    @model_validator(mode="before")
    @classmethod
    def _twins(cls, study: Any) -> Any:
        return spread(study) if isinstance(study, dict) else study

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        from wsol.cams import METHODS
        from wsol.cli.probing import check_names
        from wsol.data import KINDS, SOURCES
        from wsol.training import criterion

        _known("source", [self.prepare.source], SOURCES)
        for name in self.checkpoints:
            criterion(name)
        if not self.models:
            raise ValueError("models: at least one model is needed")
        for name, model in self.models.items():
            if name == "floors":
                raise ValueError("models.floors: this name is taken by the maps that need no training; choose another")
            _known("training setting", model.train, Train.model_fields)
            _known("map set", model.maps, self.maps)
            self.lineage(name)
            self._suits(name)
            self._have_defects(name)
            if not self.kept(name):
                raise ValueError(
                    f"models.{name} trains on the role valpx, whose masks choose the only checkpoints {self.checkpoints}: keep "
                    "another too, such as b-cl or last"
                )
        if self.evaluate.size is not None and KINDS[self.prepare.source] == "slides":
            raise ValueError("evaluate.size squeezes images into a square; slides are compared as they are: leave it out")
        check_names(self.probe.faithfulness, masks=True)
        for name in (*self.probe.shuffled, *self.probe.shuffled.values()):
            _known("model (in probe.shuffled)", [name], self.models)
        for name in self.probe.shuffled.values():
            if not self.models[name].shuffle_labels:
                raise ValueError(f"probe.shuffled: models.{name} is trained on true labels; set shuffle_labels: true there")
        for name in self.maps:
            ids = [m["id"] for m in self.methods(name)]
            if len(set(ids)) < len(ids):
                raise ValueError(f"maps.{name}: an id stands twice in {ids}; give each entry its own id")
            _known("CAM method", [m["method"] for m in self.methods(name)], METHODS)
        return self

    def _suits(self, name: str) -> None:
        """Raise unless the strategy of a model has what it learns from, and the model fits the one that it starts from."""
        from wsol.data import KINDS
        from wsol.training import INHERITED, MASKED, TAUGHT, UNTUNED

        model, kind = self.models[name], KINDS[self.prepare.source]
        if model.strategy in MASKED and kind == "slides":
            raise ValueError(f"models.{name}: strategy {model.strategy!r} learns from masks, which are read for images only")
        if model.strategy in INHERITED and kind == "images":
            raise ValueError(
                f"models.{name}.strategy: {model.strategy!r} gives tiles the label of their slide; for images take classify"
            )
        if self.training(name)["embeddings"] != "none" and kind == "images":
            raise ValueError(f"models.{name}.train.embeddings: images are drawn as fresh crops; only tiles can be encoded once")
        if model.tiles != "bags":
            self._labels_tiles(name, kind)
        if not model.parents and model.strategy in TAUGHT:
            raise ValueError(f"models.{name}.from: strategy {model.strategy!r} learns from a trained model: name it here")
        if len(model.parents) > 1 and model.strategy not in TAUGHT:
            raise ValueError(f"models.{name}.from: strategy {model.strategy!r} learns from no maps; name one model to start from")
        first = next(iter(model.parents), None)
        if first and model.strategy not in UNTUNED and self.models[first].backbone != model.backbone:
            raise ValueError(
                f"models.{name}.backbone: {model.backbone!r}, but `from` names {first!r}, whose backbone is "
                f"{self.models[first].backbone!r}; a model starts from the weights of its parent: take the same one"
            )

    def _labels_tiles(self, name: str, kind: str) -> None:
        """Raise unless the tiles of a study have labels, and the model has no other use for its slides."""
        from wsol.training import INHERITED

        model, place = self.models[name], f"models.{name}.tiles: {self.models[name].tiles}"
        if kind == "images":
            raise ValueError(f"{place} is for slides; images have labels of their own: leave it out")
        if self.tile.labels == "none":
            raise ValueError(f"{place} learns from labels of tiles, and none are made: set tile.labels: annotation")
        if model.strategy in INHERITED or model.shuffle_labels:
            other = model.strategy if model.strategy in INHERITED else "shuffle_labels"
            raise ValueError(f"{place} gives tiles the labels of annotations, {other} others; take one of the two")
        if self.training(name)["embeddings"] != "none":
            raise ValueError(f"{place} draws single tiles, train.embeddings are of bags: leave one out")

    def lineage(self, name: str) -> list[str]:
        """`name` and the models it descends from, each before its own parents.

        Raises:
            ValueError: a `from` names an unknown model, or the edges run in a circle.
        """
        return list(dict.fromkeys(one for line in self._lines([name]) for one in line))

    def _lines(self, line: list[str]) -> list[list[str]]:
        """Every way from a model, the first of `line`, to one without parents."""
        found = []
        for parent in self.models[line[-1]].parents:
            if parent not in self.models:
                raise ValueError(closest("model", parent, self.models) + f"; named by models.{line[-1]}.from")
            if parent in line:
                raise ValueError(f"models: `from` runs in a circle: {' -> '.join([*line, parent])}")
            found += self._lines([*line, parent])
        return found or [line]

    def _have_defects(self, name: str) -> None:
        models = {n: m.model_dump(by_alias=True) for n, m in self.models.items()}
        for defect in self.models[name].as_published:
            if not concerns(defect, name, models):
                raise ValueError(f"models.{name}.as_published: neither it nor a model that it descends from can have {defect}")

    def defects(self, name: str) -> list[str]:
        """Defects of the published code that a model has on purpose, or that a model has which it descends from."""
        return sorted({d for one in self.lineage(name) for d in self.models[one].as_published})

    def kept(self, name: str) -> list[str]:
        """The checkpoints of one model: one that trains on the masks of valpx cannot be chosen on them too."""
        from wsol.training import criterion

        taken = self.models[name].train_on == "valpx"
        return [c for c in self.checkpoints if not (taken and criterion(c).masks)]

    def training(self, name: str) -> dict[str, Any]:
        """The full training settings of one model: `train` with the model's own overrides."""
        return parse(Train, {**self.train.model_dump(), **self.models[name].train}, f"models.{name}.train").model_dump()

    def sets(self, name: str) -> list[str]:
        """The map sets that are drawn with one model, in the order of the study."""
        chosen = self.models[name].maps
        return [s for s in self.maps if not chosen or s in chosen]

    def methods(self, name: str) -> list[dict[str, Any]]:
        """The methods of a map set as dicts with id, method, options."""
        return [{"id": m, "method": m, "options": {}} if isinstance(m, str) else m.model_dump() for m in self.maps[name]]


def _known(kind: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise ValueError(closest(kind, name, known))


class ConfigError(ValueError):
    """What is wrong in a configuration, one line per finding."""

    def __init__(self, where: str, findings: Sequence[str]) -> None:
        super().__init__(f"{where}: " + "\n  ".join(findings if len(findings) == 1 else ["", *findings]))
        self.findings = list(findings)


def load_config(source: str | Path | dict[str, Any]) -> Config:
    """Read and check a study.

    Args:
        source: path of a YAML file, or the parsed mapping.

    Raises:
        ConfigError: one line per finding: where, what came, what was expected, the nearest known key.
    """
    where = str(source) if not isinstance(source, dict) else "config"
    if isinstance(source, dict):
        raw: Any = source
    else:
        if not Path(source).is_file():
            raise ConfigError(where, ["no such configuration file"])
        try:
            raw = parse_yaml(Path(source).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(where, [f"not valid YAML in UTF-8: {error}"]) from error
    if not isinstance(raw, dict):
        raise ConfigError(where, [f"expected a mapping of sections at the top, got {type(raw).__name__}"])
    return parse(Config, raw, where)


def parse(schema: type[S], raw: dict[str, Any], where: str) -> S:
    """Validate `raw` against `schema`; on failure say each finding in one line."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(where, [_finding(schema, finding) for finding in error.errors(include_url=False)]) from None


def _finding(schema: type[Section], finding: Any) -> str:
    """One validation finding as a sentence."""
    place = ".".join(str(part) for part in finding["loc"])
    if finding["type"] == "extra_forbidden":
        *path, key = finding["loc"]
        return f"{place}: " + closest("key", str(key), _keys_at(schema, path))
    if finding["type"] == "missing":
        return f"{place}: this key is required"
    message = re.sub(r"^Value error, ", "", finding["msg"])
    if finding["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: {message}; got {finding['input']!r}"


def _keys_at(schema: type[Section], path: list[Any]) -> list[str]:
    """The keys that `schema` knows at `path` (through sections and mappings of sections)."""
    for part in path:
        field = next((f for n, f in schema.model_fields.items() if part in (n, f.alias)), None)
        if field is None:  # a name inside a mapping of sections, or the tag of a union: the schema stays
            continue
        inner = [t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, Section)]
        if inner:
            schema = inner[0]
    return [f.alias or n for n, f in schema.model_fields.items()]


def _types(annotation: Any) -> list[Any]:
    """All types that an annotation is made of."""
    parts = get_args(annotation)
    return [annotation, *(t for part in parts for t in _types(part))]
