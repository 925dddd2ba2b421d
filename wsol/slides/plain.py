"""Plain images: decoded once, whole."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from wsol.slides.reader import RGB, Deep, SlideError, agreed_mpp, damaged, image_on_white, pasted, resolution_mpp

_REMEDY = "convert it to a tiled TIFF (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg)"


class Plain:
    """A PNG, JPEG, BMP or TIFF image of one level, held in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the error comes at twice as many px
                with Image.open(path) as image:
                    if image.format == "PNG":
                        image.verify()  # the checksums, which decoding does not look at
                # Pillow, not cv2: cv2 returns the readable part of a truncated file without a word.
                with Image.open(path) as image:
                    tags = getattr(image, "tag_v2", {})  # of a TIFF
                    self._mpp = resolution_mpp(tags.get(296), *(float(tags.get(side, 0)) for side in (282, 283)))
                    self._pixels = image_on_white(image)
        except Image.DecompressionBombError as error:
            raise SlideError(f"{path}: too large to be decoded whole ({error}); {_REMEDY}") from error
        except Deep as error:
            raise SlideError(f"{path}: {error}") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise damaged(path, error) from error
        self.size = (self._pixels.shape[1], self._pixels.shape[0])
        self.downsamples: tuple[float, ...] = (1.0,)
        self.tiles: tuple[tuple[int, int] | None, ...] = (None,)

    def mpp(self) -> float | None:
        """Of a TIFF that speaks of centimeters; elsewhere a resolution is that of print."""
        return agreed_mpp(self._path, *self._mpp)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """See `Reader`."""
        return pasted(self._pixels, x, y, width, height)

    def close(self) -> None:
        """Lets the pixels go."""
        self._pixels = np.empty((0, 0, 3), np.uint8)
