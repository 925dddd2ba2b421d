"""Tiles and region images that were cut from a slide, put back in their places: one slide again, white where there is none.

A mosaic is a small JSON file that lists the images of one slide; `open_slide` opens it like any other, and a mosaic of masks is a
mask. Level-0 px are those of the slide that the images were cut from, so what is drawn on a mosaic lies right on that slide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsol._files import atomic
from wsol.slides.pieces import Layout, Piece, layout
from wsol.slides.reader import RGB, SlideError, damaged, image_on_white
from wsol.slides.slide import Box

SUFFIX = ".mosaic"
_CACHE_PX = 32 * 2**20
_FORMAT = 1


def write_mosaic(path: Path, pieces: Iterable[Piece], *, mpp: float, down: float = 1.0) -> Layout:
    """Writes a mosaic, under a temporary name first, and says what its images make together.

    Args:
        path: ending in ".mosaic".
        pieces: in the order in which they are laid; where some overlap, later ones lie on top.
        mpp: um per level-0 px.
        down: level-0 px per px of the images, at least 1.

    Raises:
        ValueError: no pieces, a scale below 1, or places that cannot be right (see `wsol.slides.pieces`).
    """
    listed = list(pieces)
    if not listed or down < 1:
        raise ValueError(f"{path}: at least one image, and 1 px of level 0 or more per px of it; got {len(listed)}, {down}")
    found = layout(listed, mpp=mpp, down=down)
    # What is cut anew under the same name has another length in all likelihood: a hash of this file then differs.
    rows = [[*piece, Path(piece.path).stat().st_size] for piece in listed]
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"format": _FORMAT, "mpp": mpp, "down": down, "pieces": rows}))
    return found


class Mosaic:
    """A reader of mosaics (see `wsol.slides.reader.Reader`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mpp, down, self.pieces, self.places = _read(path)
        self.size = _size(self.places, down)
        self.downsamples: tuple[float, ...] = (down,)
        sides = {(piece.width, piece.height) for piece in self.pieces}
        grid = len(sides) == 1 and all(x % w == y % h == 0 for w, h in sides for x, y in self.places[:, :2].tolist())
        self.tiles: tuple[tuple[int, int] | None, ...] = (sides.pop() if grid else None,)
        area = max(piece.width * piece.height for piece in self.pieces)
        self._image = lru_cache(max(2, _CACHE_PX // area))(self._decode)

    def mpp(self) -> float | None:
        """See `Reader`."""
        return self._mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """See `Reader`."""
        left, top = round(x / self.downsamples[0]), round(y / self.downsamples[0])
        out = np.full((height, width, 3), 255, np.uint8)
        for i in _touching(self.places, left, top, left + width, top + height):
            out_part, in_part = _overlap(self.places[i], left, top, width, height)
            out[out_part] = self._image(i)[in_part]
        return out

    def close(self) -> None:
        """Lets the pixels go."""
        self._image.cache_clear()

    def _decode(self, index: int) -> RGB:
        piece = self.pieces[index]
        try:
            with Image.open(piece.path) as image:
                pixels = image_on_white(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise damaged(Path(piece.path), error) from error
        return _of_size(self.path, piece, pixels)


class MosaicRegion:
    """A mask in pieces, as a region (see `wsol.slides.annotations.AnnotatedRegion`); where there is no piece is no foreground."""

    def __init__(self, path: str | Path, size: tuple[int, int], values: Sequence[int] = ()) -> None:
        """Opens the mosaic of masks of a slide of `size` (width, height), level-0 px; `values` count, all above 0 when empty.

        Raises:
            SlideError: it is damaged.
            ValueError: it reaches beyond the slide.
        """
        self.path, self.values = Path(path), list(values)
        _, self._down, self.pieces, self.places = _read(self.path)
        own = _size(self.places, self._down)
        if own[0] > size[0] or own[1] > size[1]:
            raise ValueError(
                f"{self.path}: masks reach to {own}, the slide to {size}: a mask has the place and size of its image"
            )
        self._mask = lru_cache(8)(self._decode)

    def raster(self, box: Box, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The px of a box whose center lies on a px of the region, bool (H, W)."""
        rows, columns = (
            np.floor((at + (np.arange(count) + 0.5) * length / count) / self._down).astype(np.int64)
            for at, length, count in ((box.y, box.height, shape[0]), (box.x, box.width, shape[1]))
        )
        found = np.zeros(shape, bool)
        for i in _touching(self.places, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1):
            x, y, right, bottom = self.places[i].tolist()
            down, across = np.flatnonzero((rows >= y) & (rows < bottom)), np.flatnonzero((columns >= x) & (columns < right))
            if down.size and across.size:
                found[np.ix_(down, across)] = self._mask(i)[np.ix_(rows[down] - y, columns[across] - x)]
        return found

    def shares(self, corners: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float64]:
        """Share of each square that is in the region, counted in px of level 0."""
        return np.array([self.raster(Box(x, y, side, side), (side, side)).mean() for x, y in corners.tolist()])

    def _decode(self, index: int) -> npt.NDArray[np.bool_]:
        from wsol.slides.mask_region import MaskRegion

        piece = self.pieces[index]
        size = (piece.width, piece.height)
        return MaskRegion(piece.path, size, self.values).raster(Box(0, 0, *size), size[::-1])


def _read(path: Path) -> tuple[float, float, list[Piece], npt.NDArray[np.int64]]:
    """(um per level-0 px, level-0 px per px, pieces, their (left, top, right, bottom) in px of the images)."""
    try:
        told = json.loads(path.read_text())
        if told["format"] != _FORMAT:
            raise ValueError(f"format {told['format']}, {_FORMAT} expected")
        pieces = [Piece(*row[:5]) for row in told["pieces"]]
        down = float(told["down"])
        corners = np.array([[round(p.x / down), round(p.y / down), p.width, p.height] for p in pieces], np.int64)
        corners[:, 2:] += corners[:, :2]
        return float(told["mpp"]), down, pieces, corners
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SlideError(f"{path}: no mosaic that can be read ({error}); write it again with `wsol prepare`") from error


def _size(places: npt.NDArray[np.int64], down: float) -> tuple[int, int]:
    """(width, height) of all pieces together, level-0 px."""
    return round(int(places[:, 2].max()) * down), round(int(places[:, 3].max()) * down)


def _touching(places: npt.NDArray[np.int64], left: int, top: int, right: int, bottom: int) -> list[int]:
    """Which pieces a rectangle touches, in the order in which they lie."""
    inside = (places[:, 0] < right) & (places[:, 2] > left) & (places[:, 1] < bottom) & (places[:, 3] > top)
    return [int(i) for i in np.flatnonzero(inside)]


def _overlap(place: npt.NDArray[np.int64], left: int, top: int, width: int, height: int) -> tuple[Any, Any]:
    """Slices of the rectangle and of the piece where they meet."""
    x, y, right, bottom = place.tolist()
    a, b, c, d = max(x, left), max(y, top), min(right, left + width), min(bottom, top + height)
    return np.s_[b - top : d - top, a - left : c - left], np.s_[b - y : d - y, a - x : c - x]


def _of_size(path: Path, piece: Piece, pixels: RGB) -> RGB:
    if pixels.shape[:2] != (piece.height, piece.width):
        raise SlideError(
            f"{piece.path}: {pixels.shape[1]} x {pixels.shape[0]} px, but {path} was made of {piece.width} x {piece.height}; run "
            "`wsol prepare` again"
        )
    return pixels
