"""Pyramids through OpenSlide, and past it where that gives the same pixels sooner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openslide

from wsol.slides.dicom import mislabeled, rgb_of_ybr
from wsol.slides.directories import check_complete
from wsol.slides.native import JpegTiles, TileError, is_jpeg
from wsol.slides.reader import RGB, SlideError, agreed_mpp, damaged, on_white

PLAIN_GRIDS = {"aperio", "generic-tiff"}
"""Vendors whose levels are one grid of tiles without overlap or offsets."""


_PRINT_UM = 10.0
_PAINTED_PX = 4096
"""Side of what OpenSlide paints at once."""


class Pyramid:
    """A file that OpenSlide opens.

    Args:
        path: the file.
        fast: whether JPEG tiles may be decoded without OpenSlide. Pixels are the same either way: a level is read so only after
            a probe of some of its tiles, and OpenSlide reads what is missing, damaged or between two px.
    """

    def __init__(self, path: Path, *, fast: bool = True) -> None:
        self.path = path
        self._handles = {os.getpid(): openslide.OpenSlide(str(path))}
        self._file: int | None = None
        self._tiles: list[JpegTiles | None] = []
        try:
            handle = self._handle()
            self.size = handle.dimensions
            self.downsamples = tuple(float(down) for down in handle.level_downsamples)
            self.tiles = tuple(_tile_size(handle, level) for level in range(handle.level_count))
            self._vendor = handle.properties.get(openslide.PROPERTY_NAME_VENDOR)
            if self._vendor in PLAIN_GRIDS:
                _check_aspect(path, handle.level_dimensions)
            photometric = handle.properties.get("dicom.PhotometricInterpretation")
            self._mislabeled = self._vendor == "dicom" and mislabeled(path, photometric)
            self._index(fast and self._vendor in PLAIN_GRIDS)
        except BaseException:
            self.close()
            raise
        self._agreed = lru_cache(None)(self._probe)

    def mpp(self) -> float | None:
        """See `Reader`."""
        properties = self._handle().properties
        x, y = (properties.get(name) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y))
        found = agreed_mpp(self.path, float(x) if x else None, float(y) if y else None)
        # 72 to 2400 dots per inch are those of screens and printers.
        return None if found and found > _PRINT_UM and properties.get("tiff.ResolutionUnit") == "inch" else found

    def close(self) -> None:
        """Closes this process's handles."""
        if handle := self._handles.pop(os.getpid(), None):
            handle.close()
        if self._file is not None:
            os.close(self._file)
        for tiles in filter(None, self._tiles):
            tiles.forget()
        self._file, self._tiles = None, []

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """See `Reader`."""
        if tiles := self._agreed(level):
            try:
                return self._decoded(tiles, level, x, y, width, height)
            except TileError:
                pass  # a missing or damaged tile, an edge between px: OpenSlide fills it or says what is wrong
        return self._painted(level, x, y, width, height)

    def _decoded(self, tiles: JpegTiles, level: int, x: int, y: int, width: int, height: int) -> RGB:
        down = self.downsamples[level]
        if not down.is_integer() and max(width, height) > _PAINTED_PX:
            raise TileError("OpenSlide paints it in parts, each at a fraction of its own")
        return tiles.read_between(x / down, y / down, width, height)

    def _painted(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        try:
            rgba = np.asarray(self._handle().read_region((x, y), level, (width, height)))
        except openslide.OpenSlideError as error:
            self._handles.pop(os.getpid(), None)  # an OpenSlide handle fails for good after its first error
            raise damaged(self.path, error) from error
        if self._mislabeled:
            rgba = np.concatenate([rgb_of_ybr(rgba[..., :3]), rgba[..., 3:]], axis=-1)
        return on_white(rgba)

    def _handle(self) -> openslide.OpenSlide:
        """This process's own: a handle carries file positions and locks across a fork."""
        if os.getpid() not in self._handles:
            self._handles[os.getpid()] = openslide.OpenSlide(str(self.path))
        return self._handles[os.getpid()]

    def _index(self, fast: bool) -> None:
        """Finds the tiles of each level in the TIFF, and checks that the file reaches to the last of them."""
        import tifffile

        if not self.path.is_file():
            return
        try:
            with tifffile.TiffFile(self.path) as tiff:
                check_complete(self.path, tiff.pages)
                if (bits := int(tiff.pages.first.bitspersample)) > 8:
                    raise SlideError(
                        f"{self.path}: {bits} bits per channel, 8 expected; convert it (which bits are the picture is not known)"
                    )
                if fast:
                    self._file = os.open(self.path, os.O_RDONLY)
                    self._tiles = self._levels(tiff, self._file)
        except SlideError:
            raise
        except Exception:  # tifffile raises what it likes about files that are no TIFF, or one that only OpenSlide understands
            self._tiles = []

    def _levels(self, tiff: Any, file: int) -> list[JpegTiles | None]:
        levels: list[JpegTiles | None] = []
        for size in self._handle().level_dimensions:
            # In Aperio slides OpenSlide distrusts all coarse tiles over a missing fine one and draws them from finer levels.
            trusted = self._vendor != "aperio" or all(tiles and tiles.counts.all() for tiles in levels)
            levels.append(_tiles_of(tiff, file, size) if trusted else None)
        return levels

    def _probe(self, level: int) -> JpegTiles | None:
        """The tiles of a level if some of them, read both ways, are the same to the bit."""
        tiles = self._tiles[level] if level < len(self._tiles) else None
        if tiles is None:
            return None
        (width, height), down, equal = tiles.tile, self.downsamples[level], 0
        starts = [(round(c * width * down), round(r * height * down)) for c, r in tiles.specimens()]
        if down > 1:
            starts += [(x + 1, y + 1) for x, y in starts[:2]]  # between two px
        for x, y in starts:
            try:
                ours, theirs = self._decoded(tiles, level, x, y, width, height), self._painted(level, x, y, width, height)
            except (TileError, SlideError):
                continue  # says nothing about the others, and comes to OpenSlide whenever it is read
            if not np.array_equal(ours, theirs):
                return None
            equal += 1
        return tiles if equal else None


def _check_aspect(path: Path, sizes: Sequence[tuple[int, int]]) -> None:
    """Raises SlideError where a level is shrunk in x and y by factors that differ by more than a tenth and two px."""
    (width, height), *others = sizes
    for level, (w, h) in enumerate(others, 1):
        if abs(w - width * h / height) > 2 + w / 10 and abs(h - height * w / width) > 2 + h / 10:
            raise SlideError(
                f"{path}: damaged: level {level} is {w} x {h} px, of another shape than level 0, {width} x {height}; copy it "
                "again from the source"
            )


def _tile_size(handle: openslide.OpenSlide, level: int) -> tuple[int, int] | None:
    width, height = (handle.properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
    return (int(width), int(height)) if width and height else None


def _tiles_of(tiff: Any, file: int, size: tuple[int, int]) -> JpegTiles | None:
    """The JPEG tiles of the one directory of this size; None if there are several or none."""
    pages = [page for page in tiff.pages if page.is_tiled and (page.imagewidth, page.imagelength) == size]
    return JpegTiles(file, pages[0]) if len(pages) == 1 and is_jpeg(pages[0]) else None
