"""Facts of single files for an audit: hashes of images, ids of masks, ranges of maps. Bounded: few arrays are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from wsol.evaluation import MapFacts, MaskFacts

T = TypeVar("T")

LARGE = 10**8
"""Pixels of a mask from which on its ids are not read: whole slides at level 0."""

_IDS = 16


def spread(values: Sequence[T], number: int) -> list[T]:
    """At most `number` of the values, evenly spread, in their order."""
    if len(values) <= number:
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, number).round().astype(int)] if number > 0 else []


def digests(paths: Iterable[str]) -> dict[str, str]:
    """Path -> hash of the content, only of files whose size in bytes some other file shares: the others have no twin."""
    from wsol.tracking import file_hash

    sizes: dict[int, list[str]] = {}
    for path in sorted(paths):
        if path and Path(path).is_file():
            sizes.setdefault(Path(path).stat().st_size, []).append(path)
    return {path: file_hash(path) for group in sizes.values() if len(group) > 1 for path in group}


def map_facts(values: npt.NDArray[np.float32], **at: Any) -> MapFacts:
    """Facts of one map, (h, w) or its drawn cells (n,); at least one."""
    from wsol.evaluation import MapFacts

    bad = int((~np.isfinite(values)).sum())
    if bad:
        return MapFacts(**at, problem=f"{bad} of {values.size} values are NaN or infinite")
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=8)
    digest.update(str(values.shape).encode())
    return MapFacts(**at, low=float(values.min()), high=float(values.max()), digest=digest.hexdigest())


def mask_facts(sample: str, path: Path | None, foreground: tuple[int, ...], opened: bool = True) -> MaskFacts:
    """Facts of one mask.

    Args:
        sample: its name.
        path: its file; None for one that is declared empty.
        foreground: ids that are read as foreground; () for all above 0.
        opened: whether its ids are read, too, where it is not too large.
    """
    from wsol.data import POLYGONS
    from wsol.data.pixels import read_mask
    from wsol.evaluation import MaskFacts

    if path is None:
        return MaskFacts(sample, kind="empty")
    if not path.is_file():
        return MaskFacts(sample, problem=f"no file {path}")
    if not opened or path.suffix.lower() in POLYGONS or _too_large(path):
        return MaskFacts(sample, foreground=foreground)
    try:
        values = read_mask(path)
    except (RuntimeError, ValueError) as error:
        return MaskFacts(sample, problem=str(error))
    values = values.astype(np.uint8) * 255 if values.dtype == np.bool_ else values
    ids = np.unique(values)
    share = float((np.isin(values, foreground) if foreground else values > 0).mean())
    return MaskFacts(sample, ids=tuple(int(i) for i in ids[:_IDS]), foreground=foreground, share=share)


def _too_large(path: Path) -> bool:
    """Whether a mask is of a whole slide, by its header; a file that is no image is left to the reader."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None  # only the header is read
        with Image.open(path) as image:
            return image.width * image.height > LARGE
    except (OSError, SyntaxError):
        return False
    finally:
        Image.MAX_IMAGE_PIXELS = limit
