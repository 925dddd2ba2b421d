"""A slide at one resolution as one large image that is read in parts, and the parts to read.

The field is a lattice of squares: `step` px of the field stand for `side` px of level 0, both whole numbers. A square is read and
resized by itself, whatever it is read for, so that a px of the field has one value; what is cut between squares has no seam.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wsol.slides.slide import Box, Slide

RGB = npt.NDArray[np.uint8]


class Field:
    """A slide as an image of `size` (H, W) px, white where the last cells reach beyond the slide.

    Attributes:
        size: (H, W) px, both multiples of `cell`.
        frame: the level-0 box that these px stand for.
    """

    def __init__(self, slide: Slide, *, step: int, side: int, cell: int, hold: int = 64) -> None:
        """Args:
        slide: open, and to stay open.
        step: side of a square in px of the field, a multiple of `cell`.
        side: the same in px of level 0.
        cell: px of the field that its size is rounded up to.
        hold: squares that are kept: the halo of a block is read again by the next.
        """
        if step % cell or min(step, side, cell, hold) < 1:
            raise ValueError(f"step must be a multiple of cell, and all at least 1; got step={step}, cell={cell}, side={side}")
        self.step, self.side = step, side
        self._slide, self._hold = slide, hold
        self._squares: OrderedDict[tuple[int, int], RGB] = OrderedDict()
        width, height = (-(-s * step // (side * cell)) * cell for s in slide.size)
        self.size = (height, width)
        self.frame = Box(0, 0, max(1, round(width * side / step)), max(1, round(height * side / step)))

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> RGB:
        """The px of these half-open ranges of rows and columns, (H, W, 3)."""
        (top, bottom), (left, right) = rows, columns
        if not (0 <= top < bottom <= self.size[0] and 0 <= left < right <= self.size[1]):
            raise ValueError(f"rows {rows} and columns {columns} must lie in the field of {self.size} px")
        out = np.empty((bottom - top, right - left, 3), np.uint8)
        for i in range(top // self.step, -(-bottom // self.step)):
            for j in range(left // self.step, -(-right // self.step)):
                y, x = max(top, i * self.step), max(left, j * self.step)
                part = self._square(i, j)[y - i * self.step : bottom - i * self.step, x - j * self.step : right - j * self.step]
                out[y - top : y - top + len(part), x - left : x - left + part.shape[1]] = part
        return out

    def _square(self, i: int, j: int) -> RGB:
        if (i, j) in self._squares:
            self._squares.move_to_end((i, j))
            return self._squares[i, j]
        box = Box(j * self.side, i * self.side, self.side, self.side)
        pixels = self._slide.read(box, self.side * self._slide.mpp / self.step)
        if pixels.shape[:2] != (self.step, self.step):
            pixels = np.asarray(cv2.resize(pixels, (self.step, self.step), interpolation=cv2.INTER_AREA), np.uint8)
        self._squares[i, j] = pixels
        if len(self._squares) > self._hold:
            self._squares.popitem(last=False)
        return pixels


class Block(NamedTuple):
    """Tiles of a lattice that are drawn together, half-open ranges of its rows and columns."""

    top: int
    left: int
    bottom: int
    right: int


def blocks(places: npt.NDArray[np.int64], side: int) -> list[Block]:
    """The blocks of up to `side` x `side` tiles that hold these tiles, shrunk to them; row by row.

    Args:
        places: (n, 2) of (row, column), the tiles wanted.
        side: of a block, in tiles.
    """
    if side < 1:
        raise ValueError(f"a block has at least one tile; got side={side}")
    if not len(places):
        return []
    groups, number = np.unique(places // side, axis=0, return_inverse=True)
    low, high = np.full(groups.shape, np.iinfo(np.int64).max), np.zeros(groups.shape, np.int64)
    np.minimum.at(low, number, places)
    np.maximum.at(high, number, places + 1)
    return [Block(*corners) for corners in np.concatenate([low, high], axis=1).tolist()]


def fewest_px(places: npt.NDArray[np.int64], read: Callable[[Block], tuple[int, int]], most_px: int) -> list[Block]:
    """The blocks that read the fewest px in all, none more than `most_px`: large blocks share halos, small ones skip glass.

    Args:
        places: (n, 2) of (row, column), the tiles wanted; at least one.
        read: (H, W) px that a block reads, halo included.
        most_px: of one block.

    Raises:
        ValueError: not even one tile fits; the message says how many px it would take.
    """
    best: tuple[int, list[Block]] | None = None
    for side in range(1, int(places.max()) + 2):
        found = blocks(places, side)
        sizes = [height * width for height, width in map(read, found)]
        if max(sizes) > most_px:
            if best is None:
                raise ValueError(f"one tile with its halo takes {max(sizes)} px, and {most_px} fit in memory")
            break
        if best is None or sum(sizes) < best[0]:
            best = sum(sizes), found
    assert best is not None
    return best[1]
