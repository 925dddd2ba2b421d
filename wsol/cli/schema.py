"""The sections of a study, one per verb: torch-free pydantic models, a description per field; `config.py` puts them together.

The section of a model, whose parts depend on each other, is in `model.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wsol.cli.published import EvaluationDefect
from wsol.tracking import refuse_secrets

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class Section(BaseModel):
    """A part of the configuration that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Prepare(Section):
    """Which samples, their labels and their roles."""

    name: Name = Field(description="name of the dataset; it stands in every path below results/")
    source: str = Field(description="where samples come from: `wsol list sources`")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the source, e.g. root, sheet, slides, seed")


class Quality(Section):
    """When a tile is flagged: out of focus, under a marker, in a fold. Flags stand in its table and color its picture."""

    blur: float = Field(
        40.0, ge=0, description="blurred below this variance of the Laplacian; at 1 um per px sharp H&E has 300 and more"
    )
    sharpness_mpp: float | None = Field(
        1.0, gt=0, description="um per px at which blur is measured, for which every tile is read; null: not measured"
    )
    pen: float = Field(0.1, gt=0, le=1, description="flagged from this share of marker or black border in a tile")
    fold: float = Field(0.1, gt=0, le=1, description="flagged from this share of folded tissue in a tile")
    drop: list[Literal["blur", "pen", "fold"]] = Field(
        default_factory=list, description="flags that take a tile out; empty: flagged tiles stay"
    )

    @model_validator(mode="after")
    def _drops_what_it_measures(self) -> Quality:
        if "blur" in self.drop and self.sharpness_mpp is None:
            raise ValueError("drop: blur needs sharpness_mpp, at which it is measured; give it, e.g. 1.0")
        return self


class Tile(Section):
    """How slides are cut; ignored for image datasets."""

    mpp: float = Field(1.0, gt=0, description="um per px at which tiles are read")
    tile_px: int = Field(256, ge=32, description="side of a tile in px at `mpp`; a multiple of 32")
    tile_um: float | None = Field(None, gt=0, description="side of a tile in um; overrides tile_px")
    overlap: float = Field(
        0.0, ge=0, lt=1,
        description="share of a tile that the next covers again: 0, 1/2, 2/3, 3/4 ... (maps are made of every k-th tile)",
    )  # fmt: skip
    edge: Literal["pad", "drop", "shift"] = Field(
        "pad", description="tiles at the right and lower edge: pad (white beyond the slide), drop, or shift (moved inside)"
    )
    align: bool = Field(
        True, description="let a tile's side change by up to 1 % to fit the grid in which the slide is stored: faster to read"
    )
    min_tissue: float = Field(0.2, ge=0, le=1, description="least fraction of tissue in a tile that is kept")
    tissue_mpp: float = Field(8.0, gt=0, description="um per px of the tissue mask; finer costs more and gains nothing")
    labels: Literal["none", "annotation"] = Field(
        "none",
        description="none: tiles are known by their slide's label only; annotation: tiles of positive slides are labeled by "
        "their annotated area (the slide's `mask` is opened), for models with `tiles: labeled`",
    )
    foreground: float = Field(0.2, gt=0, le=1, description="least share of annotated area of a positive tile (CAMELYON16: 0.2)")
    qc: Quality = Quality()
    features: str | None = Field(
        None, description="folder with features of other encoders (SLIDE.h5 of TRIDENT, CLAM, `wsol embed`), whose tiles are "
        "taken as they are, for models with `backbone: stored:WIDTH`",
    )  # fmt: skip
    strict: bool = Field(
        False, description="a slide that cannot be read or has no tissue stops the study, instead of being left out and reported"
    )

    @field_validator("overlap")
    @classmethod
    def _meets_the_lattice(cls, overlap: float) -> float:
        times = 1 / (1 - overlap)
        if abs(times - round(times)) > 0.01:
            raise ValueError(
                f"{overlap} leaves no tiles side by side, of which maps are made; take 0, 0.5, 0.667, 0.75 or another 1 - 1/k"
            )
        return 1 - 1 / round(times)

    @property
    def side_px(self) -> int:
        """Side of a tile in px at `mpp`, rounded to a multiple of 32."""
        side = self.tile_px if self.tile_um is None else self.tile_um / self.mpp
        return max(32, round(side / 32) * 32)


