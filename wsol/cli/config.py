"""The configuration file: the only schema, torch-free, one description per field.

A study is one YAML file. At its top stand the grid (`models`, `maps`, `checkpoints`, `folds`, `seeds`) and a section per verb.
An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsol._names import closest
from wsol.cli.files import parse_yaml

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class Section(BaseModel):
    """A part of the configuration that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


class Prepare(Section):
    """Which samples, their labels and their roles."""

    name: Name = Field(description="name of the dataset; it stands in every path below results/")
    source: str = Field(description="where samples come from: `wsol list sources`")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the source, e.g. root, sheet, slides, seed")


class Tile(Section):
    """How slides are cut; ignored for image datasets."""

    mpp: float = Field(1.0, gt=0, description="um per px at which tiles are read")
    tile_px: int = Field(256, ge=32, description="side of a tile in px at `mpp`; a multiple of 32")
    tile_um: float | None = Field(None, gt=0, description="side of a tile in um; overrides tile_px")
    min_tissue: float = Field(0.2, ge=0, le=1, description="least fraction of tissue in a tile that is kept")
    tissue_mpp: float = Field(8.0, gt=0, description="um per px of the tissue mask; finer costs more and gains nothing")

    @property
    def side_px(self) -> int:
        """Side of a tile in px at `mpp`, rounded to a multiple of 32."""
        side = self.tile_px if self.tile_um is None else self.tile_um / self.mpp
        return max(32, round(side / 32) * 32)


