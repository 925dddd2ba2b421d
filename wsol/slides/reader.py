"""What the readers of the room share: their interface, their error, and pixels on white."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

RGB = npt.NDArray[np.uint8]


class SlideError(RuntimeError):
    """A slide that cannot be used. The message names the file, what is wrong, and the remedy."""


class Deep(ValueError):
    """Pixels of more than 8 bits per channel."""


class Reader(Protocol):
    """One open file.

    Attributes:
        size: (width, height) of level 0 in px.
        downsamples: of each level against level 0, first 1.0.
        tiles: (width, height) in px of the tiles each level is stored in; None where it is in one piece.
    """

    size: tuple[int, int]
    downsamples: tuple[float, ...]
    tiles: tuple[tuple[int, int] | None, ...]

    def mpp(self) -> float | None:
        """Of level 0, um per px as the file says; raises SlideError if it contradicts itself."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """(height, width, 3) of a level from (x, y) in level-0 px; white where there is nothing.

        Raises:
            SlideError: the pixels cannot be decoded.
        """

    def close(self) -> None:
        """Releases the file."""


def damaged(path: Path, error: BaseException) -> SlideError:
    """The error of a file whose bytes make no sense."""
    return SlideError(
        f"{path}: cannot be read ({error}); damaged, or cut off in copying: compare its size with the source and copy it again"
    )


def agreed_mpp(path: Path, x: float | None, y: float | None) -> float | None:
    """One um per px out of two, which may differ by a tenth."""
    if not x or not y:
        return x or y or None
    if not 0.9 < x / y < 1.11:
        raise SlideError(
            f"{path}: {x:g} um per px in x but {y:g} in y; set the `mpp` column of the sample sheet if one of them is right"
        )
    return (x + y) / 2


def resolution_mpp(unit: int | None, x: float, y: float) -> tuple[float | None, float | None]:
    """(x, y) in um per px of a TIFF's resolution if it is in px per cm (unit 3): inches are those of print, in a plain image."""
    return (1e4 / x, 1e4 / y) if unit == 3 and x > 0 and y > 0 else (None, None)


def image_on_white(image: Image.Image) -> RGB:
    """The 8-bit RGB pixels of a Pillow image of any mode, what is transparent on white."""
    stored = str([part[3] for part in getattr(image, "tile", ())])  # "RGB;16B": Pillow would take the upper half of 16 bits
    if image.mode in ("I", "F") or image.mode.startswith("I;") or ";16" in stored:
        raise Deep(f"8 bit per channel expected, got more (Pillow: {image.mode}, {stored}); convert the image to 8-bit RGB")
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"), np.uint8)
    return on_white(np.asarray(image.convert("RGBA"), np.uint8))


def on_white(rgba: RGB) -> RGB:
    """(h, w, 4) with straight alpha as (h, w, 3)."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    white = np.uint16(255) * (np.uint16(255) - alpha)
    return ((rgba[..., :3].astype(np.uint16) * alpha + white + 127) // 255).astype(np.uint8)


def pasted(pixels: RGB, x: int, y: int, width: int, height: int) -> RGB:
    """The part of `pixels` from (x, y), of `width` and `height`; white beyond its edges."""
    out = np.full((height, width, 3), 255, np.uint8)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, pixels.shape[1]), min(y + height, pixels.shape[0])
    if left < right and top < bottom:
        out[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
    return out
