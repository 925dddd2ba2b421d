"""Tile positions as pure arithmetic: sizes in, coordinates out; no slide, no file."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from wsol._names import closest

EDGES = ("cover", "inside")


def grid(
    width: int, height: int, *, tile: int, step: int | None = None, edge: Literal["cover", "inside"] = "cover"
) -> npt.NDArray[np.int64]:
    """Upper left corners of square tiles on a plane, row by row. All in the same px.

    Laws: it starts at (0, 0); the step is uniform; with `edge="cover"` every px lies in a tile (the last ones may reach beyond
    the plane), with `edge="inside"` every tile lies in the plane; the plane's grid is the product of its axes' grids.

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


def _axis(length: int, tile: int, step: int, edge: str) -> npt.NDArray[np.int64]:
    steps = (length - tile) / step
    count = 1 + int(np.ceil(steps) if edge == "cover" else np.floor(steps))
    if edge == "cover":
        count = max(count, 1)
    return np.arange(max(count, 0), dtype=np.int64) * step
