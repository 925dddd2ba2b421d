"""The sections of a study, one per verb: torch-free pydantic models, a description per field; `config.py` puts them together.

The section of a model, whose parts depend on each other, is in `model.py`, that of tiles in `tile_section.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from wsol.cli.published import EvaluationDefect
from wsol.cli.sections import LARGEST_PX, Count, Megabytes, Mpp, Once, Side, Some
from wsol.cli.sections import Name as Name
from wsol.cli.sections import Section as Section
from wsol.cli.tile_section import Quality as Quality
from wsol.cli.tile_section import Tile as Tile
from wsol.tracking import check_uri


class Prepare(Section):
    """Which samples, their labels and their roles."""

    name: Name = Field(description="name of the dataset; it stands in every path below results/")
    source: str = Field(description="where samples come from: `wsol list sources`")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the source, e.g. root, sheet, slides, seed")


class Train(Section):
    """How a localizer is fitted. Any key may be overridden per model under `models.NAME.train`."""

    epochs: Count = Field(12, description="passes over the training samples")
    repeats: Count = Field(1, description="times each sample is drawn per epoch (fresh crops, fresh tiles)")
    batch_size: Count = Field(8, description="images per batch; for slides: slides (bags) per batch")
    accumulate: Count = Field(
        1, description="batches per step of the optimizer: n batches of b train like one of n * b, in the memory of one"
    )
    processes: Count = Field(
        1, description="processes that share each batch, one per GPU or core: the workflow starts them by torchrun"
    )
    tiles_per_bag: Count = Field(8, description="tiles drawn from each slide per batch")
    resize: Side | None = Field(
        None, description="side in px of the square images are resized to before the crop (survey: 256); slides ignore it"
    )
    crop: Side = Field(416, description="side in px of the random crop of an image (slides: the whole tile is used)")
    lr: float = Field(2e-4, gt=0, description="peak learning rate of the backbone (AdamW)")
    head_lr_factor: float = Field(10.0, gt=0, description="the head learns this many times faster")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW weight decay, not on norms and biases")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps spent warming up, before the cosine")
    balance: Literal["none", "sampler", "loss"] = Field(
        "none",
        description="sampler: rarer classes are drawn as often as the most frequent one; loss: weighed n / (k * n_c)",
    )
    embeddings: Literal["none", "tiles", "cells"] = Field(
        "none",
        description="train the head only, on what the frozen backbone makes of each tile once (slides, no augmentation): tiles "
        "(means, for heads gap, cam, attention-mil) or cells (the last feature map, for all; large)",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the cross-entropy")
    color_jitter: float = Field(0.1, ge=0, le=1, description="strength of brightness, contrast and saturation jitter")
    stain_jitter: float = Field(
        0.05, ge=0, lt=0.57, description="standard deviation of the stain jitter in optical-density space"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of a moving average of the weights; null: none")
    validate_at: Side | None = Field(
        None, description="side in px of the square validation images are resized to (survey: 224); null: as they are"
    )
    bf16: bool | Literal["auto"] = Field(
        "auto", description="bfloat16 autocast; auto: where the processor computes it in hardware (half the time of float32)"
    )
    cache_mb: Megabytes = Field(1024, description="MB of decoded images or tiles that are kept for the next epoch")
    channels_last: bool = Field(True, description="NHWC memory layout, faster for convolutions on CPU")
    device: str = Field("auto", description="auto, cpu, or cuda[:n]")

    @model_validator(mode="after")
    def _something_for_each_process(self) -> Train:
        if self.processes > self.batch_size:
            raise ValueError(
                f"processes: {self.processes} processes share each batch, and batch_size is {self.batch_size}: "
                "raise it, or lower processes"
            )
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Train:
        if self.resize is not None and self.crop > self.resize:
            raise ValueError(f"crop: {self.crop} does not fit into images that resize: {self.resize} makes; lower crop")
        return self


class MapMethod(Section):
    """A map method with options, under an id of its own."""

    id: Name = Field(description="name of the map in files, tables and MLflow")
    method: str = Field(description="`wsol list cams`")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the method")


MapClass = Literal["positive", "predicted", "truth"]


class Localize(Section):
    """How maps are drawn."""

    map_class: MapClass = Field(
        "positive", description="class whose map is drawn: the declared positive one, the predicted one, or the true one"
    )
    resize: Side | None = Field(
        None, multiple_of=32,
        description="side in px of the square images are resized to before they are drawn (survey: 224); slides ignore it",
    )  # fmt: skip
    slides: Literal["whole", "tiles"] = Field(
        "whole", description="whole: as one image, block by block, where net and method allow it; tiles: tile by tile"
    )
    memory_mb: Megabytes = Field(
        2048, ge=64, description="memory that drawing a slide whole may take, beside some 650 MB of libraries"
    )
    halo_px: Some = Field(32, le=LARGEST_PX, description="context read around tiles drawn one by one, a multiple of the stride")
    device: str = Field("auto", description="auto, cpu, or cuda[:n]")


class Heatmap(Section):
    """Which pictures and vector files are written."""

    methods: list[str] = Field(default_factory=list, description="map ids to export; empty: the first of each map set")
    samples: Some = Field(12, description="image datasets: overlays per model and map set, from best to worst")
    mpp: Mpp = Field(4.0, description="um per px of overlays of slides")


class Conformal(Section):
    """The threshold that controls the flagged area of negative patients (`threshold: conformal`)."""

    area: float = Field(0.05, ge=0, lt=1, description="share of a negative patient's area that may be flagged")
    level: float = Field(0.95, gt=0, lt=1, description="share of negative patients that keep to it")
    bound: Literal["marginal", "confident"] = Field(
        "marginal", description="marginal: on average over validation sets; confident: with the stated confidence for this one"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of the bound `confident`")
    within: Literal["pooled", "worst"] = Field("pooled", description="a patient's area: all its images pooled, or the worst one")


Scale = Literal["fitted", "none", "probability", "temperature", "per-slide", "per-image"]
Source = Literal["validation-masks", "fixed", "otsu", "per-image-otsu", "prevalence-matched", "conformal"]


class Evaluate(Section):
    """How maps become numbers."""

    protocol: Literal["ours", "survey"] = Field("ours", description="survey: the published protocol, with its per-image min-max")
    splits: Annotated[list[Literal["valcl", "test"]], Once] = Field(
        default=["test"], description="splits to score; develop on valcl"
    )
    scale: Scale = Field(
        "fitted",
        description="map to [0, 1]: one range fitted on validation maps; none (maps that already are); sigmoid; sigmoid with a "
        "temperature fitted on validation labels; range of each slide; min-max of each image (protocol: survey only)",
    )
    size: Side | None = Field(
        None,
        description="side in px of the square at which maps and masks of images are compared pixel by pixel (survey: 224; map "
        "bilinear, mask nearest); null: at the size of the image; slides refuse it",
    )  # fmt: skip
    as_published: list[EvaluationDefect] = Field(
        default_factory=list,
        description="known defects of the published evaluation whose numbers stand beside the result: test-threshold, "
        "mirrored-threshold",
    )
    compare_scales: list[Scale] = Field(
        default=["fitted", "probability", "temperature", "per-slide", "per-image"],
        description="scales of the table that shows what each does to ranking and to threshold transfer; [] leaves it out",
    )
    threshold: Literal["auto"] | Source = Field(
        "auto", description="source of the threshold; auto: validation masks where there are some, else otsu on validation maps"
    )
    compare_thresholds: list[Source] = Field(
        default=["validation-masks", "fixed", "otsu", "per-image-otsu", "prevalence-matched", "conformal"],
        description="sources of the table that shows what each threshold would give",
    )
    fixed: float = Field(0.5, ge=0, le=1, description="the threshold when `threshold: fixed`")
    prevalence: float | None = Field(
        None, gt=0, lt=1, description="expected share of foreground for `prevalence-matched`; null: that of the validation masks"
    )
    conformal: Conformal = Conformal()
    regions: bool = Field(True, description="lesions found, by size, and FROC (connected regions of the masks)")
    boxes_px: Some = Field(512, description="longest side at which MaxBoxAcc is computed; 0: no boxes")
    bootstrap: Count = Field(1000, description="replicates of the bootstrap over patients")
    floors: bool = Field(True, description="score the maps that need no training beside every table")
    floors_mpp: Mpp = Field(2.0, description="um per px at which floor maps of slides are drawn")
    ledger: str | None = Field(None, description="CSV to which every evaluation of a test split appends a row")

    @model_validator(mode="after")
    def _survey_only(self) -> Evaluate:
        if self.scale == "per-image" and self.protocol != "survey":
            raise ValueError(
                "scale: per-image stretches every image, normals too, to score 1 somewhere, so no threshold can say 'nothing "
                "here'; it belongs to the published protocol only: set protocol: survey beside it, or use scale: fitted"
            )
        return self


class Probe(Section):
    """What happens to maps when pixels are taken away (faithfulness) or weights are (sanity). Off unless `samples` is above 0."""

    samples: Some = Field(0, description="images (slides: tiles) per model and map set; 0: no probe")
    size: Side = Field(224, ge=64, description="side in px at which they are probed")
    faithfulness: list[str] = Field(
        default=["insertion", "deletion", "average-drop", "average-increase", "adcc", "road"],
        description="`wsol list metrics`; pointing games open masks and say so",
    )
    fill: Literal["mean", "blur", "normalized-zero"] = Field(
        "mean", description="what deleted pixels become: mean color, blur, or the color that normalization makes 0 (as published)"
    )
    follow_prediction: bool = Field(
        False, description="draw randomized nets for the class they predict (as published code does), not for the trained net's"
    )
    sanity: list[Literal["cascading", "independent"]] = Field(
        default=["cascading"], description="orders in which weights are randomized; [] for none"
    )
    shuffled: dict[str, str] = Field(
        default_factory=dict, description="model -> the model trained on shuffled labels (`shuffle_labels: true`) to compare with"
    )


class Report(Section):
    """The page."""

    title: str = Field("", description="title of the page; empty: the name of the dataset")
    pictures: Some = Field(
        48, description="samples of each split shown with their maps: best, median and worst, then others evenly between"
    )
    accepted: list[Name] = Field(
        default_factory=list, description="slides known to be unusable, for which a study does not end with an exit code of 1"
    )


class Log(Section):
    """MLflow."""

    tracking_uri: str = Field("", description="MLflow tracking URI; empty: SQLite at results/log/mlflow.db")
    experiment: str = Field("", description="MLflow experiment; empty: the name of the dataset")

    @field_validator("tracking_uri")
    @classmethod
    def _may_work(cls, uri: str) -> str:
        if uri:
            check_uri(uri)
        return uri
