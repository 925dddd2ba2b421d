"""What `from_module` tries before it trusts a cut: the parts, run apart, must say what the whole says."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.adapter import Parts, StandIn
from wsol.models.arrangement import Reshape

SHARE = 1e-3
"""Logits are the same if they differ by less than this share of what the two images differ by."""

SMALL = (32, 32)
"""The stand-in image tried first: the layers below a cut then cost next to nothing."""

TRIED, NAMED = 30, 4
"""How many layers are tried, and how many named, where one is refused."""


class Findings(NamedTuple):
    """Parts that passed, with what was seen of them."""

    parts: Parts
    channels: tuple[int, ...]
    linear: str | None  # the name of the linear layer on the mean of the last stage, where that is all of the head


class _Trial(NamedTuple):
    """Two images and what the whole module says of them."""

    images: Tensor
    logits: Tensor
    tolerance: float


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a side or of both."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be positive, pixels of a side or (H, W); got {size}")
    return height, width


def inspect_parts(
    module: nn.Module,
    names: tuple[str, ...],
    reshape: Reshape,
    normalize: Callable[[Tensor], Tensor],
    classes: int | None,
    size: tuple[int, int],
) -> Findings:
    """The module cut at `names`, if its parts say what it says. Raises ValueError as `from_module` does."""
    _check_names(module, names)
    with torch.inference_mode(False), torch.no_grad():
        whole = Parts(module, (), reshape, normalize, classes)
        trial = _trial(whole, size)
        census = whole.census(trial.images)
        _check_passes(names, [name for name, _ in census], type(module).__name__)
        parts = Parts(module, names, reshape, normalize, classes)
        parts.density = max(math.prod(shape) for _, shape in census if shape) / (len(trial.images) * size[0] * size[1])
        cells = parts.features(normalize(trial.images), stop=len(names) - 1)
        grids = [part.grid for part in cells]
        for number, grid in enumerate(grids):
            if grid.shape[2] * grid.shape[3] < 2:
                raise ValueError(
                    f"layer {names[number]!r} puts out a single cell for images of {size[0]} x {size[1]} px: no map can be drawn "
                    "of it; take a layer before the pooling, or a larger `size`"
                )
            parts.cells[number] = (size[0] / grid.shape[2], size[1] / grid.shape[3])
            problem = _settle(parts, number, *cells[number], trial)
            if problem:
                others = _alternatives(census, lambda name: Parts(module, (name,), reshape, normalize, classes), trial)
                raise ValueError(f"the module cannot be cut at layer {names[number]!r}: {problem}. {others}")
        linear = _linear_on_mean(parts, *cells[-1])
    return Findings(parts, tuple(grid.shape[1] for grid in grids), linear)


def _check_names(module: nn.Module, names: Sequence[str]) -> None:
    known = [name for name, _ in module.named_modules() if name]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"layer must name at least one layer, and none twice; got {list(names)}")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or [n for n, _ in module.named_children()]
            raise ValueError(f"{type(module).__name__} has no layer {name!r}; the nearest: {', '.join(near) or 'none'}")


def _check_passes(names: Sequence[str], ran: Sequence[str], kind: str) -> None:
    """Each layer runs once, in the order given."""
    for name in names:
        count = ran.count(name)
        if count != 1:
            raise ValueError(
                f"layer {name!r} runs {count} times in a pass of {kind}, so it is no place to cut: name one that runs once"
                + ("" if count else " (parts of traced or compiled code do not show: hand over the module as it was before)")
            )
    order = sorted(names, key=ran.index)
    if list(names) != order:
        raise ValueError(f"name the layers in the order of the pass: {order}; got {list(names)}")


def _trial(whole: Parts, size: tuple[int, int]) -> _Trial:
    """Two images of smooth random color, checked to be told apart, repeatably and one by one."""
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(2, 3, 4, 4, generator=generator)
    grain = torch.rand(2, 3, *size, generator=generator)
    images = 0.8 * functional.interpolate(colors, size, mode="bilinear", align_corners=False) + 0.2 * grain
    device = next((p.device for p in whole.module.parameters()), torch.device("cpu"))
    images = images.to(device, whole.dtype)
    logits = whole.whole(images)
    if len(logits) != 2:
        raise ValueError(f"the module must put out logits (b, k); of 2 images it made {tuple(logits.shape)}")
    if logits.shape[1] == 1 and whole.classes is None:
        raise ValueError("the module has one logit: say classes=2 if it goes into a sigmoid, classes=1 to take it as it is")
    spread = float((logits[0] - logits[1]).abs().max())
    noise = float((torch.cat([whole.whole(images[i : i + 1]) for i in range(2)]) - logits).abs().max())
    tolerance = max(SHARE * spread, 2e-6 * float(logits.abs().max()))
    if not torch.isfinite(logits).all() or not tolerance < 0.1 * spread:
        raise ValueError(
            f"the module says {logits[0].tolist()[:4]} and {logits[1].tolist()[:4]} of two different images: too much alike (or "
            "not finite) to check a cut by; hand over a trained module"
        )
    if noise > tolerance:
        raise ValueError(
            f"the module says something else of an image alone than in a batch (by {noise:.2g}, while two images differ by "
            f"{spread:.2g}): it mixes the images of a batch, or draws at random in evaluation mode, and has no map of one image"
        )
    return _Trial(images, logits, tolerance)


def _settle(parts: Parts, number: int, grid: Tensor, beside: Tensor | None, trial: _Trial) -> str | None:
    """Find what the layers below the cut can run on while the part above it says what the whole says; None, or what is wrong."""
    three = torch.tensor([0, 1, 0], device=grid.device)  # other rows than images, for the methods that change features
    x, more = grid[three], None if beside is None else beside[three]
    expected = trial.logits[three]
    problem = ""
    for size in (SMALL, None):
        for each in (False, True):
            parts.stand_ins[number] = StandIn(each, size)
            try:
                said = parts.logits(x, more, start=number + 1)
            except Exception as error:  # a foreign module may raise anything at a stand-in it was not made for
                problem = f"above it, the module fails with {type(error).__name__}: {error}"
                continue
            difference = float((said - expected).abs().max()) if said.shape == expected.shape else float("inf")
            if difference <= trial.tolerance:
                return _without_slope(parts, number, grid, beside)
            problem = (
                f"from its output alone, the logits come out other than the module's (by {difference:.2g}), because something "
                "above also reads what lies below: a skip connection passes it by"
            )
    return problem


def _without_slope(parts: Parts, number: int, grid: Tensor, beside: Tensor | None) -> str | None:
    """What is wrong with the gradient, if anything is."""
    with torch.enable_grad():
        leaf = grid.detach().requires_grad_(True)
        score = parts.logits(leaf, beside, start=number + 1).square().sum()
        slope = torch.autograd.grad(score, leaf, allow_unused=True)[0] if score.requires_grad else None
    if slope is None:
        return "no gradient comes back to it (the module detaches it or runs under no_grad, or the head does not read its cells)"
    if not bool(slope.any()):
        return (
            "the logits do not depend on its cells (the head reads the class token alone: take a layer before the last attention)"
        )
    return None


def _alternatives(census: Sequence[tuple[str, tuple[int, ...]]], cut: Callable[[str], Parts], trial: _Trial) -> str:
    """A sentence that names layers where the module can be cut: outer ones first, coarse ones first."""
    ran = [name for name, _ in census]
    there = [(name, shape) for name, shape in reversed(census) if ran.count(name) == 1 and len(shape) > 2]
    found = []
    for name, _ in sorted(there, key=lambda entry: entry[0].count("."))[:TRIED]:
        parts = cut(name)
        try:
            (cells,) = parts.features(parts.normalize(trial.images), stop=0)
        except ValueError:
            continue
        if cells.grid.shape[2] * cells.grid.shape[3] > 1 and _settle(parts, 0, *cells, trial) is None:
            found.append(name)
        if len(found) == NAMED:
            break
    return f"It can be cut at: {', '.join(found)}" if found else "None of its outer layers can be cut at either"


def _linear_on_mean(parts: Parts, grid: Tensor, beside: Tensor | None) -> str | None:
    """The name of a linear layer (or 1x1 convolution) that makes the logits of the mean of the last stage, for any features."""
    if beside is not None:
        return None
    trials = []
    for x in _any_features(parts, grid):
        try:
            trials.append((x.mean((2, 3)), parts.logits(x, start=len(parts.names))))
        except Exception:  # a head of one grid only is no mean, whatever it raises at another
            return None
    for name, layer in _linear_layers(parts.module):
        if all(_makes(layer, mean, said, parts.classes) for mean, said in trials):
            return name
    return None


def _any_features(parts: Parts, grid: Tensor) -> Iterator[Tensor]:
    """Features of which only a plain mean makes the same: of both signs (no ReLU), large (no clamp), on other grids."""
    generator = torch.Generator().manual_seed(1)
    spread, middle = grid.std(), grid.mean()
    sizes = [(grid.shape[2], grid.shape[3])]
    if parts.takes_any_grid(grid):
        sizes += [(grid.shape[2] + 1, 2 * grid.shape[3] + 1), (2 * grid.shape[2], 2 * grid.shape[3])]
    yield grid
    for height, width in sizes:
        noise = torch.randn((*grid.shape[:2], height, width), generator=generator, dtype=torch.float64).to(grid)
        for size in (1.0, 1e4):
            yield size * (noise * spread + middle)


def _makes(layer: Any, mean: Tensor, said: Tensor, classes: int | None) -> bool:
    """Whether the layer makes these logits of these means."""
    weight = layer.weight.flatten(1)
    if weight.shape[1] != mean.shape[1] or len(weight) not in (said.shape[1], 1):
        return False
    made = functional.linear(mean, weight, layer.bias)
    if len(weight) == 1 and classes == 2:
        made = torch.cat([-made / 2, made / 2], 1)
    return made.shape == said.shape and float((made - said).abs().max()) <= 1e-5 * float(said.abs().max())


def _linear_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in module.named_modules():
        one = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
        if isinstance(layer, nn.Linear) or one:
            yield name, layer
