"""The section of a model: what it is built of, how it is trained, and which of these parts belong together. Torch-free."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from wsol._names import closest
from wsol.cams import METHODS
from wsol.cli.published import ModelDefect, parents
from wsol.cli.schema import Name, Section
from wsol.models import BACKBONES, DECODERS, HEADS, backbone_entry
from wsol.training import DECODED, STRATEGIES

_KNOWN = {
    "backbone": ("backbone", BACKBONES), "head": ("head", HEADS), "strategy": ("strategy", STRATEGIES),
    "seeds": ("CAM method", METHODS),
}  # fmt: skip
"""Key of a model -> what it names, and the table of the names."""


class Model(Section):
    """A localizer to train: what it is built of and, with `from`, which other model it starts at."""

    backbone: str = Field("efficientnet_lite0", description="`wsol list backbones`")
    head: str = Field("gap", description="`wsol list heads`")
    head_options: dict[str, Any] = Field(default_factory=dict, description="options of the head, e.g. {r: 5} for lse")
    output_stride: Literal[8, 16, 32] = Field(16, description="px per map cell; 16 removes the last stride, 8 the last two")
    weights: str | None = Field("imagenet", description="imagenet, a path to a state dict, or null for random weights")
    freeze_bn: bool = Field(True, description="keep batch-norm statistics: live ones do not follow in short fine-tuning")
    strategy: str = Field("classify", validate_default=True, description="`wsol list strategies`")
    strategy_options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy")
    parent: str | list[Name] | None = Field(
        None, alias="from",
        description="name of the model whose checkpoint this one starts from; of several, as a list, the first, and strategies "
        "that learn from maps see the mean of all",
    )  # fmt: skip
    seeds: str = Field("cam", description="map method of the `from` models that strategies with pixel seeds learn from")
    shuffle_labels: bool = Field(
        False, description="train on labels dealt out at random: a control that must not localize, badged as such"
    )
    train_on: Literal["train", "valpx"] = Field(
        "train", description="role whose samples are trained on; valpx: the few with validation masks, for supervision by masks"
    )
    tiles: Literal["bags", "labeled", "camelyon16-survey", "camelyon16-survey-released"] = Field(
        "bags",
        description="what is trained on of slides: bags of tiles with the slide's label; labeled: single tiles, all that have a "
        "label (`tile.labels: annotation`); camelyon16-survey: of these, drawn as the survey documents; -released: as its code",
    )
    train: dict[str, Any] = Field(default_factory=dict, description="keys of `train` that differ for this model")
    as_published: list[ModelDefect] = Field(
        default_factory=list,
        description="known defects of the published code that this model has on purpose: weight-row (head cam), wildcat-min "
        "(head wildcat), background-seeds (strategies negev, pixelcam); badged as such",
    )
    maps: list[Name] = Field(
        default_factory=list, description="map sets drawn with this model; empty: all (some methods need a head of their own)"
    )

    @property
    def parents(self) -> list[str]:
        """The models that `from` names."""
        return parents(self.parent)

    @field_validator("backbone", "head", "strategy", "seeds")
    @classmethod
    def _is_known(cls, name: str, info: ValidationInfo) -> str:
        kind, known = _KNOWN[str(info.field_name)]
        if (backbone_entry(name) if known is BACKBONES else name) not in known:
            raise ValueError(closest(kind, name, known))
        return name

    @field_validator("strategy")
    @classmethod
    def _trains_what_the_head_draws(cls, strategy: str, info: ValidationInfo) -> str:
        """A decoder that nothing trains draws noise, which would be scored in good faith."""
        if (head := info.data.get("head")) is None:  # refused already
            return strategy
        drawn, trained = DECODERS.get(head), DECODED.get(strategy)
        if drawn != trained and drawn is not None:
            able = [name for name, what in DECODED.items() if what == drawn]
            raise ValueError(
                f"head {head!r} draws {drawn}, which strategy {strategy!r} does not train, so they would be noise; take strategy "
                f"{' or '.join(able)}, or a head without a decoder"
            )
        if drawn != trained:
            able = [name for name, what in DECODERS.items() if what == trained]
            raise ValueError(f"{strategy!r} trains {trained}, which head {head!r} does not draw; take head {' or '.join(able)}")
        return strategy
