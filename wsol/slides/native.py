"""The tiles of a TIFF as they are stored, decoded one by one: what OpenSlide does with them, without its detours.

OpenSlide hands each JPEG tile to libjpeg-turbo, paints it on a transparent canvas and copies that twice on its way to Python.
Decoding straight to RGB is several times as fast and gives the same pixels; whether it does is for the caller to probe.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from wsol.slides.reader import RGB
from wsol.slides.subpixel import shifted, split

CACHE = 32 * 2**20
"""Bytes of decoded tiles kept per level: two rows of 256-px tiles of a slide 20,000 px wide. OpenSlide keeps as much."""

_JPEG, _GRAY, _RGB, _YCBCR = 7, 1, 2, 6
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # APP14; one more byte names the color transform


class TileError(Exception):
    """A tile that is missing, damaged, or of another size than the others."""


class TileGrid(ABC):
    """One level as a grid of tiles; a strip is a tile as wide as the level.

    There is no lock and no file position (`pread`): threads and forked processes may share it.

    Attributes:
        size: (width, height) of the level in px.
        tile: (width, height) of a tile in px; those at the right and lower edge reach beyond the level.
        offsets: of each tile's bytes in the file, row by row.
        counts: of bytes; 0 where a tile is missing.
    """

    def __init__(
        self, file: int, size: tuple[int, int], tile: tuple[int, int], offsets: Iterable[int], counts: Iterable[int]
    ) -> None:
        """`file` is an open descriptor, which stays the caller's."""
        self.size, self.tile = size, tile
        self.offsets, self.counts = (np.fromiter(numbers, np.int64) for numbers in (offsets, counts))
        self._file = file
        self._decoded = lru_cache(max(2, CACHE // (3 * tile[0] * tile[1])))(self._decode)

    def forget(self) -> None:
        """Gives the memory of decoded tiles back; cache and grid refer to each other, so the garbage collector would be late."""
        self._decoded.cache_clear()

    @abstractmethod
    def _decode(self, index: int) -> RGB:
        """(height, width, 3) of a tile, or at the far edges at least the part on the level; raises TileError."""

    def _bytes(self, index: int) -> bytes:
        data = os.pread(self._file, int(self.counts[index]), int(self.offsets[index]))
        if len(data) < max(4, self.counts[index]):
            raise TileError(f"tile {index} has {len(data)} bytes of {self.counts[index]}")
        return data

    def read(self, x: int, y: int, width: int, height: int) -> RGB:
        """(height, width, 3) from (x, y), all in px of the level; white beyond its edges.

        Raises:
            TileError: a tile of it cannot be decoded.
        """
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, self.size[0]), min(y + height, self.size[1])
        out = np.empty((height, width, 3), np.uint8)
        if (left, top, right, bottom) != (x, y, x + width, y + height):
            out.fill(255)
            if left >= right or top >= bottom:
                return out
        tile_width, tile_height = self.tile
        across = -(-self.size[0] // tile_width)
        for row in range(top // tile_height, -(-bottom // tile_height)):
            y0, y1 = row * tile_height, min((row + 1) * tile_height, bottom)
            for column in range(left // tile_width, -(-right // tile_width)):
                x0, x1 = column * tile_width, min((column + 1) * tile_width, right)
                pixels = self._decoded(row * across + column)
                ya, xa = max(y0, top), max(x0, left)
                out[ya - y : y1 - y, xa - x : x1 - x] = pixels[ya - y0 : y1 - y0, xa - x0 : x1 - x0]
        return out

    def read_between(self, x: float, y: float, width: int, height: int) -> RGB:
        """The same from a position between px, interpolated as OpenSlide does.

        Raises:
            TileError: a tile of it cannot be decoded, or the box touches the edge of the level, where colors fade out.
        """
        (left, right), (top, below) = split(x), split(y)
        if not (right or below):
            return self.read(left, top, width, height)
        if min(left, top) < 0 or left + width >= self.size[0] or top + height >= self.size[1]:
            raise TileError("at the edge")
        block = self.read(left, top, width + 1, height + 1)
        columns, rows = (
            range(side - 1 - start % side, length, side)
            for start, length, side in ((left, width, self.tile[0]), (top, height, self.tile[1]))
        )
        return shifted(block, right, below, (columns, rows))


class JpegTiles(TileGrid):
    """A tifffile page that `is_jpeg` accepts."""

    def __init__(self, file: int, page: Any) -> None:
        size, tile = (int(page.imagewidth), int(page.imagelength)), (int(page.tilewidth), int(page.tilelength))
        super().__init__(file, size, tile, page.dataoffsets, page.databytecounts)
        self._head = _jpeg_head(page)

    def specimens(self) -> list[tuple[int, int]]:
        """(column, row) of tiles that tell most: the fullest, the first, the emptiest, and those at the far edges."""
        across, count = -(-self.size[0] // self.tile[0]), len(self.counts)
        there = np.flatnonzero(self.counts)
        if not len(there):
            return []
        sizes = self.counts[there]
        wanted = [there[sizes.argmax()], 0, there[sizes.argmin()], across - 1, count - across, count - 1]
        return [(i % across, i // across) for i in dict.fromkeys(map(int, wanted)) if self.counts[i]]

    def _decode(self, index: int) -> RGB:
        import simplejpeg

        try:
            # Strict: libjpeg's warnings are errors, as they are for OpenSlide.
            pixels: RGB = simplejpeg.decode_jpeg(self._head + self._bytes(index)[2:], strict=True)
        except (OSError, ValueError) as error:
            raise TileError(f"tile {index}: {error}") from error
        if pixels.shape[:2] != self.tile[::-1]:
            raise TileError(f"tile {index} is {pixels.shape[1]} x {pixels.shape[0]} px, not {self.tile[0]} x {self.tile[1]}")
        return pixels


def is_jpeg(page: Any) -> bool:
    """Whether a tifffile page is made of JPEG tiles of gray, RGB or YCbCr, 8 bits a channel."""
    return bool(
        page.is_tiled
        and page.compression == _JPEG
        and page.bitspersample == 8
        and (page.samplesperpixel, int(page.photometric)) in ((1, _GRAY), (3, _RGB), (3, _YCBCR))
        and page.planarconfig == 1
        and page.imagedepth == page.tiledepth == 1
    )


def _jpeg_head(page: Any) -> bytes:
    """What goes before each tile's bytes: the tables they share, and the color space of the directory.

    Tiles of a TIFF rarely say whether they hold RGB or YCbCr, and libjpeg would guess.
    """
    tables = page.jpegtables[2:-2] if page.jpegtables else b""
    space = b"" if page.samplesperpixel == 1 else _ADOBE + bytes([int(page.photometric) == _YCBCR])
    return b"\xff\xd8" + tables + space
