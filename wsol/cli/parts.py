"""The parts of a training as a study names them: net and strategy, with the defects that a model is to have as published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from wsol.cli.model import Model
from wsol.cli.published import options, require_place
from wsol.cli.schema import Train
from wsol.cli.teacher import seed_maps

if TYPE_CHECKING:
    from wsol.models import Localizer
    from wsol.training import Strategy


def net_of(model: Model, classes: int, seed: int) -> Localizer:
    """The localizer of a model at its start; `seed` decides its random weights."""
    import torch

    from wsol.models import build_localizer

    return build_localizer(
        model.backbone,
        model.head,
        classes,
        weights=model.weights,
        output_stride=model.output_stride,
        freeze_bn=model.freeze_bn,
        head_options=model.head_options,
        generator=torch.Generator().manual_seed(seed),
    )


def strategy_of(model: Model, how: Train, teachers: Sequence[Localizer], class_weights: list[float] | None) -> Strategy:
    """The strategy of one model; the maps of its parents are its seeds, where it asks for some.

    Raises:
        OptionError: an option that the strategy does not have, or a value of another kind.
        ValueError: a value out of range, class weights for a strategy that takes none, or no trained model where it needs one.
    """
    from wsol.training import build_strategy, choose_device, strategy_options

    known = strategy_options(model.strategy)
    learns_labels = {"label_smoothing": how.label_smoothing} if "label_smoothing" in known else {}
    given = {**learns_labels, **model.strategy_options}
    if "seeds" in model.strategy_options:
        raise ValueError("strategy_options has no 'seeds': the key `seeds` of the model names the map method that draws them")
    if class_weights is not None:
        if "class_weights" not in known or "class_weights" in given:
            raise ValueError(
                f"balance: loss sets the class_weights of strategy {model.strategy!r}, which has none or was given some; take "
                "balance: sampler, or none"
            )
        given["class_weights"] = class_weights
    if "seeds" in known:
        given["seeds"] = seed_maps(teachers, model.seeds, choose_device(how.device))
    strategy: Strategy = build_strategy(model.strategy, **given)
    if strategy.needs_parent and not teachers:
        raise ValueError(
            f"strategy {model.strategy!r} explains a classifier and leaves it as it is: name a trained model in `from` (--parent)"
        )
    return strategy


def with_defects(model: Model, inherited: Collection[str] = ()) -> Model:
    """The model with the options that bring the defects which it is to have as published.

    Raises:
        ValueError: a defect that it cannot have and that is not among those `inherited` from its parent.
    """
    require_place(model.as_published, model.head, model.strategy, inherited)
    brought = options(model.as_published, model.head, model.strategy)
    return model.model_copy(update={key: {**getattr(model, key), **more} for key, more in brought.items()})


def require_several(net: Localizer, strategy: Strategy, model: Model, map_class: str) -> None:
    """Raises ValueError where a training cannot learn from several labels per sample."""
    refusals = {
        f"strategy {model.strategy!r} reads the one label of each; take classify, inherit or has": not strategy.multilabel,
        f"head {model.head!r} reads the one label of each; take another, such as gap or attention-mil": not net.head.multilabel,
        "class weights (balance: loss) are those of one label; take balance: sampler": strategy.class_weights is not None,
        f"localize.map_class: {map_class} would name one class of a sample; set positive": map_class != "positive",
    }
    for why, holds in refusals.items():
        if holds:
            raise ValueError(f"samples have several labels (multilabel), and {why}")
