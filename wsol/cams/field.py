"""Maps of a field that is too large to be looked at at once: what they need of it, and the drawing of its parts.

The backbone runs block by block (`wsol.models.reach`), so the features of the last stage are those of the whole field. A method
then needs one of three things, and which one is tried on random features, not declared:

| route | its value in a cell is a function of | hence drawn |
|---|---|---|
| "cells" | the features of the cell, and a slope that is known beforehand (an affine head) | block by block |
| "slide" | the features of all cells, in any order | from all of them at once: weights of the slide |
| "tile" | more than that: neighbors, finer stages, the image, many runs of the head | tile by tile |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from wsol.cams.base import Cam, Evidence
from wsol.cams.drawing import cam, drawer
from wsol.models import Features, Localizer, Prediction

_CELLS = (20, 24)
"""Cells of the random features on which a method is tried: so many that a method which groups them would."""

_CLOSE = 1e-4
"""Largest difference, as a share of the largest value: sums of another order."""


class Route(NamedTuple):
    """How the map of a whole field is made, and for "tile" why not otherwise."""

    kind: Literal["cells", "slide", "tile"]
    reason: str = ""


def route(method: str, net: Localizer, options: Mapping[str, Any] | None = None) -> Route:
    """What the map of a method at this net needs of the whole field.

    Raises:
        ValueError, TypeError: the method cannot draw this net at all, or has no such options.
    """
    options = dict(options or {})
    one = drawer(method, options)
    last = len(net.backbone.channels) - 1
    if one.needs_images or one.resolution == "image":
        return Route("tile", "the method reads the image")
    if [net.stage_number(layer) for layer in one.layers] != [last]:
        return Route("tile", "the method reads finer stages")
    if one.needs_tail and not (_affine(net) and getattr(one, "closed_form", False)):
        return Route("tile", "the method runs the head on many changed features")
    f = _random_features(net)
    whole = cam(method, net, None, _target(f, 0), features=f, **options)[0]
    if tuple(whole.shape) != _CELLS or not bool(whole.any()):
        return Route("tile", "its cells are not those of the last stage")
    if _from_part(one, net, f.last, whole):
        return Route("cells")
    if _in_any_order(method, net, f.last, whole, options):
        return Route("slide")
    return Route("tile", "the head or the method reads neighbors or finer stages")


def draw_cells(
    net: Localizer, methods: Mapping[str, tuple[str, Mapping[str, Any]]], cells: Tensor, target: int, count: int
) -> dict[str, Tensor]:
    """Maps of a part of a field, by methods of the route "cells": what they are in the map of the whole.

    Args:
        net: in evaluation mode.
        methods: id -> (key of `METHODS`, options).
        cells: features of the last stage, (1, c, h, w), as the whole field has them.
        target: the class.
        count: cells of the whole field: at an affine head, the slope is shared by so many.

    Returns:
        id -> float32 (h, w).
    """
    with torch.no_grad(), torch.autocast(cells.device.type, enabled=False):
        evidence = _evidence(net, cells, target, count)
        return {name: drawer(method, options)(net, evidence)[0] for name, (method, options) in methods.items()}


def _evidence(net: Localizer, cells: Tensor, target: int, count: int) -> Evidence:
    f = Features((cells,))
    said: Prediction = net.head(f)
    slopes = {}
    if _affine(net):
        head: Any = net.head
        slopes[-1] = (head.weight.detach()[target] / count)[None, :, None, None].to(cells).expand_as(cells)
    return Evidence(net, f, said, _target(f, target), slopes)


def _from_part(one: Cam, net: Localizer, last: Tensor, whole: Tensor) -> bool:
    """Whether a part of the features gives that part of the map."""
    if one.needs_tail or (one.needs_gradient and not _affine(net)):
        return False
    part = (slice(3, 8), slice(5, 17))
    try:
        with torch.no_grad():
            drawn = one(net, _evidence(net, last[(..., *part)], 0, whole.numel()))[0]
    except _UNREADABLE:
        return False
    return _same(drawn, whole[part], whole)


def _in_any_order(method: str, net: Localizer, last: Tensor, whole: Tensor, options: Mapping[str, Any]) -> bool:
    """Whether the cells in another order, in one column, give the values of the map in that order."""
    order = torch.randperm(whole.numel(), generator=torch.Generator().manual_seed(1)).to(last.device)
    f = Features((last.flatten(2)[:, :, order][..., None],))
    try:
        drawn = cam(method, net, None, _target(f, 0), features=f, **options)[0]
    except _UNREADABLE:
        return False
    return _same(drawn[:, 0] if drawn.shape[1:] == (1,) else drawn, whole.flatten()[order], whole)


_UNREADABLE = (ValueError, RuntimeError, KeyError, IndexError)
"""What heads raise at features without finer stages or attention, or of one column."""


def _same(a: Tensor, b: Tensor, scale: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= _CLOSE * float(scale.abs().max())


def _affine(net: Localizer) -> bool:
    return bool(getattr(net.head, "affine", False))


def _target(f: Features, target: int) -> Tensor:
    return torch.full((1,), target, dtype=torch.int64, device=f.last.device)


def _random_features(net: Localizer) -> Features:
    """Features of all stages, as of an image of `_CELLS` cells."""
    first = next(net.parameters())
    generator = torch.Generator().manual_seed(0)
    stages = []
    for channels, stride in zip(net.backbone.channels, net.backbone.strides, strict=True):
        finer = max(1, round(net.output_stride / stride))
        size = (_CELLS[0] * finer, _CELLS[1] * finer)
        stages.append(torch.rand(1, channels, *size, generator=generator).to(first.device, first.dtype))
    return Features(tuple(stages))
