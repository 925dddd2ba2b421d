"""One slide or plain image behind one door: regions in level-0 px, pixels out at the resolution asked for, in um per px."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import openslide

from wsol.slides.directories import check_directories
from wsol.slides.reader import RGB, Reader, SlideError, damaged

MPP_RANGE = (0.02, 50.0)
"""um per px a microscope can have made; outside it a file's value is a left-over print resolution such as 72 dpi."""

MOST_UM2 = 5e10
"""Area of the largest slide: whole mounts have up to 1.5e10. A damaged header asks for more memory than there is."""

MOST_PX = 32 * 2**20
"""Level px decoded at once: 128 MB in OpenSlide's BGRA."""

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Box:
    """A rectangle on a slide in level-0 px; (x, y) is its upper left corner. It may reach beyond the slide."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"a box needs a positive width and height; got {self.width} x {self.height}")


class Slide:
    """An open slide; made by `open_slide`. Use it in `with`: it holds a file handle.

    Attributes:
        path: the file.
        size: (width, height) of level 0 in px.
        mpp: um per px at level 0.
        downsamples: of each pyramid level against level 0, first 1.0.
        tiles: (width, height) in px of the tiles each level is stored in; None where it is in one piece.
    """

    def __init__(self, path: Path, mpp: float, reader: Reader) -> None:
        self.path = path
        self.mpp = mpp
        self.size = reader.size
        self.downsamples = reader.downsamples
        self.tiles = reader.tiles
        self._reader: Reader | None = reader

    def __repr__(self) -> str:
        return f"Slide({str(self.path)!r}, size={self.size}, mpp={self.mpp:g}, levels={len(self.downsamples)})"

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; reading afterwards raises ValueError. Closing twice is fine."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def shape_at(self, box: Box, mpp: float) -> tuple[int, int]:
        """(H, W) of the array `read` returns: the box's um divided by `mpp`, rounded, at least 1."""
        scale = self.mpp / mpp
        return max(1, round(box.height * scale)), max(1, round(box.width * scale))

    def level_at(self, mpp: float) -> int:
        """The coarsest level that is at least as fine as `mpp`: the one `read` reads. 1 % slack: real levels lie at 4.0003."""
        return max((i for i, down in enumerate(self.downsamples) if down <= mpp / self.mpp * 1.01), default=0)

    def stored_tile(self, mpp: float) -> tuple[int, int] | None:
        """(width, height) in level-0 px of the tiles that `read` decodes for this `mpp`; None where they lie on no whole px."""
        level = self.level_at(mpp)
        tile, down = self.tiles[level], self.downsamples[level]
        return (int(tile[0] * down), int(tile[1] * down)) if tile and down.is_integer() else None

    def read(self, box: Box, mpp: float) -> RGB:
        """The pixels of `box` (level-0 px) at `mpp` um per px, (H, W, 3) as `shape_at` says.

        Read from the coarsest level that is at least as fine as `mpp`, then averaged over areas; transparent parts and everything
        outside the slide are white.

        Raises:
            SlideError: the pixels cannot be decoded (a truncated or damaged file).
            ValueError: the slide is closed or `mpp` is not a usable resolution.
        """
        if self._reader is None:
            raise ValueError(f"{self.path} is closed; read inside `with open_slide(...)`")
        if not MPP_RANGE[0] <= mpp <= 100 * MPP_RANGE[1]:
            raise ValueError(f"cannot read at {mpp} um per px; a microscope's resolution is meant, such as 0.5 or 1.0")
        height, width = self.shape_at(box, mpp)
        level = self.level_at(mpp)
        down = self.downsamples[level]
        strips = math.ceil(box.width * box.height / down**2 / MOST_PX)
        if strips <= 1 or height < 2 * strips:
            return _read_scaled(self._reader, level, box, height, width)
        edges = np.linspace(0, height, strips + 1).round().astype(int)  # a slide of one level does not fit in memory at once
        rows = (edges * box.height / height).round().astype(int)
        parts = [
            _read_scaled(self._reader, level, Box(box.x, box.y + int(a), box.width, int(b - a)), int(to - start), width)
            for a, b, start, to in zip(rows[:-1], rows[1:], edges[:-1], edges[1:], strict=True)
        ]
        return np.concatenate(parts)

    def thumbnail(self, mpp: float) -> RGB:
        """The whole slide at `mpp` um per px."""
        return self.read(Box(0, 0, *self.size), mpp)


