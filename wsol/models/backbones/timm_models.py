"""Models of the library timm, as `timm:NAME`. It comes with the extra: `pip install -c constraints.txt -e '.[timm]'`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wsol.models.backbones.base import OUTPUT_STRIDES, StandardizedBackbone
from wsol.models.weights import fit

ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)
"""How timm's families are told that images have sizes of their own; a model takes the first that it knows, or none."""

PROBE = 96
"""Side in px of the image on which a model is looked at; inception_v3 needs 75."""

_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


class TimmBackbone(StandardizedBackbone):
    """Any image model of timm, by its name there (also `hf-hub:OWNER/NAME`, and `local-dir:PATH` with a downloaded one).

    A model that is a chain of modules gets the stages that timm names in its `feature_info`, the last one reaching to the end of
    `forward_features` (so `timm:mobilenetv2_100` ends in 1280 channels). Any other, such as a vision transformer, is one stage:
    the grid after the last norm, without class and register tokens, signed.

    `output_stride` is how coarse the last stage may be. A model that is finer stays as it is: patches of 14 px under 16. Of a
    coarser one it is asked for; the families of timm that know how dilate what follows. Weights are in timm's names, which for
    ResNets, VGGs and DenseNets are torchvision's; "imagenet" is what timm has published under this name, whatever it saw.
    """

    paper = "Wightman, PyTorch Image Models, 2019, https://github.com/huggingface/pytorch-image-models; each model has its own"

    def __init__(self, name: str, output_stride: int = 32, freeze_bn: bool = True) -> None:
        """Args:
        name: what `timm.create_model` takes.
        output_stride: most pixels per cell of the last stage.
        freeze_bn: as for `Backbone`.

        Raises:
            RuntimeError: timm is not installed, or there is no such model on its hub.
            ValueError: an unknown name, an output stride that this model cannot have, or a model without a grid of features.
        """
        model, options = create(name, output_stride)
        super().__init__(output_stride, freeze_bn, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
        self.name = name
        self.options = options
        complete = set(model.state_dict())
        announced = [dict(info) for info in model.feature_info]
        with torch.random.fork_rng(devices=[]):  # what a model draws while it is looked at
            groups, channels, strides = stages_of(model.eval(), announced)
        self.groups, self.channels, self.strides = groups, channels, strides
        if groups:
            used = {module.partition(".")[0] for group in groups for module in group}
            for child in [child for child, _ in model.named_children() if child not in used]:
                delattr(model, child)
        elif hasattr(model, "forward_intermediates"):
            model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        else:
            raise ValueError(f"timm:{name} is neither a chain of modules nor gives a grid of features; take another model")
        self.model = model.train()
        self.above = complete - set(model.state_dict())

    def stage(self, number: int, x: Tensor) -> Tensor:
        """The modules up to the next of `feature_info`; or the whole model."""
        if self.groups:
            return through(self.model, self.groups[number], x)
        grid: Tensor = self.model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[-1]
        return grid

    def load_imagenet(self) -> None:
        """Take the weights that timm publishes under this name."""
        try:
            source = import_timm().create_model(self.name, pretrained=True, **self.options)
        except Exception as error:  # a network, a hub and a format, each with errors of its own
            raise RuntimeError(
                f"no published weights for timm:{self.name}: {error}. Fetch them where there is a network and pass weights=<file "
                f"with timm's state dict>, or weights=None to start from random"
            ) from error
        fit(self, self.own_names(source.state_dict()), f"what timm publishes as {self.name}")

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of timm without what lies above the features."""
        return {f"model.{key}": value for key, value in state.items() if key not in self.above}


def import_timm() -> Any:
    """The library.

    It imports torchvision. PyPI's is built for CUDA: beside a CPU build of torch its operators do not load, and its import ends
    where it describes two of them, `nms` and `qnms`, that only detectors call. Once they are declared, the import goes through.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"timm:NAME needs the library timm, and {error.name} is not installed: `pip install wsol[timm]` "
            "(in a checkout `pip install -c constraints.txt -e '.[timm]'`, which leaves torch as it is)"
        ) from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for operator in ("nms", "qnms"):
        _OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("timm")


