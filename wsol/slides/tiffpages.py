"""TIFFs that OpenSlide does not open, or opens in part: OME-TIFFs with their pyramid, and large images stored in strips.

Only the strips or tiles under a box are decoded, so memory does not grow with the image. Levels are read at the nearest px.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from wsol.slides.directories import check_complete
from wsol.slides.native import JpegTiles, TileError, TileGrid, is_jpeg
from wsol.slides.reader import RGB, SlideError, agreed_mpp, damaged, on_white, resolution_mpp

STRIP_BYTES = 2**20
"""Into parts of about this size an uncompressed image in one strip is cut."""

MOST_BYTES = 2**29
"""Of one compressed strip or tile, which cannot be cut."""

_GRAY, _RGB = 1, 2
_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3}  # both letters mu are in use
_CONVERT = "convert it to a tiled TIFF (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg)"


class NoCodec(SlideError):
    """Its compression is one that tifffile knows only with the package imagecodecs."""


class TiffPages:
    """A TIFF read through tifffile's index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = [_pages(path, level) for level in tiff.series[0].levels] if tiff.is_ome else [[tiff.pages[0]]]
                check_complete(path, [page for level in pages for page in level])
                self._levels = [_grid(path, self._file, level) for level in pages]
                self._mpp = _ome_mpp(tiff.ome_metadata or "") if tiff.is_ome else _page_mpp(tiff.pages[0])
                if tiff.is_ome:
                    _check_ome_size(path, tiff.ome_metadata or "", self._levels[0].size)
        except BaseException as error:
            os.close(self._file)
            if isinstance(error, SlideError) or not isinstance(error, Exception):
                raise
            raise damaged(path, error) from error  # tifffile raises what it likes about damaged files
        self.size = self._levels[0].size
        self.downsamples = tuple((self.size[0] / grid.size[0] + self.size[1] / grid.size[1]) / 2 for grid in self._levels)
        self.tiles: tuple[tuple[int, int] | None, ...] = tuple(grid.tile for grid in self._levels)

    def mpp(self) -> float | None:
        """See `Reader`."""
        return agreed_mpp(self.path, *self._mpp)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """See `Reader`."""
        down = self.downsamples[level]
        try:
            return self._levels[level].read(round(x / down), round(y / down), width, height)
        except TileError as error:
            raise damaged(self.path, error) from error

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
        for grid in self._levels:
            grid.forget()


