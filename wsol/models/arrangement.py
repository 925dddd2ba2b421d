"""What layers put out, tokens for instance, and the way to a grid of cells and back, without loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Reshape = tuple[int, int] | Callable[[Tensor], Tensor] | None
"""(h, w): the last h w tokens of (b, n, c), row by row. A function: (b, ...) -> (b, c, h, w), moving or dropping values."""


class Cells(NamedTuple):
    """What a layer puts out, in two parts."""

    grid: Tensor  # (b, c, h, w)
    beside: Tensor | None  # (b, m): the values that are in no cell (class tokens); None where there are none


class Arrangement(NamedTuple):
    """Where each value of a layer's output goes; learned once for each shape, from numbered values.

    Attributes:
        shape: of one image's output.
        grid: (c, h, w).
        picked: positions of the flat output, in the order of the grid.
        beside: the positions that the grid leaves out.
        back: puts (grid, beside), flat and side by side, into the order of the output.
    """

    shape: tuple[int, ...]
    grid: tuple[int, int, int]
    picked: Tensor
    beside: Tensor
    back: Tensor

    def split(self, output: Tensor) -> Cells:
        """(b, *shape) -> its cells, copies."""
        flat = output.flatten(1)
        grid = flat.index_select(1, self.picked.to(flat.device)).reshape(-1, *self.grid)
        return Cells(grid, flat.index_select(1, self.beside.to(flat.device)) if len(self.beside) else None)

    def join(self, cells: Cells) -> Tensor:
        """Cells -> (b, *shape), a copy."""
        flat = cells.grid.flatten(1)
        if cells.beside is not None:
            flat = torch.cat([flat, cells.beside.to(flat.dtype)], 1)
        return flat.index_select(1, self.back.to(flat.device)).reshape(-1, *self.shape)


def arrange(shape: tuple[int, ...], reshape: Reshape, layer: str) -> Arrangement | None:
    """How `reshape` moves an output of `shape` (one image's); None where the output is a grid already.

    Raises:
        ValueError: no grid comes out, or one that is more than values moved to other places.
    """
    if len(shape) == 3 and not callable(reshape):
        return None
    if reshape is None:
        raise ValueError(
            f"layer {layer!r} puts out {_shown(shape)}, no grid (b, c, h, w): take another layer, or say where its values go, "
            "reshape=(h, w) for tokens (b, n, c) or a function that makes (b, c, h, w) of them"
        )
    numbers = torch.arange(math.prod(shape)).reshape(1, *shape)
    grid = _placed(numbers, reshape, layer)
    if grid.ndim != 4 or len(grid) != 1:
        raise ValueError(
            f"reshape must make (b, c, h, w) of {_shown(shape)}, what layer {layer!r} puts out; got {_shown(grid.shape[1:])}"
        )
    picked = grid.flatten()
    taken = torch.zeros(numbers.numel(), dtype=torch.bool)
    if picked.dtype != torch.int64 or not bool(((picked >= 0) & (picked < len(taken))).all()):
        raise ValueError("reshape may only move values or leave some out; it changed them")
    taken[picked] = True
    if int(taken.sum()) != len(picked):
        raise ValueError("reshape may use each value once; it repeats some")
    beside = (~taken).nonzero().flatten()
    _, channels, height, width = grid.shape
    return Arrangement(shape, (channels, height, width), picked, beside, torch.cat([picked, beside]).argsort())


def _placed(numbers: Tensor, reshape: tuple[int, int] | Callable[[Tensor], Tensor], layer: str) -> Tensor:
    if callable(reshape):
        return reshape(numbers)
    height, width = reshape
    if numbers.ndim != 3 or numbers.shape[1] < height * width:
        raise ValueError(
            f"reshape=({height}, {width}) needs tokens (b, n, c) with n >= {height * width}; "
            f"layer {layer!r} puts out {_shown(tuple(numbers.shape[1:]))}"
        )
    tokens = numbers[:, numbers.shape[1] - height * width :]
    return tokens.transpose(1, 2).reshape(1, -1, height, width)


def _shown(shape: tuple[int, ...]) -> str:
    return f"(b, {', '.join(map(str, shape))})"


def main_tensor(output: Any, name: str) -> Tensor:
    """The output of a layer, or the first of several."""
    x = first(output)
    if not isinstance(x, Tensor) or x.ndim < 2 or not x.is_floating_point():
        raise ValueError(
            f"layer {name!r} must put out a float tensor, or a tuple that begins with one; got {type(output).__name__}"
        )
    return x


def first(output: Any) -> Any:
    """The first of several outputs, or the one there is."""
    return output[0] if isinstance(output, tuple | list) and output else output


def replaced(output: Any, x: Tensor) -> Any:
    """`output` with `x` for its tensor."""
    if isinstance(output, tuple | list):
        return getattr(output, "_make", type(output))([x, *output[1:]])  # `_make` where it is a named tuple
    return x


def logits_of(output: Any) -> Tensor:
    """The logits in what a classifier puts out: itself, its `logits`, or the first of several."""
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", first(output))
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the module must put out logits (b, k), a tuple that begins with them, or something with `logits`; "
            f"got {type(output).__name__}"
        )
    return found
