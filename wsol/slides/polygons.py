"""Polygons on the plane of a slide: which px lie inside, and how much of each tile does. No slide-size mask is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsol.slides.slide import Box

Ring = npt.NDArray[np.float64]
_FEW = 8
"""So many tiles are cut out of a region one by one."""


def inside(rings: Iterable[Ring], box: Box, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The px of a box whose center lies inside an odd number of rings, bool (H, W).

    A center on an outline counts as what is to its right.

    Line by line, every edge that crosses a line of centers flips all px to its right: exact, and holes come for free. Coordinates
    stay those of the slide, so that a part of the slide has the px it has in the whole.

    Args:
        rings: each (n, 2) of (x, y) in level-0 px, closed or not.
        box: of the slide.
        shape: (H, W) of the px laid over the box.
    """
    height, width = shape
    down, across = box.height / height, box.width / width
    flips = np.zeros((height, width + 1), np.uint8)  # counts modulo 256: only odd or even matters
    for ring in rings:
        x0, y0 = ring.T
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        # Lines of centers with low <= center < high.
        first, last = (
            np.ceil((y - box.y) / down - 0.5).astype(np.int64).clip(0, height) for y in (np.minimum(y0, y1), np.maximum(y0, y1))
        )
        edge = np.repeat(np.arange(len(ring)), last - first)
        line = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
        center = box.y + (line + 0.5) * down
        at = x0[edge] + (center - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
        np.add.at(flips, (line, np.ceil((at - box.x) / across - 0.5).astype(np.int64).clip(0, width)), 1)
    return np.bitwise_xor.accumulate(flips & 1, axis=1)[:, :width].astype(bool)


def rings_of(geometry: Any) -> list[Ring]:
    """The outlines and holes of a valid shapely geometry, of its areas only."""
    parts = [p for p in shapely.get_parts(geometry) if p.geom_type == "Polygon"]
    return [np.asarray(shapely.get_coordinates(ring)) for p in parts for ring in (p.exterior, *p.interiors)]


def shares(geometry: Any, corners: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float64]:
    """Share of each square's area that lies in the geometry, exact, 0 to 1.

    The geometry is halved along with the squares, so that a long outline is not walked once per square.

    Args:
        geometry: valid, of shapely, in level-0 px.
        corners: (n, 2) of (x, y) in level-0 px.
        side: of the squares.
    """
    found = np.zeros(len(corners))

    def descend(part: Any, which: npt.NDArray[np.int64]) -> None:
        if part.is_empty or not len(which):
            return
        at = corners[which]
        if len(which) <= _FEW:
            squares = shapely.box(at[:, 0], at[:, 1], at[:, 0] + side, at[:, 1] + side)
            found[which] = shapely.area(shapely.intersection(part, squares)) / side**2
            return
        axis = int(np.argmax(np.ptp(at, axis=0)))
        order = which[np.argsort(at[:, axis], kind="stable")]
        for half in np.array_split(order, 2):
            low, high = corners[half].min(axis=0), corners[half].max(axis=0) + side
            descend(shapely.intersection(part, shapely.box(*low, *high)), half)

    descend(geometry, np.arange(len(corners)))
    return found.clip(0, 1)


def union(parts: Iterable[Any]) -> Any:
    """All of the parts as one valid geometry, overlaps counted once."""
    return shapely.union_all(list(parts))
