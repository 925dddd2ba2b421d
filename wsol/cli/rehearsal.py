"""A study rehearsed: samples listed, every model built, a step taken, a map drawn, all untrained, to see what would fail.

Only `wsol config` does it: planning a study must stay cheap and load no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsol._names import resolve
from wsol._options import check_options
from wsol.cli.config import Config
from wsol.cli.embeddings import require_stored
from wsol.cli.model import Model
from wsol.cli.negatives import require_negatives
from wsol.cli.parts import net_of, require_several, strategy_of, with_defects
from wsol.cli.plan import require_folds, source_options
from wsol.cli.schema import Train
from wsol.cli.teacher import inherit
from wsol.cli.vectors import stored_width
from wsol.training import UNTUNED

if TYPE_CHECKING:
    from wsol.data import Batch, Dataset
    from wsol.models import Localizer
    from wsol.training import Strategy

LARGEST = 512
"""Side in px of the images of a rehearsal, at most; below it they are as large as in training."""


def rehearse(study: Config) -> list[str]:
    """What would fail when a study runs, one line per finding that starts with the key to change; nothing is written or fetched.

    Samples are listed and their files looked for, not opened. Nets have random weights (those of a file are tried on), batches
    are noise, and of map methods those that read a single pass are drawn; of the dearer ones only the options are looked at.
    """
    seen = _Rehearsal(study)
    seen.sample()
    seen.read_maps()
    for name in sorted(study.models, key=lambda one: len(study.lineage(one))):  # parents first
        seen.model(name)
    return seen.findings


@dataclass
class _Rehearsal:
    """What came of it so far: findings, the labels there are, nets by model, and backbones that were built.

    Attributes:
        classes: number of classes.
        several: a sample may have several of them.
    """

    study: Config
    findings: list[str] = field(default_factory=list)
    classes: int = 2
    several: bool = False
    nets: dict[str, Localizer] = field(default_factory=dict)
    backbones: dict[tuple[str, int], bool] = field(default_factory=dict)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Whatever fails in here is a finding at `place`, a key of the study."""
        try:
            yield
        except Exception as error:  # whatever it is, the run would end by it
            self.findings.append(f"{place}: {str(error).removeprefix(f'{place}: ')}")

    def sample(self) -> None:
        """List the samples: options, files, folds, labels."""
        from wsol.data import SOURCES

        source = self.study.prepare.source
        with self.at("prepare.options"):
            module, given = resolve("source", source, SOURCES, "wsol.data"), source_options(self.study)
            listing = getattr(module, "listing", None)
            check_options(f"source {source!r}", listing or module.dataset, given)
            self.several = bool(given.get("multilabel"))
            made = listing(**given) if listing else module.dataset(**given)
            rows = made if listing else made.samples.to_dict("records")
            self.classes = max(2, len(given.get("classes", ())), *(int(row["label"]) + 1 for row in rows))
            with self.at("folds"):
                require_folds(self.study, {(int(row["fold"]), str(row["role"])) for row in rows})
            with self.at("evaluate.threshold"):
                require_negatives(self.study, rows, _positive(given, None if listing else made))

    def read_maps(self) -> None:
        """Options of every map method."""
        from wsol.cams import drawer

        for name in self.study.maps:
            for made in self.study.methods(name):
                with self.at(f"maps.{name}.{made['id']}"):
                    drawer(made["method"], made["options"])

    def model(self, name: str) -> None:
        """One model: its net, its strategy, a step, and its maps."""
        model = with_defects(self.study.models[name], self.study.defects(name))
        net = self._net(name, model)
        teachers = [self.nets[one] for one in model.parents if one in self.nets]
        if net is None or len(teachers) < len(model.parents):  # what is wrong with a parent has been said
            return
        self.nets[name] = net
        with self.at(f"models.{name}.from"):
            if teachers and model.strategy not in UNTUNED:
                inherit(net, teachers[0], model.parents[0])
        strategy = self._strategy(name, model, teachers)
        if strategy is not None:
            self._step(name, net, strategy)
        self._maps(name, net)

    def _net(self, name: str, model: Model) -> Localizer | None:
        """The net of a model; None where it cannot be built, or says nothing of an image."""
        import torch

        plain = model.model_copy(update={"head": "gap", "head_options": {}, "weights": None})
        kind = (model.backbone, model.output_stride)
        if kind not in self.backbones:
            self.backbones[kind] = False
            with self.at(f"models.{name}.backbone"):
                self.backbones[kind] = bool(net_of(plain, self.classes, 0))
        if not self.backbones[kind]:
            return None
        if model.weights not in (None, "imagenet"):
            with self.at(f"models.{name}.weights"):
                net_of(plain.model_copy(update={"weights": model.weights}), self.classes, 0)
        net = None
        with self.at(f"models.{name}.head_options"):
            net = net_of(model.model_copy(update={"weights": None}), self.classes, 0)
        with self.at(f"models.{name}.head"), torch.no_grad():
            if net is not None:
                net.eval()(self._batch(name, "labels").images[:1])
                return net
        return None

    def _strategy(self, name: str, model: Model, teachers: list[Localizer]) -> Strategy | None:
        """The strategy of a model; None where it cannot be built."""
        how = self._how(name)
        strategy = None
        with self.at(f"models.{name}.strategy_options"):
            strategy = strategy_of(model, how, teachers, None)
        if strategy is not None and how.balance == "loss":
            with self.at(f"models.{name}.train.balance"):
                strategy = strategy_of(model, how, teachers, [1.0] * self.classes)
        return strategy

    def _step(self, name: str, net: Localizer, strategy: Strategy) -> None:
        """A loss of two images or bags in the last epoch; of a head on stored features only whether it can learn from them."""
        import torch

        from wsol.training import criterion

        how = self._how(name)
        if self.several:
            refusals = len(self.findings)
            with self.at(f"models.{name}"):
                require_several(net, strategy, self.study.models[name], self.study.localize.map_class)
            if len(self.findings) > refusals:
                return
        if how.embeddings != "none" or stored_width(self.study.models[name].backbone):
            with self.at(f"models.{name}"):
                require_stored(
                    net, self.study.models[name], how, {c: criterion(c) for c in self.study.checkpoints}, how.processes
                )
            return
        with self.at(f"models.{name}.strategy"), torch.no_grad():
            strategy.epochs = how.epochs
            strategy.attach(net)
            strategy(net.train(), self._batch(name, strategy.supervision), torch.Generator().manual_seed(0), how.epochs)
        net.between.clear()  # what a strategy put there is of training only

    def _maps(self, name: str, net: Localizer) -> None:
        """The maps that are drawn with a model."""
        from wsol.cams import cams, drawer

        net.eval().requires_grad_(True)
        image = self._batch(name, "labels").images[:1]
        for chosen in self.study.sets(name):
            for made in self.study.methods(chosen):
                try:
                    method = drawer(made["method"], made["options"])
                except (TypeError, ValueError):
                    continue  # said once, for all models
                with self.at(f"maps.{chosen}.{made['id']}, with models.{name}"):
                    for layer in method.layers:
                        net.stage_number(layer)
                    if not (method.needs_images or method.needs_tail):
                        cams([made["method"]], net, image, options={made["method"]: made["options"]})

    def _how(self, name: str) -> Train:
        return Train.model_validate(self.study.training(name))

    def _batch(self, name: str, supervision: str) -> Batch:
        """Noise, as large as training has it: two images, for slides two bags of two tiles."""
        import torch

        from wsol.data import KINDS, Batch, EncodedBatch, MaskedBatch

        slides = KINDS[self.study.prepare.source] == "slides"
        side = min(self.study.tile.side_px if slides else self._how(name).crop, LARGEST)
        width = stored_width(self.study.models[name].backbone)
        each = (width, 1, 1) if width else (3, side, side)
        images = torch.rand(4 if slides else 2, *each, generator=torch.Generator().manual_seed(0))
        labels = torch.eye(2, self.classes) if self.several else torch.tensor([0, 1])
        given: dict[str, Any] = {"labels": labels, "samples": ["a", "b"]}
        if slides:
            given["groups"] = torch.tensor([0, 0, 1, 1])
        if supervision == "masks":
            return MaskedBatch(images, masks=images[:, 0] > 0.5, **given)
        return EncodedBatch(images, **given) if width else Batch(images, **given)


def _positive(given: Mapping[str, Any], made: Dataset | None) -> set[int] | None:
    """The labels of positive classes, as a dataset or the options of its source say; None where any sample may hold something.

    Sources that only list without `classes` among their options (phantom, camelyon16) have the classes normal and tumor.
    """
    if (made.mask_means if made else given.get("mask_means", "class")) != "class":
        return None
    classes = list(made.classes if made else given.get("classes", ()))
    named = made.positive if made else given.get("positive")
    return {classes.index(name) for name in ([named] if isinstance(named, str) else named)} if named else {1}
