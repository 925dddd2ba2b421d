"""`cam` and `cams`: one encode, one head, at most one backward; then every method reads the same evidence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from wsol._names import closest, resolve
from wsol.cams import METHODS
from wsol.cams.base import Cam, Evidence
from wsol.models import Features, Localizer


class Maps(dict[str, Tensor]):
    """Maps by method (or by id), and what came with them.

    Attributes:
        logits: float32 (b, k).
        targets: int64 (b,), the class each map was drawn for.
    """

    logits: Tensor
    targets: Tensor


def cam(
    method: str,
    net: Localizer,
    images: Tensor | None,
    targets: Tensor | None = None,
    *,
    layers: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    features: Features | None = None,
    **options: Any,
) -> Tensor:
    """Raw maps of one method; see `cams`.

    Example:
        >>> m = cam("layer-cam", net, images, targets, layers=[-2, -1])
        >>> score = finish(m, images.shape[-2:], relu=True)
    """
    if layers is not None:
        options["layers"] = layers
    return cams([method], net, images, targets, options={method: options}, generator=generator, features=features)[method]


@overload
def cams(
    methods: Sequence[str] | Mapping[str, str],
    net: Localizer,
    images: Tensor | None,
    targets: Tensor | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    generator: torch.Generator | None = None,
    features: Features | None = None,
    return_logits: Literal[False] = False,
) -> Maps: ...
@overload
def cams(
    methods: Sequence[str] | Mapping[str, str],
    net: Localizer,
    images: Tensor | None,
    targets: Tensor | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    generator: torch.Generator | None = None,
    features: Features | None = None,
    return_logits: Literal[True],
) -> tuple[Maps, Tensor]: ...
def cams(
    methods: Sequence[str] | Mapping[str, str],
    net: Localizer,
    images: Tensor | None,
    targets: Tensor | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    generator: torch.Generator | None = None,
    features: Features | None = None,
    return_logits: bool = False,
) -> Maps | tuple[Maps, Tensor]:
    """Raw maps of several methods with ONE encode, one call of the head and at most ONE backward.

    Everything above the features runs in float32, whatever autocast says; the encode obeys the caller's autocast unless a
    gradient below the last stage is asked for. No `.grad`, no train/eval flag, no hook is touched.

    Args:
        methods: keys of `METHODS`, or id -> key to draw one method in several ways.
        net: in evaluation mode.
        images: float (b, 3, H, W) RGB in [0, 1]; not read when `features` are given.
        targets: int64 (b,), the class of each map; None draws the predicted class.
        options: keyword arguments by method (or id).
        generator: randomness of stochastic methods; those here now have none.
        features: `net.encode(images)`, if the caller has it already.
        return_logits: return (maps, logits); the logits are `maps.logits` in any case.

    Returns:
        A dict in the order of `methods`: float32 (b, h, w), at the resolution of the stage the method reads.

    Raises:
        RuntimeError: the net is in training mode.
        ValueError: an unknown method, targets of the wrong shape or range, a head the method cannot read, NaN in a map.
        TypeError: an option that the method does not have (the message names those it has), targets that are no integers.
    """
    drawers = _drawers(methods, options or {})
    if any(module.training for module in net.modules()):
        raise RuntimeError(
            "maps need evaluation mode (dropout and live batch norm would draw another net): call net.eval() first"
        )
    if images is None and features is None:
        raise ValueError("give images, or the features of net.encode(images)")
    stages = sorted({net.stage_number(i) for drawer in drawers.values() if drawer.needs_gradient for i in drawer.layers})
    with torch.inference_mode(False), torch.enable_grad():  # works inside the caller's no_grad and inference_mode
        evidence = _evidence(net, images, targets, stages, features, generator)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(evidence.logits.device.type, enabled=False):
        maps = Maps({name: drawer(net, evidence) for name, drawer in drawers.items()})
    maps.logits, maps.targets = evidence.logits, evidence.targets
    return (maps, maps.logits) if return_logits else maps


def _drawers(methods: Sequence[str] | Mapping[str, str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Cam]:
    """A configured method for each id."""
    if isinstance(methods, str):
        raise TypeError(f"methods is a list of names; got the string {methods!r}: use cam({methods!r}, ...) or [{methods!r}]")
    named = dict(methods) if isinstance(methods, Mapping) else dict(zip(methods, methods, strict=True))
    if len(named) != len(methods):
        raise ValueError(f"a method stands twice in {list(methods)}; give ids, {{id: method}}, to draw it in two ways")
    for name in options:
        if name not in named:
            raise ValueError(closest("CAM method (in options)", name, named))
    drawers = {}
    for name, method in named.items():
        kind = resolve("CAM method", method, METHODS, "wsol.cams")
        given = options.get(name, {})
        known = [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY]
        for option in given:
            if option not in known:
                raise TypeError(closest(f"option of CAM method {method!r}:", option, known or ["none"]))
        drawers[name] = kind(**given)
    return drawers


def _evidence(
    net: Localizer,
    images: Tensor | None,
    targets: Tensor | None,
    stages: list[int],
    features: Features | None,
    generator: torch.Generator | None,
) -> Evidence:
    """Encode (or take the given features), run the head, and take the slopes at `stages` (counted from the front, ascending)."""
    depth = len(net.backbone.channels)
    last = depth - 1
    finest = min(stages, default=last)
    if features is None:
        assert images is not None
        features = _encoded(net, images, finest)
    elif finest < last:
        features = _resumed(net, features, finest)
    if finest == last:  # the head is all there is above: its graph starts at a float32 leaf
        leaf = _leaf(features.last).requires_grad_(bool(stages))
        features = Features((*features.stages[:-1], leaf), features.extra)
    with torch.autocast(features.last.device.type, enabled=False):
        logits = net.head(features).logits
        chosen = _checked(targets, logits)
        slopes = {}
        if stages:
            score = logits.gather(
                1, chosen[:, None]
            ).sum()  # images do not mix in evaluation mode: one backward gives each its own
            taken = torch.autograd.grad(score, [features.stages[i - depth] for i in stages])
            slopes = {i - depth: slope for i, slope in zip(stages, taken, strict=True)}
    detached = Features(tuple(stage.detach() for stage in features.stages), features.extra)
    return Evidence(detached, logits.detach().float(), chosen, depth, slopes, generator)


def _encoded(net: Localizer, images: Tensor, finest: int) -> Features:
    """The features, with a float32 graph from stage `finest` upward if that is not the last."""
    if finest == len(net.backbone.channels) - 1:
        with torch.no_grad():
            return net.encode(images)
    with torch.autocast(images.device.type, enabled=False):
        return net.encode(images, leaf=finest)


def _resumed(net: Localizer, features: Features, finest: int) -> Features:
    """The given features with a float32 graph from stage `finest` upward."""
    above = len(net.backbone.channels) - finest - 1
    if above >= len(features.stages):
        raise ValueError(f"stage {finest} is not among the last {len(features.stages)} stages, which the given features hold")
    leaf = _leaf(features.stages[-above - 1]).requires_grad_(True)
    with torch.autocast(leaf.device.type, enabled=False):
        stages = net.encode(leaf, start=finest + 1).stages
    return Features((*features.stages[: -above - 1], leaf, *stages), features.extra)


def _leaf(stage: Tensor) -> Tensor:
    """A detached tensor of at least float32. A clone where it was made under inference mode, which no graph may hold."""
    stage = stage.detach()
    if stage.dtype in (torch.float16, torch.bfloat16):
        return stage.float()
    return stage.clone() if stage.is_inference() else stage


def _checked(targets: Tensor | None, logits: Tensor) -> Tensor:
    """The targets as int64 on the net's device; the predicted classes for None."""
    count, classes = logits.shape
    if targets is None:
        return logits.detach().argmax(1)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise TypeError(f"targets must be int64 class indices; got {targets.dtype}")
    if targets.shape != (count,):
        raise ValueError(f"targets must be ({count},), one class per image; got {tuple(targets.shape)}")
    if count and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise ValueError(f"targets must be classes in 0..{classes - 1}; got {int(targets.min())}..{int(targets.max())}")
    return targets.detach().to(logits.device, torch.int64)
