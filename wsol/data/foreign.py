"""Maps that another tool made: read from its files, and laid on the grid of a mask.

A file is read as what it says: whole numbers of a picture are shares of their type's range, numbers of an array are themselves,
polygons are filled. What cannot be a map (a colored picture, a pickle, NaN) is an error, never a guess.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsol._names import closest
from wsol.data.foreign_polygons import BROKEN, Map, read_polygons
from wsol.slides import Box

ASPECT = 0.02
"""Heights and widths of map and mask may differ this much in ratio, as whole cells make them; more needs a frame."""

_RGB = "a colored heat map is not a map: export the values behind it (npy, or a gray 16-bit PNG or float TIFF)"


def read_foreign_map(path: str | Path, size: tuple[int, int] | None = None) -> Map:
    """One map of another tool, float32 (h, w), in the units of its file.

    NPY and NPZ: the numbers as they are (NPZ: its only array, the one called `map`, or the one that `file.npz#name` names).
    PNG and TIFF: 8- and 16-bit whole numbers divided by the largest of their type, floats as they are; of several TIFF pages
    the first, of a pyramid its finest level. GeoJSON as QuPath writes it: polygons in level-0 px, filled where the center of a
    px lies inside, holes left out, 0 elsewhere, the highest value where several overlap. The value of a polygon is the
    measurement that `file.geojson#name` names, else its measurement called probability, score or mean score, else its class
    where that is a number, else 1. `#name` may also be a class: then only its polygons count; it is needed where there are
    several classes.

    Args:
        path: the file; its ending says what it is.
        size: (H, W) of the image at level 0, in px; needed by GeoJSON.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged.
        ValueError: it holds no map: an unknown ending, a colored picture, a pickled, empty or wrongly shaped array, NaN or
            infinity; the message names the file and the remedy.
    """
    file, key = _named(path)
    kind = file.suffix.lower()
    if kind not in _READERS:
        raise ValueError(f"{file}: {closest('kind of map file', kind, _READERS)}; export the map as one of these")
    if key and kind not in (".npz", ".geojson", ".json"):
        raise ValueError(f"{file}: #{key} names an array of an npz or a measurement or class of a GeoJSON; leave it out here")
    if not file.is_file():
        raise FileNotFoundError(f"no map at {file}; check the folder of the maps and the cell of the sheet")
    return _READERS[kind](file, key, size)


def register(values: Map, mask_shape: tuple[int, int], *, frame: Box | None = None) -> Map:
    """A map of any resolution laid on the grid of a mask, float32 (H, W).

    Bilinear with align_corners=False, as `wsol.cams.finish` does it: a cell stands for the area it covers.

    Args:
        values: (h, w); scores, since what the map does not cover becomes 0.
        mask_shape: (H, W) of the mask, level-0 px.
        frame: the part of the image that the map covers, level-0 px; what lies beyond the image is cut off. None: all of it.

    Raises:
        ValueError: map and mask differ in shape by more than 2 percent and no frame says why; a frame beside the image.
    """
    import cv2

    height, width = mask_shape
    if frame is None:
        check_aspect(values.shape, mask_shape)
        frame = Box(0, 0, width, height)
    top, left = max(frame.y, 0), max(frame.x, 0)
    bottom, right = min(frame.y + frame.height, height), min(frame.x + frame.width, width)
    if top >= bottom or left >= right:
        raise ValueError(f"the map's frame {frame} lies beside the image of {height} x {width} px (H x W); check x and y")
    full = np.ascontiguousarray(values, np.float32)
    if full.shape != (frame.height, frame.width):
        full = np.asarray(cv2.resize(full, (frame.width, frame.height), interpolation=cv2.INTER_LINEAR), np.float32)
    laid = np.zeros((height, width), np.float32)
    laid[top:bottom, left:right] = full[top - frame.y : bottom - frame.y, left - frame.x : right - frame.x]
    return laid


def check_aspect(shape: Sequence[int], mask_shape: tuple[int, int]) -> None:
    """Raises ValueError where a map (h, w) and a mask (H, W) differ in shape by more than `ASPECT`."""
    ratio = shape[0] * mask_shape[1] / (shape[1] * mask_shape[0])
    apart = max(ratio, 1 / ratio) - 1
    if apart > ASPECT:
        raise ValueError(
            f"the map is {shape[0]} x {shape[1]} and the mask {mask_shape[0]} x {mask_shape[1]} (H x W): they differ in shape by "
            f"{100 * apart:.0f} %, so the map covers something else than the image; say which part with x, y, width, height "
            "(level-0 px)"
        )


def _named(path: str | Path) -> tuple[Path, str]:
    """The file, and what stands behind # where that is no part of the file's own name."""
    whole = Path(path)
    name, mark, key = whole.name.rpartition("#")
    if not mark or whole.is_file() or Path(name).suffix.lower() not in _READERS:
        return whole, ""
    return whole.with_name(name), key


