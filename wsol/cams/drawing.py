"""`cam` and `cams`: one encode, one head, at most one backward; then every method reads the same evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, overload

import torch
from torch import Tensor

from wsol._names import closest, resolve
from wsol._options import check_options
from wsol.cams import METHODS
from wsol.cams.base import Cam, Evidence
from wsol.cams.evidence import budget_of
from wsol.cams.sight import look
from wsol.models import Features, Localizer, Prediction


class Maps(dict[str, Tensor]):
    """Maps by method (or by id), and what came with them.

    Attributes:
        logits: float32 (b, k).
        targets: int64 (b,), the class each map was drawn for.
        prediction: all that the head said, detached.
    """

    logits: Tensor
    targets: Tensor
    prediction: Prediction


def cam(
    method: str,
    net: Localizer,
    images: Tensor | None,
    targets: Tensor | None = None,
    *,
    layers: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    features: Features | None = None,
    budget: int | None = None,
    **options: Any,
) -> Tensor:
    """Raw maps of one method; see `cams`.

    Example:
        >>> m = cam("layer-cam", net, images, targets, layers=[-2, -1])
        >>> score = finish(m, images.shape[-2:], relu=True)
    """
    if layers is not None:
        options["layers"] = layers
    return cams([method], net, images, targets, options={method: options}, generator=generator, features=features, budget=budget)[
        method
    ]


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
    budget: int | None = None,
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
    budget: int | None = None,
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
    budget: int | None = None,
    return_logits: bool = False,
) -> Maps | tuple[Maps, Tensor]:
    """Raw maps of several methods with ONE encode, one call of the head and at most ONE backward for all they share.

    Methods that ask what the net says of changed features or images run it again, without a graph (see `wsol.cams.base`).

    Everything above the features runs in float32, whatever autocast says; the encode obeys the caller's autocast unless a
    gradient below the last stage is asked for. No `.grad`, no train/eval flag, no hook is touched.

    Args:
        methods: keys of `METHODS`, or id -> key to draw one method in several ways.
        net: in evaluation mode.
        images: float (b, 3, H, W) RGB in [0, 1]; not encoded when `features` are given, and needed then only by the methods that
            say `needs_images`.
        targets: int64 (b,), the class of each map; None draws the predicted class.
        options: keyword arguments by method (or id).
        generator: randomness of stochastic methods; one seed is drawn from it per call. Without it they draw the same each time.
        features: `net.encode(images)`, if the caller has it already.
        budget: bytes that a chunk of changed features or images may take, where a method asks for their logits; without it
            32 MB on a CPU and 512 MB elsewhere.
        return_logits: return (maps, logits); the logits are `maps.logits` in any case.

    Returns:
        A dict in the order of `methods`: float32 (b, h, w), at the resolution of the stage the method reads; (b, H, W) for the
        methods of resolution "image".

    Raises:
        RuntimeError: the net is in training mode.
        ValueError: an unknown method, targets of the wrong shape or range, a stage that the given features lack, a head the
            method cannot read, NaN in a logit or a map.
        TypeError: an option that the method does not have (the message names those it has), targets that are no integers.
    """
    drawers = _drawers(methods, options or {})
    check_net(net, budget)
    _check_given(net, images, features, drawers)
    stages = sorted({net.stage_number(i) for drawer in drawers.values() if drawer.needs_gradient for i in drawer.layers})
    seen, said, chosen, slopes = look(net, images, features, targets, stages)
    evidence = Evidence(net, seen, said, chosen, slopes, images, budget=budget or budget_of(said.logits.device))
    seed = _seed(generator)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(said.logits.device.type, enabled=False):
        maps = Maps()
        for name, drawer in drawers.items():
            evidence.generator.manual_seed(seed)
            maps[name] = drawer(net, evidence)
    maps.logits, maps.targets, maps.prediction = evidence.logits, evidence.targets, evidence.prediction
    return (maps, maps.logits) if return_logits else maps


def drawer(method: str, options: Mapping[str, Any]) -> Cam:
    """One configured method.

    Raises:
        ValueError: an unknown method, an option out of its range.
        TypeError: an option that the method does not have, or a value of another kind.
    """
    kind: type[Cam] = resolve("CAM method", method, METHODS, "wsol.cams")
    check_options(f"CAM method {method!r}", kind, options)
    return kind(**options)


def check_net(net: Localizer, budget: int | None) -> None:
    """Raise unless maps can be drawn of the net, in chunks of so many bytes."""
    if not isinstance(net, Localizer):
        raise TypeError(f"net must be a Localizer; got {type(net).__name__}: wrap your module by wsol.models.from_module")
    if any(module.training for module in net.modules()):
        raise RuntimeError(
            "maps need evaluation mode (dropout and live batch norm would draw another net): call net.eval() first"
        )
    if budget is not None and not isinstance(budget, Integral):
        raise TypeError(f"budget must be an integer, bytes of one chunk; got {budget!r}")
    if budget is not None and budget < 1:
        raise ValueError(f"budget must be positive, bytes of one chunk; got {budget}")


def check_images(net: Localizer, images: Tensor | None) -> None:
    """Raise unless images are a tensor that the net can read."""
    if images is None:
        return
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor (b, 3, H, W) in [0, 1]; got {type(images).__name__}; use torch.from_numpy")
    wanted = next((p.dtype for p in net.parameters() if p.is_floating_point()), images.dtype)
    if wanted in (torch.float16, torch.bfloat16):
        raise TypeError(f"maps are drawn in float32 at least, and the net is {wanted}: call net.float() (of a copy)")
    differs = images.is_floating_point() and images.dtype != wanted
    if differs and not torch.is_autocast_enabled(images.device.type):
        raise TypeError(f"images are {images.dtype}, the net is {wanted}: call images.to({wanted})")


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
    return {name: drawer(method, options.get(name, {})) for name, method in named.items()}


def _check_given(net: Localizer, images: Tensor | None, features: Features | None, drawers: Mapping[str, Cam]) -> None:
    """Raise unless images and features hold all that the methods read."""
    if images is None and features is None:
        raise ValueError("give images, or the features of net.encode(images)")
    check_images(net, images)
    if images is not None and features is not None:
        _check_pair(net, images, features)
    for name, drawer in drawers.items():
        if drawer.needs_images and images is None:
            raise ValueError(f"{name!r} changes the images: give images besides the features")
        numbers = [net.stage_number(layer) for layer in drawer.layers]
        if len(set(numbers)) != len(numbers):
            raise ValueError(f"layers of {name!r} must name stages, none twice; {list(drawer.layers)} are stages {numbers}")
        for number in numbers:
            if features is not None and len(net.backbone.channels) - number > len(features.stages):
                raise ValueError(
                    f"stage {number} is not among the last {len(features.stages)} stages, which the given features hold"
                )


def _check_pair(net: Localizer, images: Tensor, features: Features) -> None:
    """Raise unless the features may be those of the images: as many, and cells of the strides."""
    stride, last = net.backbone.strides[-1], features.last
    cells = tuple(last.shape[2:])
    near = all(abs(side / stride - n) <= 1 + 0.1 * n for side, n in zip(images.shape[2:], cells, strict=True))
    if len(images) != len(last) or not near:
        raise ValueError(
            f"features of shape {tuple(last.shape)} do not belong to images of shape {tuple(images.shape)} at stride {stride}: "
            "give net.encode(images) of the same images"
        )


def _seed(generator: torch.Generator | None) -> int:
    """A seed from the generator; always the same without one."""
    return 0 if generator is None else int(torch.randint(2**62, (), generator=generator, device=generator.device))
