"""Where the images lie that were cut from one slide: what they cover, and what shows that their places were read wrongly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CLOSEST = 4
"""Images of equal size lie apart by at least one part in so many of their side: who cuts with overlap halves it, or quarters."""
LARGEST_CM2, LONGEST_CM = 500.0, 30.0
"""No glass slide is larger or longer; beyond, places are in other units than px of level 0."""


class Piece(NamedTuple):
    """One image of a mosaic: its file, its place (x, y) on the slide in level-0 px, and its own size in px."""

    path: str
    x: int
    y: int
    width: int
    height: int


class Layout(NamedTuple):
    """What images make together.

    Attributes:
        images: how many.
        size: (width, height) from the corner of the slide to the end of the last image, level-0 px.
        covered: share of that area on which an image lies, in (0, 1].
        step: median distance from an image to the next in its row, or column, level-0 px; 0 where none has a neighbor.
    """

    images: int
    size: tuple[int, int]
    covered: float
    step: float


def layout(pieces: Sequence[Piece], *, mpp: float, down: float = 1.0) -> Layout:
    """How images lie together on their slide.

    Args:
        pieces: one or more.
        mpp: um per level-0 px.
        down: level-0 px per px of the images.

    Raises:
        ValueError: two images in one place, or of equal size and closer than a quarter of their side; more area than glass has.
    """
    for first, second in _close(pieces, down):
        raise ValueError(
            f"{first.path} (x {first.x}, y {first.y}) and {second.path} (x {second.x}, y {second.y}) lie on each other: places "
            f"are level-0 px, and images of {round(first.width * down)} x {round(first.height * down)} px are cut at least "
            f"1/{CLOSEST} of that apart. Either the pattern takes a part of a number, or x and y count tiles (`step`), or one "
            "slide has two images of one place: list it once"
        )
    corners = np.array([(p.x, p.y, p.x + p.width * down, p.y + p.height * down) for p in pieces])
    width, height = (round(length) for length in corners[:, 2:].max(0).tolist())
    wide, high = width * mpp / 1e4, height * mpp / 1e4
    if wide * high > LARGEST_CM2 or max(wide, high) > LONGEST_CM:
        far = pieces[int((corners[:, 2] * corners[:, 3]).argmax())]
        raise ValueError(
            f"{far.path}: with x {far.x}, y {far.y} the slide has {width} x {height} px of {mpp:g} um, {wide:.0f} x {high:.0f} "
            "cm, and no glass slide is so large: x and y are level-0 px (see `step` and `coords_mpp`), mpp um per px"
        )
    return Layout(len(pieces), (width, height), _covered(corners), _step(corners))


def _close(pieces: Sequence[Piece], down: float) -> list[tuple[Piece, Piece]]:
    """The first two images that lie on each other, if any do: none shares a cell of a quarter side, and few are neighbors."""
    seen: dict[tuple[float, ...], Piece] = {}
    for piece in pieces:
        across, along = piece.width * down / CLOSEST, piece.height * down / CLOSEST
        column, row = int(piece.x // across), int(piece.y // along)
        for key in [(piece.x, piece.y), *((across, along, column + i, row + k) for i in (-1, 0, 1) for k in (-1, 0, 1))]:
            other = seen.get(key)
            if other and (len(key) == 2 or (abs(other.x - piece.x) < across and abs(other.y - piece.y) < along)):
                return [(other, piece)]
        seen[piece.x, piece.y] = seen[across, along, column, row] = piece
    return []


def _covered(corners: npt.NDArray[np.float64]) -> float:
    """Share of the area from (0, 0) on which a rectangle (left, top, right, bottom) lies: exact, strip by strip."""
    corners = corners[corners[:, 1].argsort()]
    tops, tallest = corners[:, 1], (corners[:, 3] - corners[:, 1]).max()
    edges, total = np.unique(corners[:, [1, 3]]), 0.0
    for top, bottom in pairwise(edges):
        near = corners[np.searchsorted(tops, top - tallest) : np.searchsorted(tops, bottom)]
        spans = near[near[:, 3] > top][:, [0, 2]]
        spans = spans[spans[:, 0].argsort()]
        reached = np.maximum.accumulate(np.append(0.0, spans[:, 1]))
        total += (bottom - top) * np.maximum(reached[1:] - np.maximum(spans[:, 0], reached[:-1]), 0).sum()
    return float(total / (corners[:, 2].max() * corners[:, 3].max()))


def _step(corners: npt.NDArray[np.float64]) -> float:
    """Median distance of neighbors in rows; in columns where no row has two."""
    for along, across in ((0, 1), (1, 0)):
        lines: dict[float, list[float]] = defaultdict(list)
        for corner in corners:
            lines[corner[across]].append(corner[along])
        steps = np.concatenate([np.diff(np.sort(line)) for line in lines.values()])
        if len(steps):
            return float(np.median(steps))
    return 0.0