def _plane(file: Path, values: npt.NDArray[Any]) -> Map:
    """The array as a map, or what is wrong with it."""
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.size == 0:
        raise ValueError(f"{file}: the map is empty, shape {values.shape}; export it again")
    if values.ndim != 2:
        why = _RGB if values.ndim == 3 and {3, 4} & {values.shape[0], values.shape[-1]} else "save the map of one class alone"
        raise ValueError(f"{file}: a map (h, w) expected, got shape {values.shape}; {why}")
    if values.dtype.kind not in "buif":
        raise ValueError(f"{file}: real numbers expected, got {values.dtype}; save the map as float32")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
        plane = np.ascontiguousarray(values, np.float32)
    wrong = int((~np.isfinite(plane)).sum())
    if wrong:
        raise ValueError(
            f"{file}: {wrong} of {plane.size} values are NaN or infinite; a broken map is not a blank one: write 0 where the "
            "tool saw nothing, and mend what made the others"
        )
    return plane


def _scaled(file: Path, values: npt.NDArray[Any], bits: int | None = None) -> Map:
    """A picture's whole numbers as shares of the range of their type (of `bits` where fewer are used), floats as they are."""
    if values.dtype.kind == "i" or (values.dtype.kind == "u" and values.dtype.itemsize > 2):
        raise ValueError(f"{file}: 8 or 16 bits without sign expected, got {values.dtype}, whose range is no scale; save floats")
    plane = _plane(file, values)
    return plane if values.dtype.kind not in "u" else plane / np.float32(2 ** (bits or 8 * values.dtype.itemsize) - 1)


def _npy(file: Path, key: str, size: tuple[int, int] | None) -> Map:
    return _plane(file, _loaded(file, lambda: np.load(file, allow_pickle=False)))


def _npz(file: Path, key: str, size: tuple[int, int] | None) -> Map:
    def load() -> npt.NDArray[Any]:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as archive:
            names = list(archive.files)
            chosen = key or (names[0] if len(names) == 1 else "map")
            if chosen not in names:
                message = (
                    closest("array", chosen, names) if key else f"several arrays ({', '.join(names)}) and none is called 'map'"
                )
                raise KeyError(f"{file}: {message}; name one: {file.name}#{names[0] if names else 'name'}")
            return np.asarray(archive[chosen])

    return _plane(file, _loaded(file, load))


def _loaded(file: Path, load: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """What `load` gives; refuses pickles, and says which file is damaged."""
    try:
        return load()
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise ValueError(
                f"{file}: holds pickled objects, which may run code when opened; save a plain array: np.save(file, "
                "map.astype('float32'))"
            ) from error
        raise RuntimeError(f"{file}: cannot be read ({error}); {BROKEN}") from error


def _picture(file: Path, key: str, size: tuple[int, int] | None) -> Map:
    """A PNG, or a TIFF whose compression only Pillow knows."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None  # guards web services, not one's own files
        with Image.open(file) as image:
            if image.mode not in ("1", "L", "F") and not image.mode.startswith("I"):
                raise ValueError(f"{file}: one gray channel expected, got Pillow mode {image.mode}; {_RGB}")
            values = np.array(image)
    except (OSError, SyntaxError, EOFError) as error:
        raise RuntimeError(f"{file}: cannot be read ({error}); {BROKEN}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return _scaled(file, values)


def _tiff(file: Path, key: str, size: tuple[int, int] | None) -> Map:
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first  # of a pyramid the finest level; the others are its SubIFDs, or later pages
            if page.photometric != tifffile.PHOTOMETRIC.MINISBLACK or page.samplesperpixel > 1:
                kind = f"{page.samplesperpixel} channel(s), photometric {getattr(page.photometric, 'name', page.photometric)}"
                raise TypeError(f"{file}: one channel where more is brighter (MINISBLACK) expected, got {kind}; {_RGB}")
            values, bits = page.asarray(), int(page.bitspersample)
    except TypeError as error:
        raise ValueError(str(error)) from None
    except (tifffile.TiffFileError, OSError, IndexError, ValueError, struct.error) as error:
        if "imagecodecs" in str(error):  # LZW and other compressions, which tifffile leaves to an extra package
            return _picture(file, key, size)
        raise RuntimeError(f"{file}: cannot be read ({error}); {BROKEN}") from error
    return _scaled(file, values, bits)


_READERS: dict[str, Callable[[Path, str, tuple[int, int] | None], Map]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".png": _picture,
    ".tif": _tiff,
    ".tiff": _tiff,
    ".geojson": read_polygons,
    ".json": read_polygons,
}

SUFFIXES = (*_READERS, ".ome.tif", ".ome.tiff")
"""What the file of a sample's map may end in."""