class Train(Section):
    """How a localizer is fitted. Any key may be overridden per model under `models.NAME.train`."""

    epochs: int = Field(12, ge=1, description="passes over the training samples")
    repeats: int = Field(1, ge=1, description="times each sample is drawn per epoch (fresh crops, fresh tiles)")
    batch_size: int = Field(8, ge=1, description="images per step; for slides: slides (bags) per step")
    tiles_per_bag: int = Field(8, ge=1, description="tiles drawn from each slide per step")
    crop: int = Field(416, ge=32, description="side in px of the random crop of an image (slides: the whole tile is used)")
    lr: float = Field(2e-4, gt=0, description="peak learning rate of the backbone (AdamW)")
    head_lr_factor: float = Field(10.0, gt=0, description="the head learns this many times faster")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW weight decay, not on norms and biases")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps spent warming up, before the cosine")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the cross-entropy")
    color_jitter: float = Field(0.1, ge=0, le=1, description="strength of brightness, contrast and saturation jitter")
    stain_jitter: float = Field(
        0.05, ge=0, lt=0.57, description="standard deviation of the stain jitter in optical-density space"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of a moving average of the weights; null: none")
    bf16: bool = Field(True, description="bfloat16 autocast (half the time of float32 on recent CPUs and GPUs)")
    channels_last: bool = Field(True, description="NHWC memory layout, faster for convolutions on CPU")
    device: str = Field("auto", description="auto, cpu, or cuda[:n]")


class Model(Section):
    """A localizer to train: what it is built of and, with `from`, which other model it starts at."""

    backbone: str = Field("efficientnet_lite0", description="`wsol list backbones`")
    head: str = Field("gap", description="`wsol list heads`")
    head_options: dict[str, Any] = Field(default_factory=dict, description="options of the head, e.g. {r: 5} for lse")
    output_stride: Literal[16, 32] = Field(16, description="px per map cell; 16 removes the last stride")
    weights: str | None = Field("imagenet", description="imagenet, a path to a state dict, or null for random weights")
    freeze_bn: bool = Field(True, description="keep batch-norm statistics: live ones do not follow in short fine-tuning")
    strategy: str = Field("classify", description="`wsol list strategies`")
    parent: str | None = Field(None, alias="from", description="name of the model whose checkpoint this one starts from")
    train: dict[str, Any] = Field(default_factory=dict, description="keys of `train` that differ for this model")


class MapMethod(Section):
    """A map method with options, under an id of its own."""

    id: Name = Field(description="name of the map in files, tables and MLflow")
    method: str = Field(description="`wsol list cams`")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the method")


class Localize(Section):
    """How maps are drawn."""

    map_class: Literal["positive", "predicted", "truth"] = Field(
        "positive", description="class whose map is drawn: the declared positive one, the predicted one, or the true one"
    )
    halo_px: int = Field(32, ge=0, description="context read around each tile of a slide, a multiple of the stride")
    device: str = Field("auto", description="auto, cpu, or cuda[:n]")


class Heatmap(Section):
    """Which pictures and vector files are written."""

    methods: list[str] = Field(default_factory=list, description="map ids to export; empty: the first of each map set")
    samples: int = Field(12, ge=0, description="image datasets: overlays per model and map set, from best to worst")
    mpp: float = Field(4.0, gt=0, description="um per px of overlays of slides")


class Evaluate(Section):
    """How maps become numbers."""

    splits: list[Literal["valcl", "test"]] = Field(default=["test"], description="splits to score; develop on valcl")
    scale: Literal["fitted", "probability", "per-image"] = Field(
        "fitted", description="map to [0, 1]: range fitted on validation maps, sigmoid, or min-max of each image"
    )
    threshold: Literal["auto", "validation-masks", "otsu", "fixed"] = Field(
        "auto", description="source of the threshold; auto: validation masks where there are some, else otsu on validation maps"
    )
    fixed: float = Field(0.5, ge=0, le=1, description="the threshold when `threshold: fixed`")
    bootstrap: int = Field(1000, ge=0, description="replicates of the bootstrap over patients")
    floors: bool = Field(True, description="score the maps that need no training beside every table")
    floors_mpp: float = Field(2.0, gt=0, description="um per px at which floor maps of slides are drawn")
    ledger: str | None = Field(None, description="CSV to which every evaluation of a test split appends a row")


class Report(Section):
    """The page."""

    title: str = Field("", description="title of the page; empty: the name of the dataset")


class Log(Section):
    """MLflow."""

    tracking_uri: str = Field("", description="MLflow tracking URI; empty: SQLite at results/log/mlflow.db")
    experiment: str = Field("", description="MLflow experiment; empty: the name of the dataset")


class Config(Section):
    """A study."""

    results: str = Field("results", description="folder for everything that is written")
    prepare: Prepare
    tile: Tile = Tile()
    models: dict[Name, Model] = Field(description="localizers by name; an edge between two is `from`")
    maps: dict[Name, Annotated[list[str | MapMethod], Field(min_length=1)]] = Field(
        description="map sets by name: lists of methods, drawn in one job per model"
    )
    checkpoints: list[Name] = Field(
        default=["b-cl"], min_length=1, description="checkpoints to draw maps with: b-cl, last, label-free"
    )
    folds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1, description="folds of the split")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1, description="training seeds")
    train: Train = Train()
    localize: Localize = Localize()
    heatmap: Heatmap = Heatmap()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    log: Log = Log()

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        from wsol.cams import METHODS
        from wsol.data import SOURCES
        from wsol.models import BACKBONES, HEADS
        from wsol.training import CHECKPOINTS, STRATEGIES

        _known("source", [self.prepare.source], SOURCES)
        _known("checkpoint", self.checkpoints, CHECKPOINTS)
        if not self.models:
            raise ValueError("models: at least one model is needed")
        for name, model in self.models.items():
            if name == "floors":
                raise ValueError("models.floors: this name is taken by the maps that need no training; choose another")
            _known("backbone", [model.backbone], BACKBONES)
            _known("head", [model.head], HEADS)
            _known("strategy", [model.strategy], STRATEGIES)
            _known("training setting", model.train, Train.model_fields)
            self.lineage(name)
        for name in self.maps:
            ids = [m["id"] for m in self.methods(name)]
            if len(set(ids)) < len(ids):
                raise ValueError(f"maps.{name}: an id stands twice in {ids}; give each entry its own id")
            _known("CAM method", [m["method"] for m in self.methods(name)], METHODS)
        return self

    def lineage(self, name: str) -> list[str]:
        """`name` and the models it descends from, nearest first.

        Raises:
            ValueError: a `from` names an unknown model, or the edges run in a circle.
        """
        line = [name]
        while (parent := self.models[line[-1]].parent) is not None:
            if parent not in self.models:
                raise ValueError(closest("model", parent, self.models) + f"; named by models.{line[-1]}.from")
            if parent in line:
                raise ValueError(f"models: `from` runs in a circle: {' -> '.join([*line, parent])}")
            line.append(parent)
        return line

    def training(self, name: str) -> dict[str, Any]:
        """The full training settings of one model: `train` with the model's own overrides."""
        return Train.model_validate({**self.train.model_dump(), **self.models[name].train}).model_dump()

    def methods(self, name: str) -> list[dict[str, Any]]:
        """The methods of a map set as dicts with id, method, options."""
        return [{"id": m, "method": m, "options": {}} if isinstance(m, str) else m.model_dump() for m in self.maps[name]]


def _known(kind: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise ValueError(closest(kind, name, known))


class ConfigError(ValueError):
    """What is wrong in a configuration, one line per finding."""


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
            raise ConfigError(f"{where}: no such configuration file")
        try:
            raw = parse_yaml(Path(source).read_text())
        except yaml.YAMLError as error:
            raise ConfigError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected a mapping of sections at the top, got {type(raw).__name__}")
    return parse(Config, raw, where)


def parse(schema: type[S], raw: dict[str, Any], where: str) -> S:
    """Validate `raw` against `schema`; on failure say each finding in one line."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        lines = [_finding(schema, finding) for finding in error.errors(include_url=False)]
        raise ConfigError(f"{where}: " + "\n  ".join(lines if len(lines) == 1 else ["", *lines])) from None


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