def _read_scaled(reader: Reader, level: int, box: Box, height: int, width: int) -> RGB:
    down = reader.downsamples[level]
    raw = reader.read(level, box.x, box.y, max(1, round(box.width / down)), max(1, round(box.height / down)))
    if raw.shape[:2] == (height, width):
        return raw
    shrinks = raw.shape[0] >= height and raw.shape[1] >= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(raw, (width, height), interpolation=how), np.uint8)


def open_slide(path: str | Path, mpp: float | None = None, *, fast: bool = True) -> Slide:
    """Opens a whole-slide image in any format OpenSlide knows, an OME-TIFF, or a plain PNG, JPEG, BMP or TIFF image.

    Args:
        path: the file (for DICOM any file of the pyramid's folder; for images cut from a slide a mosaic, see
            `wsol.slides.mosaic`; a file of features, `wsol.slides.vectors`, is a white slide).
        mpp: um per px at level 0; takes the place of what the file says. NaN counts as not given.
        fast: JPEG tiles are decoded without OpenSlide where a probe finds the same pixels; False: OpenSlide reads everything.

    Raises:
        FileNotFoundError: there is no such file.
        SlideError: the file is damaged or of an unknown kind, or its mpp is missing, absurd, or differs between x and y.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no slide at {path}; check the `path` column of the sample sheet")
    reader = _reader(path, fast)
    try:
        given = mpp is not None and not math.isnan(mpp)
        slide = Slide(path, _checked_mpp(path, mpp if given else reader.mpp()), reader)
        if (area := slide.size[0] * slide.size[1] * slide.mpp**2) > MOST_UM2:
            raise SlideError(
                f"{path}: {slide.size[0]} x {slide.size[1]} px of {slide.mpp:g} um are {area / 1e8:.0f} cm2, and no glass slide "
                f"has over {MOST_UM2 / 1e8:.0f}; the file is damaged, or the `mpp` column of the sample sheet is wrong"
            )
        return slide
    except BaseException:
        reader.close()
        raise


def _reader(path: Path, fast: bool) -> Reader:
    """OME-TIFFs and large strips by tifffile, what OpenSlide knows by OpenSlide, mosaics, and the rest whole in memory."""
    if path.suffix == ".mosaic":
        from wsol.slides.mosaic import Mosaic

        return Mosaic(path)
    if path.suffix in (".h5", ".hdf5"):
        from wsol.slides.vectors import Blank

        return Blank(path)
    if (reader := _tiff_reader(path)) is not None:
        return reader
    try:
        if vendor := openslide.OpenSlide.detect_format(str(path)):
            from wsol.slides.pyramid import PLAIN_GRIDS, Pyramid

            if vendor in PLAIN_GRIDS:
                check_directories(path)
            return Pyramid(path, fast=fast)
    except openslide.OpenSlideError as error:
        raise damaged(path, error) from error
    if path.suffix.lower() not in _IMAGE_SUFFIXES:
        raise SlideError(
            f"{path}: no slide format that OpenSlide knows, and no image by its name ({', '.join(sorted(_IMAGE_SUFFIXES))}); "
            "if it should be a slide, the copy may be incomplete: compare its size with the source"
        )
    from wsol.slides.plain import Plain

    return Plain(path)


def _tiff_reader(path: Path) -> Reader | None:
    """For OME-TIFFs, of which OpenSlide sees the first level of the first channel, and for large images in strips."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    import tifffile

    from wsol.slides.tiffpages import NoCodec, TiffPages

    check_directories(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            planes = 1 if not tiff.is_ome else len(tiff.series[0].pages)
            ours = tiff.is_ome or (not page.is_tiled and page.imagewidth * page.imagelength > MOST_PX)
    except Exception:  # tifffile raises what it likes about damaged files; the other readers will tell
        return None
    try:
        return TiffPages(path) if ours else None
    except NoCodec:
        if planes > 1:
            raise
        return None  # OpenSlide or Pillow may know it


def _checked_mpp(path: Path, mpp: float | None) -> float:
    remedy = "set the `mpp` column of the sample sheet to its um per px (about 0.25 at 40x, 0.5 at 20x)"
    if mpp is None:
        raise SlideError(f"{path}: no resolution in the file; {remedy}")
    if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        raise SlideError(
            f"{path}: {mpp:g} um per px is no microscope's resolution ({MPP_RANGE[0]} to {MPP_RANGE[1]} expected); {remedy}"
        )
    return mpp
