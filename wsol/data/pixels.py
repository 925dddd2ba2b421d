"""Images and masks from disk. Pillow rather than cv2: cv2 returns the readable part of a truncated file without a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """An image as RGB uint8 (H, W, 3); gray is repeated, transparent parts are white.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged or truncated; the message names it and the remedy.
        ValueError: more than 8 bits per channel.
    """
    with _opened(path) as image:
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ValueError(f"{path}: 8 bits per channel expected, got Pillow mode {image.mode}; convert the image to 8-bit RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return np.array(image.convert("RGB"), np.uint8)


def image_shape(path: str | Path) -> tuple[int, int]:
    """(H, W) of an image, from its header.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: it is no image.
    """
    with _opened(path) as image:
        return image.height, image.width


def read_mask(path: str | Path) -> npt.NDArray[np.int64 | np.uint8 | np.bool_]:
    """The ids of a mask, integers or bool (H, W); of a palette image the indices, not the colors.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged or truncated.
        ValueError: a lossy format, or several channels that differ.
    """
    with _opened(path, large=True) as image:
        if image.format in ("JPEG", "JPEG2000", "MPO", "WEBP"):
            raise ValueError(f"{path}: {image.format} changes the ids of a mask; save it as PNG, BMP or TIFF")
        ids = np.array(image)
    if ids.ndim == 3:
        colors = ids[..., : 1 if ids.shape[2] == 2 else 3]  # alpha says nothing about ids
        if (colors != colors[..., :1]).any():
            raise ValueError(
                f"{path}: a mask has one channel of ids; its channels differ, so it may be a colored drawing. Save the ids as "
                f"gray or palette PNG"
            )
        ids = np.ascontiguousarray(colors[..., 0])
    if ids.dtype.kind == "f":
        if (ids != np.round(ids)).any():
            raise ValueError(f"{path}: a mask holds whole ids; got fractions")
        ids = ids.astype(np.int64)
    return ids


@contextmanager
def _opened(path: str | Path, *, large: bool = False) -> Iterator[Image.Image]:
    """The opened image; `large` lifts Pillow's limit on pixels, which guards web services, not the masks of one's own slides."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no image at {path}; check the path in the sample sheet or the dataset folder")
    limit = Image.MAX_IMAGE_PIXELS
    try:
        if large:
            Image.MAX_IMAGE_PIXELS = None
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise RuntimeError(
            f"{path}: cannot be read ({error}); the file is damaged or was cut off in copying: copy it again from the source"
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
