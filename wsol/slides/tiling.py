"""Tile positions as pure arithmetic: sizes in, coordinates out; no slide, no file."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from wsol._names import closest

Edge = Literal["pad", "drop", "shift"]
EDGES = ("pad", "drop", "shift")


def grid(width: int, height: int, *, tile: int, step: float | None = None, edge: Edge = "pad") -> npt.NDArray[np.int64]:
    """Upper left corners of square tiles on a plane, row by row. All in the same px.

    Laws: it starts at (0, 0); tile i of an axis lies at round(i * step); the plane's grid is the product of its axes' grids. With
    `edge="pad"` every px lies in a tile (the last ones may reach beyond the plane); with "drop" every tile lies in the plane;
    with "shift" both: what "drop" leaves bare is covered by one more tile that ends where the plane does, so that it overlaps the
    one before. On a plane smaller than a tile, "shift" is as "pad".

    Args:
        width: of the plane.
        height: of the plane.
        tile: side of a tile.
        step: from one tile to the next; `tile` when None, less for overlap.
        edge: what happens at the right and lower edge.

    Returns:
        int64 (n, 2) of (x, y).
    """
    step = tile if step is None else step
    if edge not in EDGES:
        raise ValueError(closest("edge", edge, EDGES))
    if min(width, height, tile) < 1:
        raise ValueError(f"width, height and tile must be at least 1 px; got {width} x {height}, tile {tile}")
    if not 1 <= step <= tile:
        raise ValueError(f"step must be 1 to tile={tile} px, else the tiles leave gaps; got {step}")
    xs, ys = (_axis(length, tile, step, edge) for length in (width, height))
    return np.stack([np.tile(xs, len(ys)), np.repeat(ys, len(xs))], axis=1)


def aligned_side(side: int, native: int) -> int:
    """The length nearest to `side` with which a grid that starts at 0 cuts no stored tile in two. All in the same px.

    It is a multiple of `native`, or a whole part of it. Boxes of other sides lie over up to four stored tiles (more for larger
    ones), which are decoded anew for each box unless they come in order.

    Args:
        side: of the tiles that are wanted; for overlapping ones the step.
        native: side of the stored tiles.
    """
    if min(side, native) < 1:
        raise ValueError(f"side and native must be at least 1 px; got {side} and {native}")
    multiple = max(1, round(side / native)) * native
    parts = [native // n for n in range(2, native + 1) if native % n == 0]
    return min([multiple, *parts], key=lambda length: (abs(length - side), -length))


def _axis(length: int, tile: int, step: float, edge: str) -> npt.NDArray[np.int64]:
    """The corners along one axis."""
    at = np.round(np.arange(length // step + 2) * step).astype(np.int64)
    fits = at[at + tile <= length]
    if edge == "drop" or (len(fits) and fits[-1] + tile == length):
        return fits
    if edge == "shift" and len(fits):
        return np.append(fits, length - tile)
    return at[: len(fits) + 1]