def create(name: str, output_stride: int) -> tuple[Any, dict[str, Any]]:
    """The model with random weights, and the options that it was made with. Raises as `TimmBackbone`."""
    timm = import_timm()
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        raise ValueError(
            f"timm has no model {name!r}; {'did you mean ' + ', '.join(near) + '?' if near else 'see timm.list_models()'}"
        )
    model, options = _of_any_size(timm, name)
    own = _reduction(model)
    if own <= output_stride:
        return model, options
    options = {**options, "output_stride": output_stride}
    refused = None
    try:
        model = timm.create_model(name, pretrained=False, **options)
    except (TypeError, AssertionError, NotImplementedError, ValueError) as error:  # as each family says no
        refused = error
    if refused or _reduction(model) > output_stride:
        raise ValueError(
            f"timm:{name} has {own} px per cell and timm cannot make it {output_stride}: take another model"
            + f", or say output_stride={own}" * (own in OUTPUT_STRIDES)
        ) from refused
    return model, options


def _of_any_size(timm: Any, name: str) -> tuple[Any, dict[str, Any]]:
    for options in ANY_SIZE:
        try:
            return timm.create_model(name, pretrained=False, **options), options
        except TypeError as error:
            if not any(option in str(error) for option in options):
                raise
        except Exception as error:  # a network, a hub and a folder, each with errors of its own
            if ":" not in name:
                raise
            raise RuntimeError(
                f"timm:{name} could not be opened: {error}. Is the name right, and the hub or folder there?"
            ) from error
    return timm.create_model(name, pretrained=False), {}


def _reduction(model: Any) -> int:
    return int([dict(info) for info in model.feature_info][-1]["reduction"])


def stages_of(
    model: Any, announced: list[dict[str, Any]]
) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...], tuple[int, ...]]:
    """(names of modules, channels, px per cell) of each stage; no names if the model is to be run as a whole."""
    chain = chain_of(model)
    reached = [
        max((i for i, name in enumerate(chain) if f"{name}.".startswith(f"{a['module']}.")), default=-1) for a in announced
    ]
    cuts = {cut: int(a["reduction"]) for cut, a in zip(reached, announced, strict=True) if cut >= 0}
    if not chain:
        return (), (int(announced[-1]["num_chs"]),), (int(announced[-1]["reduction"]),)
    cuts = cuts or {len(chain) - 1: int(announced[-1]["reduction"])}
    ends = sorted(cuts)
    strides = tuple(cuts[end] for end in ends)
    starts = [0, *(end + 1 for end in ends[:-1])]
    groups = tuple(tuple(chain[a:b]) for a, b in zip(starts, [*starts[1:], len(chain)], strict=True))
    x, channels = _probe(), []
    with torch.no_grad():
        for group in groups:
            before = x.clone()
            after = through(model, group, x)
            if not torch.equal(before, x):  # a module that works in place must not change a stage that others read
                return (tuple(chain),), (int(model.num_features),), strides[-1:]
            x = after
            channels.append(x.shape[1])
    return groups, tuple(channels), strides


def chain_of(model: Any) -> list[str]:
    """Names of the modules that, one after the other, give what `forward_features` gives, (b, c, h, w); none if no chain does.

    The longest such chain: blocks of a new residual net may be the identity.
    """
    found: list[str] = []
    names: list[str] = []
    with torch.no_grad():
        try:
            whole = model.forward_features(_probe())
            x = _probe()
            for name, module in _children(model):
                x = module(x)
                names.append(name)
                if x.shape == whole.shape and x.ndim == 4 and torch.equal(x, whole):
                    found = list(names)
        except Exception:  # what is no chain fails as it likes: tokens for a grid, lists for a tensor, a size that is fixed
            pass
    return found if found and whole.shape[1] == model.num_features else []


def _children(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model in their order, those inside plain sequences instead of the sequences."""
    for name, child in model.named_children():
        if type(child) is nn.Sequential:
            yield from ((f"{name}.{inner}", module) for inner, module in child.named_children())
        else:
            yield name, child


def through(model: nn.Module, names: tuple[str, ...], x: Tensor) -> Tensor:
    """`x` through these modules of the model, one after the other."""
    for name in names:
        x = model.get_submodule(name)(x)
    return x


def _probe() -> Tensor:
    return torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
