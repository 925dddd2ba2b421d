"""One slide or plain image behind one door: regions in level-0 px, pixels out at the resolution asked for, in um per px."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt
import openslide
from PIL import Image

RGB = npt.NDArray[np.uint8]

MPP_RANGE = (0.02, 50.0)
"""um per px a microscope can have made; outside it a file's value is a left-over print resolution such as 72 dpi."""

MOST_PX = 32 * 2**20
"""Level px decoded at once: 128 MB in OpenSlide's BGRA."""

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


class SlideError(RuntimeError):
    """A slide that cannot be used. The message names the file, what is wrong, and the remedy."""


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
    """

    def __init__(
        self,
        path: Path,
        mpp: float,
        size: tuple[int, int],
        downsamples: tuple[float, ...],
        read_level: Callable[[int, int, int, int, int], RGB],
        close: Callable[[], None],
    ) -> None:
        self.path = path
        self.mpp = mpp
        self.size = size
        self.downsamples = downsamples
        self._read_level = read_level
        self._close: Callable[[], None] | None = close

    def __repr__(self) -> str:
        return f"Slide({str(self.path)!r}, size={self.size}, mpp={self.mpp:g}, levels={len(self.downsamples)})"

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; reading afterwards raises ValueError. Closing twice is fine."""
        if self._close is not None:
            self._close()
        self._close = None

    def shape_at(self, box: Box, mpp: float) -> tuple[int, int]:
        """(H, W) of the array `read` returns: the box's um divided by `mpp`, rounded, at least 1."""
        scale = self.mpp / mpp
        return max(1, round(box.height * scale)), max(1, round(box.width * scale))

    def read(self, box: Box, mpp: float) -> RGB:
        """The pixels of `box` (level-0 px) at `mpp` um per px, (H, W, 3) as `shape_at` says.

        Read from the coarsest level that is at least as fine as `mpp`, then averaged over areas; transparent parts and everything
        outside the slide are white.

        Raises:
            SlideError: the pixels cannot be decoded (a truncated or damaged file).
            ValueError: the slide is closed or `mpp` is not a usable resolution.
        """
        if self._close is None:
            raise ValueError(f"{self.path} is closed; read inside `with open_slide(...)`")
        if not MPP_RANGE[0] <= mpp <= 100 * MPP_RANGE[1]:
            raise ValueError(f"cannot read at {mpp} um per px; a microscope's resolution is meant, such as 0.5 or 1.0")
        height, width = self.shape_at(box, mpp)
        # 1 % slack: real pyramids have levels at 4.0003 rather than 4.
        level = max((i for i, d in enumerate(self.downsamples) if d <= mpp / self.mpp * 1.01), default=0)
        down = self.downsamples[level]
        strips = math.ceil(box.width * box.height / down**2 / MOST_PX)
        if strips <= 1 or height < 2 * strips:
            return self._read_scaled(level, box, height, width)
        edges = np.linspace(0, height, strips + 1).round().astype(int)  # a slide of one level does not fit in memory at once
        rows = (edges * box.height / height).round().astype(int)
        parts = [
            self._read_scaled(level, Box(box.x, box.y + int(a), box.width, int(b - a)), int(to - start), width)
            for a, b, start, to in zip(rows[:-1], rows[1:], edges[:-1], edges[1:], strict=True)
        ]
        return np.concatenate(parts)

    def _read_scaled(self, level: int, box: Box, height: int, width: int) -> RGB:
        down = self.downsamples[level]
        raw = self._read_level(level, box.x, box.y, max(1, round(box.width / down)), max(1, round(box.height / down)))
        if raw.shape[:2] == (height, width):
            return raw
        shrinks = raw.shape[0] >= height and raw.shape[1] >= width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(raw, (width, height), interpolation=how), np.uint8)

    def thumbnail(self, mpp: float) -> RGB:
        """The whole slide at `mpp` um per px."""
        return self.read(Box(0, 0, *self.size), mpp)


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Opens a whole-slide image with OpenSlide, or a plain PNG, JPEG, BMP or TIFF image.

    Args:
        path: the file (for DICOM any file of the pyramid's folder).
        mpp: um per px at level 0; takes the place of what the file says. NaN counts as not given.

    Raises:
        FileNotFoundError: there is no such file.
        SlideError: the file is damaged or of an unknown kind, or its mpp is missing, absurd, or differs between x and y.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no slide at {path}; check the `path` column of the sample sheet")
    given = None if mpp is None or math.isnan(mpp) else float(mpp)
    try:
        kind = openslide.OpenSlide.detect_format(str(path))
        handle = openslide.OpenSlide(str(path)) if kind else None
    except openslide.OpenSlideError as error:
        raise SlideError(_damaged(path, error)) from error
    if handle is None:
        return _open_image(path, given)
    try:
        return _open_pyramid(path, handle, given)
    except BaseException:
        handle.close()
        raise


def _open_pyramid(path: Path, handle: openslide.OpenSlide, mpp: float | None) -> Slide:
    _check_complete(path)
    mpp = _checked_mpp(path, mpp if mpp is not None else _file_mpp(path, handle))
    downsamples = tuple(float(d) for d in handle.level_downsamples)

    def read_level(level: int, x: int, y: int, width: int, height: int) -> RGB:
        try:
            return _on_white(handle.read_region((x, y), level, (width, height)))
        except openslide.OpenSlideError as error:
            raise SlideError(_damaged(path, error)) from error

    return Slide(path, mpp, handle.dimensions, downsamples, read_level, handle.close)


def _open_image(path: Path, mpp: float | None) -> Slide:
    if path.suffix.lower() not in _IMAGE_SUFFIXES:
        raise SlideError(
            f"{path}: no slide format that OpenSlide knows, and no image by its name ({', '.join(sorted(_IMAGE_SUFFIXES))}); "
            "if it should be a slide, the copy may be incomplete: compare its size with the source"
        )
    _check_directories(path)
    try:
        with Image.open(path) as image:  # Pillow, not cv2: cv2 returns the readable part of a truncated file without a word
            pixels = _on_white(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SlideError(_damaged(path, error)) from error
    mpp = _checked_mpp(path, mpp)
    height, width = pixels.shape[:2]

    def read_level(level: int, x: int, y: int, box_width: int, box_height: int) -> RGB:
        out = np.full((box_height, box_width, 3), 255, np.uint8)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + box_width, width), min(y + box_height, height)
        if left < right and top < bottom:
            out[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
        return out

    return Slide(path, mpp, (width, height), (1.0,), read_level, lambda: None)


def _on_white(image: Image.Image) -> RGB:
    if image.mode in ("I;16", "I", "F"):
        raise ValueError(f"8 bit per channel expected, got Pillow mode {image.mode}; convert the image to 8-bit RGB")
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"), np.uint8)
    rgba = np.asarray(image.convert("RGBA"), np.uint8)
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    white = np.uint16(255) * (np.uint16(255) - alpha)
    return ((rgba[..., :3].astype(np.uint16) * alpha + white + 127) // 255).astype(np.uint8)


def _file_mpp(path: Path, handle: openslide.OpenSlide) -> float | None:
    words = [handle.properties.get(name) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)]
    x, y = (float(word) if word else None for word in words)
    if x is None or y is None:
        return x if y is None else y
    if not 0.9 < x / y < 1.11:
        raise SlideError(
            f"{path}: {x:g} um per px in x but {y:g} in y; set the `mpp` column of the sample sheet if one of them is right"
        )
    return (x + y) / 2


def _checked_mpp(path: Path, mpp: float | None) -> float:
    remedy = "set the `mpp` column of the sample sheet to its um per px (about 0.25 at 40x, 0.5 at 20x)"
    if mpp is None:
        raise SlideError(f"{path}: no resolution in the file; {remedy}")
    if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        raise SlideError(
            f"{path}: {mpp:g} um per px is no microscope's resolution ({MPP_RANGE[0]} to {MPP_RANGE[1]} expected); {remedy}"
        )
    return mpp


def _check_complete(path: Path) -> None:
    """A TIFF names the place of each tile: a file that ends before the last one was cut off in copying. Better found now."""
    import tifffile

    if not path.is_file():
        return
    try:
        with tifffile.TiffFile(path) as tiff:
            parts = (zip(page.dataoffsets, page.databytecounts, strict=True) for page in tiff.pages)
            end = max((offset + count for part in parts for offset, count in part), default=0)
    except (tifffile.TiffFileError, ValueError, AttributeError):
        return  # no TIFF, or one that only OpenSlide understands: reading will tell
    actual = path.stat().st_size
    if end > actual:
        raise SlideError(
            f"{path}: truncated: its tiles reach to byte {end}, the file ends at {actual}; copy it again from the source"
        )


def _check_directories(path: Path) -> None:
    """Walk a TIFF's chain of directories: OpenSlide refuses a pyramid that was cut off, Pillow would open what is left."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16 or struct.unpack(order + "H", head[2:4])[0] not in (42, 43):
            return
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        count, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
        (offset,) = struct.unpack(order + pointer, head[8:16] if big else head[4:8])
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            number = file.read(struct.calcsize(count))
            if len(number) == struct.calcsize(count):
                file.seek(struct.unpack(order + count, number)[0] * entry, 1)
            following = file.read(struct.calcsize(pointer))
            if len(following) < struct.calcsize(pointer):
                raise SlideError(
                    f"{path}: truncated: a directory at byte {offset} is not whole, the file ends at {size}; "
                    "copy it again from the source"
                )
            (offset,) = struct.unpack(order + pointer, following)


def _damaged(path: Path, error: BaseException) -> str:
    return f"{path}: cannot be read ({error}); damaged, or cut off in copying: compare its size with the source and copy it again"
