"""A region from a mask file: PNG or TIFF, of the slide's size or smaller, read tile by tile where the file allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import tifffile
from PIL import Image

from wsol.slides.slide import Box

Ids = npt.NDArray[np.int64]
_BAND = 1 << 24
"""px of the mask that are read at once."""
_LOSSY = {6, 7, 33003, 33004, 33005, 34712, 50001, 50002}
"""TIFF compressions that change ids: JPEG, JPEG 2000, WebP and JPEG XL."""


class MaskRegion:
    """The px of a mask file that hold one of some ids."""

    def __init__(self, path: str | Path, size: tuple[int, int], values: Sequence[int] = ()) -> None:
        """Opens the mask.

        Tiled gray TIFFs, as ASAP writes them, are read part by part, whatever their size; other files are held whole.

        Args:
            path: PNG, TIFF or another lossless image of one channel.
            size: (width, height) of the slide, level-0 px; the mask has this size or is smaller by one factor.
            values: ids that are in the region; all above 0 when empty.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: the file is damaged.
            ValueError: a lossy or colored file, or one of another shape than the slide.
        """
        self.path, self.values = Path(path), list(values)
        if not self.path.is_file():
            raise FileNotFoundError(f"no mask at {self.path}")
        self._slide: Any = None
        self._whole: Any = None
        if tiled_mask(self.path):
            try:
                self._slide = openslide.OpenSlide(str(self.path))
            except openslide.OpenSlideError as error:
                raise _damaged(self.path, error) from error
            own = self._slide.dimensions
        else:
            self._whole = _whole(self.path)
            own = self._whole.shape[::-1]
        self.size, self._down = own, size[0] / own[0]
        if self._down < 1 or abs(size[1] / self._down - own[1]) > 1:
            raise ValueError(
                f"{self.path}: {own[0]} x {own[1]} px, the slide has {size[0]} x {size[1]} (width x height): a mask has its "
                "slide's size, or is smaller by the same factor both ways; export it again"
            )

    def raster(self, box: Box, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The px of a box whose center lies on a px of the region, bool (H, W); False beyond the slide."""
        rows, columns = (
            np.floor((at + (np.arange(count) + 0.5) * length / count) / self._down).astype(np.int64)
            for at, length, count in ((box.y, box.height, shape[0]), (box.x, box.width, shape[1]))
        )
        held = [(line >= 0) & (line < most) for line, most in ((rows, self.size[1]), (columns, self.size[0]))]
        found = np.zeros(shape, bool)
        if held[0].any() and held[1].any():
            rows, columns = rows[held[0]], columns[held[1]]
            width = int(columns[-1] + 1 - columns[0])
            parts = np.searchsorted(rows, np.arange(rows[0], rows[-1] + 1, max(1, _BAND // width))[1:])
            found[np.ix_(*held)] = np.concatenate([self._marked(band, columns) for band in np.split(rows, parts) if band.size])
        return found

    def _marked(self, rows: Any, columns: Any) -> Any:
        """Whether px of some rows and columns are in the region; both in order."""
        ids = self._read(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)[np.ix_(rows - rows[0], columns - columns[0])]
        return np.isin(ids, self.values) if self.values else ids > 0

    def shares(self, corners: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float64]:
        """Share of each square that is in the region, counted in px of level 0."""
        return np.array([self.raster(Box(x, y, side, side), (side, side)).mean() for x, y in corners.tolist()])

    def _read(self, top: int, left: int, bottom: int, right: int) -> Any:
        if self._whole is not None:
            return self._whole[top:bottom, left:right]
        try:
            part = self._slide.read_region((int(left), int(top)), 0, (int(right - left), int(bottom - top)))
        except openslide.OpenSlideError as error:
            raise _damaged(self.path, error) from error
        return np.asarray(part)[..., 0]


def _damaged(path: Path, error: Exception) -> RuntimeError:
    return RuntimeError(f"{path}: cannot be read ({error}); the mask is damaged or was cut off: copy it again from its source")


def tiled_mask(path: str | Path) -> bool:
    """Whether OpenSlide can read parts of a mask file and gives its ids: tiles of one gray channel of 8 bits, not lossy.

    Raises:
        ValueError: a lossy TIFF.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages.first
            if int(page.compression) in _LOSSY:
                raise ValueError(f"{path}: {page.compression.name} changes the ids of a mask; save it with LZW or deflate")
            gray = page.photometric == 1 and page.samplesperpixel == 1 and page.bitspersample == 8
            return bool(page.is_tiled and gray and openslide.OpenSlide.detect_format(str(path)))
    except tifffile.TiffFileError:
        return False


def _whole(path: Path) -> Any:
    limit = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(path) as image:
            if image.format in ("JPEG", "JPEG2000", "MPO", "WEBP"):
                raise ValueError(f"{path}: {image.format} changes the ids of a mask; save it as PNG or TIFF")
            ids = np.array(image)
    except (OSError, SyntaxError, EOFError) as error:
        raise _damaged(path, error) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if ids.ndim == 3:
        if (ids[..., :3] != ids[..., :1]).any():
            raise ValueError(f"{path}: a mask has one channel of ids; its channels differ: save the ids as gray or palette PNG")
        ids = ids[..., 0]
    return ids