class Train(Section):
    """How a localizer is fitted. Any key may be overridden per model under `models.NAME.train`."""

    epochs: int = Field(12, ge=1, description="passes over the training samples")
    repeats: int = Field(1, ge=1, description="times each sample is drawn per epoch (fresh crops, fresh tiles)")
    batch_size: int = Field(8, ge=1, description="images per batch; for slides: slides (bags) per batch")
    accumulate: int = Field(
        1, ge=1, description="batches per step of the optimizer: n batches of b train like one of n * b, in the memory of one"
    )
    processes: int = Field(
        1, ge=1, description="processes that share each batch, one per GPU or core: the workflow starts them by torchrun"
    )
    tiles_per_bag: int = Field(8, ge=1, description="tiles drawn from each slide per batch")
    resize: int | None = Field(
        None, ge=32, description="side in px of the square images are resized to before the crop (survey: 256); slides ignore it"
    )
    crop: int = Field(416, ge=32, description="side in px of the random crop of an image (slides: the whole tile is used)")
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
    validate_at: int | None = Field(
        None, ge=32, description="side in px of the square validation images are resized to (survey: 224); null: as they are"
    )
    bf16: bool | Literal["auto"] = Field(
        "auto", description="bfloat16 autocast; auto: where the processor computes it in hardware (half the time of float32)"
    )
    cache_mb: int = Field(1024, ge=0, description="MB of decoded images or tiles that are kept for the next epoch")
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
    resize: int | None = Field(
        None, ge=32, multiple_of=32,
        description="side in px of the square images are resized to before they are drawn (survey: 224); slides ignore it",
    )  # fmt: skip
    slides: Literal["whole", "tiles"] = Field(
        "whole", description="whole: as one image, block by block, where net and method allow it; tiles: tile by tile"
    )
    memory_mb: int = Field(2048, ge=64, description="memory that drawing a slide whole may take, beside some 650 MB of libraries")
    halo_px: int = Field(32, ge=0, description="context read around tiles drawn one by one, a multiple of the stride")
    device: str = Field("auto", description="auto, cpu, or cuda[:n]")


class Heatmap(Section):
    """Which pictures and vector files are written."""

    methods: list[str] = Field(default_factory=list, description="map ids to export; empty: the first of each map set")
    samples: int = Field(12, ge=0, description="image datasets: overlays per model and map set, from best to worst")
    mpp: float = Field(4.0, gt=0, description="um per px of overlays of slides")


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
    splits: list[Literal["valcl", "test"]] = Field(default=["test"], description="splits to score; develop on valcl")
    scale: Scale = Field(
        "fitted",
        description="map to [0, 1]: one range fitted on validation maps; none (maps that already are); sigmoid; sigmoid with a "
        "temperature fitted on validation labels; range of each slide; min-max of each image (protocol: survey only)",
    )
    size: int | None = Field(
        None, ge=32,
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
    boxes_px: int = Field(512, ge=0, description="longest side at which MaxBoxAcc is computed; 0: no boxes")
    bootstrap: int = Field(1000, ge=1, description="replicates of the bootstrap over patients")
    floors: bool = Field(True, description="score the maps that need no training beside every table")
    floors_mpp: float = Field(2.0, gt=0, description="um per px at which floor maps of slides are drawn")
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

    samples: int = Field(0, ge=0, description="images (slides: tiles) per model and map set; 0: no probe")
    size: int = Field(224, ge=64, description="side in px at which they are probed")
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
    pictures: int = Field(
        48, ge=0, description="samples of each split shown with their maps: best, median and worst, then others evenly between"
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
    def _holds_no_secret(cls, uri: str) -> str:
        refuse_secrets(uri)
        return uri
