"""`build_localizer`: from names and options to a net. The same arguments are the recipe a checkpoint stores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wsol._names import resolve
from wsol._options import check_options
from wsol.models import BACKBONES, HEADS, backbone_entry
from wsol.models.heads.base import Head
from wsol.models.localizer import Localizer
from wsol.models.weights import load_weights


def build_localizer(
    backbone: str,
    head: str,
    num_classes: int,
    *,
    weights: str | Path | None = "imagenet",
    output_stride: int = 32,
    freeze_bn: bool = True,
    head_options: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Localizer:
    """A localizer in training mode, as every new `nn.Module`: call `.eval()` before drawing maps.

    Args:
        backbone: a key of `BACKBONES`, or `timm:` and the name of a model of timm.
        head: a key of `HEADS`.
        num_classes: k.
        weights: "imagenet", a file with the backbone's state dict, or None for random weights (then say `freeze_bn=False` before
            training: the statistics of an untrained batch norm say nothing).
        output_stride: 32, 16 or 8 pixels per cell of the last stage; late strides are removed, nothing is dilated.
        freeze_bn: keep batch-norm statistics in training (see `Backbone`).
        head_options: keyword arguments of the head's class.
        generator: draws the initial weights; torch's global generator without it.

    Raises:
        ValueError: an unknown name (the nearest one is named) or value, or weights that do not fit.
        TypeError: an option that the head does not have, or a value of another kind.
        RuntimeError, FileNotFoundError: there are no such weights; the message says how to get them.
    """
    options = dict(head_options or {})
    entry = backbone_entry(backbone)
    make_backbone = resolve("backbone", entry, BACKBONES, "wsol.models")
    name = {} if entry == backbone else {"name": backbone.partition(":")[2]}
    check_head(head, options)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1; got {num_classes}")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else None))
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator: lend it to them
        torch.manual_seed(seed)
        stages = make_backbone(**name, output_stride=output_stride, freeze_bn=freeze_bn)
        torch.manual_seed(seed + 1)  # the head starts the same on any backbone of its width
        top = build_head(head, stages.channels, num_classes, options)
    if weights == "imagenet":
        stages.load_imagenet()
    elif weights is not None:
        load_weights(stages, weights)
    recipe = {
        "backbone": backbone,
        "head": head,
        "num_classes": num_classes,
        "output_stride": output_stride,
        "freeze_bn": freeze_bn,
        "head_options": options,
    }
    return Localizer(stages, top, recipe).train()


def build_head(head: str, channels: tuple[int, ...], num_classes: int, options: Mapping[str, Any]) -> Head:
    """A head on stages of these channels, with weights from torch's global generator. Raises as `check_head`."""
    kind: Any = check_head(head, options)  # Any: each class has options of its own
    made: Head = kind(channels if kind.reads == "stages" else channels[-1], num_classes, **options)
    return made


def check_head(head: str, options: Mapping[str, Any]) -> type[Head]:
    """The class of `head`.

    Raises:
        ValueError: an unknown name.
        TypeError: an option that is no keyword-only argument of the class, or a value of another kind.
    """
    kind: type[Head] = resolve("head", head, HEADS, "wsol.models")
    check_options(f"head {head!r}", kind, options)
    return kind