class _Segments(TileGrid):
    """Tiles or strips of one RGB or gray page, or of three pages of one channel each, decoded by tifffile."""

    def __init__(self, file: int, pages: Sequence[Any]) -> None:
        page = pages[0]
        self._pages = pages
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        size = int(page.imagewidth), int(page.imagelength)
        tile = (int(page.tilewidth), int(page.tilelength)) if page.is_tiled else (size[0], int(min(page.rowsperstrip, size[1])))
        self._places = [(page.dataoffsets, page.databytecounts) for page in pages]  # loaded while the file is open
        offsets, counts = self._places[0]
        self._raw = page.compression == 1 and not page.is_tiled and len(offsets) == len(pages) == self._planes == 1
        if self._raw:
            row = size[0] * page.samplesperpixel
            tile = size[0], max(1, min(size[1], STRIP_BYTES // row))
            starts = range(0, size[1], tile[1])
            offsets, counts = [offsets[0] + y * row for y in starts], [min(tile[1], size[1] - y) * row for y in starts]
        super().__init__(file, size, tile, offsets, counts)
        self._per_plane = len(self.offsets) // self._planes

    def _decode(self, index: int) -> RGB:
        if self._raw:
            part = np.frombuffer(self._bytes(index), np.uint8).reshape(-1, self.size[0], self._pages[0].samplesperpixel)
        else:
            planes = [
                self._plane(page, index + n * self._per_plane) for page in range(len(self._pages)) for n in range(self._planes)
            ]
            part = np.concatenate(planes, axis=-1)
        if part.shape[-1] == 4:
            return on_white(part)
        return np.ascontiguousarray(np.broadcast_to(part, (*part.shape[:2], 3)))

    def _plane(self, page: int, index: int) -> Any:
        offset, count = (numbers[index] for numbers in self._places[page])
        try:
            part, _, shape = self._pages[page].decode(os.pread(self._file, count, offset) if count else None, index)
        except Exception as error:  # of tifffile and of each of its codecs
            raise TileError(f"strip or tile {index}: {error}") from error
        return np.full(shape[1:], 255, np.uint8) if part is None else part[0]


def _pages(path: Path, series: Any) -> list[Any]:
    """The page of a level with its color in it, or its three pages of one channel each."""
    axes, shape = series.axes, series.shape
    channels = dict(zip(axes, shape, strict=True))
    pages = [page.aspage() for page in series.pages]
    if set(axes) <= set("YXSC") and len(pages) == channels.get("C", 1) and len(pages) in (1, 3):
        return pages
    raise SlideError(f"{path}: one plane of RGB or gray expected, got axes {axes} of {shape}; export one plane as 8-bit RGB")


def _grid(path: Path, file: int, pages: list[Any]) -> TileGrid:
    page = pages[0]
    alpha = page.samplesperpixel == 4 and page.extrasamples in ((1,), (2,))
    colors = (page.photometric, page.samplesperpixel)
    if page.dtype != np.uint8 or page.bitspersample != 8:
        raise SlideError(f"{path}: 8 bit per channel expected, got {page.dtype}; convert the image to 8-bit RGB")
    if len(pages) == 1 and is_jpeg(page):
        return JpegTiles(file, page)
    try:
        page.decode(None, 0)
        known = page.compression not in (6, 7)
    except (ValueError, NotImplementedError):
        known = False
    if not known:
        compression = getattr(page.compression, "name", page.compression)
        raise NoCodec(f"{path}: no decoder for strips or tiles of {compression}, photometric {page.photometric!r}; {_CONVERT}")
    if not (colors in ((_GRAY, 1), (_RGB, 3)) or (page.photometric == _RGB and alpha)):
        raise NoCodec(f"{path}: gray or RGB expected, got {page.photometric!r} of {page.samplesperpixel} samples; {_CONVERT}")
    grid = _Segments(file, pages)
    if (size := 3 * grid.tile[0] * grid.tile[1]) > MOST_BYTES:
        raise SlideError(f"{path}: stored in pieces of {size / 1e9:.1f} GB, of which each has to be held whole; {_CONVERT}")
    return grid


def _page_mpp(page: Any) -> tuple[float | None, float | None]:
    unit, *sides = (page.tags.get(name) for name in ("ResolutionUnit", "XResolution", "YResolution"))
    x, y = (side.value[0] / side.value[1] if side is not None and side.value[1] else 0.0 for side in sides)
    return resolution_mpp(int(unit.value) if unit is not None else None, x, y)


def _check_ome_size(path: Path, xml: str, size: tuple[int, int]) -> None:
    """Raises SlideError where the text gives the first image another size than its pages do."""
    found = _ome_pixels(xml, r"(Size[XY])")
    if len(found) == 2 and (told := (int(found["SizeX"]), int(found["SizeY"]))) != size:
        raise SlideError(f"{path}: damaged: {told} px by its OME-XML, {size} by its pages; copy it again from the source")


def _ome_pixels(xml: str, names: str) -> dict[str, str]:
    """Attributes of the first image whose names fit."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    return dict(re.findall(rf'\b{names}\s*=\s*"([^"]*)"', pixels.group())) if pixels else {}


def _ome_mpp(xml: str) -> tuple[float | None, float | None]:
    """(x, y) in um per px of the first image."""
    found = _ome_pixels(xml, r"(PhysicalSize[XY](?:Unit)?)")
    x, y = (
        float(found[axis]) * _UM[found.get(f"{axis}Unit", "µm")]
        if axis in found and found.get(f"{axis}Unit", "µm") in _UM
        else None
        for axis in ("PhysicalSizeX", "PhysicalSizeY")
    )
    return x, y
