"""Plain images: decoded once, whole."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from wsol.slides.reader import RGB, SlideError, damaged, image_on_white, pasted

_REMEDY = "convert it to a tiled TIFF (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg)"


class Plain:
    """A PNG, JPEG, BMP or TIFF image of one level, held in memory."""

    def __init__(self, path: Path) -> None:
        _check_directories(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the error comes at twice as many px
                # Pillow, not cv2: cv2 returns the readable part of a truncated file without a word.
                with Image.open(path) as image:
                    self._pixels = image_on_white(image)
        except Image.DecompressionBombError as error:
            raise SlideError(f"{path}: too large to be decoded whole ({error}); {_REMEDY}") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise damaged(path, error) from error
        self.size = (self._pixels.shape[1], self._pixels.shape[0])
        self.downsamples: tuple[float, ...] = (1.0,)
        self.tiles: tuple[tuple[int, int] | None, ...] = (None,)

    def mpp(self) -> None:
        """Not known: resolutions in plain images are those of print."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """See `Reader`."""
        return pasted(self._pixels, x, y, width, height)

    def close(self) -> None:
        """Lets the pixels go."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


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
