"""The directories of a TIFF, walked by hand: whether they fit each other and the file, before a library trusts them.

OpenSlide and libtiff allocate what a directory asks for, tifffile fills in what it lacks, and Pillow opens what is left.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from wsol.slides.reader import SlideError

_TYPES = {
    1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u8", 6: "i1", 7: "V1", 8: "i2", 9: "i4", 10: "i8", 11: "f4", 12: "f8", 13: "u4",
    16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
"""Of a value, as numpy has it."""
_WHOLE = (3, 4, 13, 16, 18)
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOR, _SAMPLES, _ROWS, _PLANES, _EXTRA = 256, 257, 258, 259, 262, 277, 278, 284, 338
_STRIPS, _TILE, _TILES, _CHILDREN, _DEPTH = (273, 279), (322, 323), (324, 325), 330, 32997
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Samples per px by color space, at least."""
MOST_PX = 2**28
"""Of a tile: libraries allocate it whole."""


class _Entry(NamedTuple):
    """A tag of a directory: type, number of values, and the field that holds them or their place in the file."""

    kind: int
    values: int
    field: bytes


class _Layout(NamedTuple):
    """How numbers are written: byte order, and the formats of a count of entries, of an entry and of a place."""

    order: Literal["<", ">"]
    number: str
    entry: str
    place: str


_Directory = dict[int, _Entry]
_Numbers = npt.NDArray[np.int64]


def check_directories(path: Path) -> None:
    """Raises SlideError if the directories of a TIFF are damaged; does nothing to files that are none.

    The file must reach to the end of each directory, of the values that it points to, and of each tile or strip; there must be
    as many of these as the image is large, and none may lie where a directory lies.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        layout = _layout(head)
        if layout is None:
            return
        found = dict(_walk(path, file, head, layout, size))
        blocks = np.array([(0, 8), *((at, at + _length(layout, len(entries))) for at, entries in found.items())], np.int64)
        for entries in found.values():
            _check_parts(path, file, layout, entries, blocks, size)


def _layout(head: bytes) -> _Layout | None:
    order: Literal["<", ">"] = ">" if head[:2] == b"MM" else "<"
    version = struct.unpack(order + "H", head[2:4])[0] if head[:2] in (b"II", b"MM") and len(head) == 16 else 0
    classic = _Layout(order, "H", "HHI4s", "I")
    return {42: classic, 43: classic._replace(number="Q", entry="HHQ8s", place="Q")}.get(version)


def _length(layout: _Layout, count: int) -> int:
    order, number, entry, place = layout
    return struct.calcsize(order + number) + count * struct.calcsize(order + entry) + struct.calcsize(order + place)


def _walk(path: Path, file: BinaryIO, head: bytes, layout: _Layout, size: int) -> Iterator[tuple[int, _Directory]]:
    """(place, entries) of each directory, those that others point to as well."""
    order, number, entry, place = layout
    (start,) = struct.unpack(order + place, head[8:16] if place == "Q" else head[4:8])
    waiting, seen = [start], {0}
    while waiting:
        if (at := waiting.pop()) in seen:
            continue
        seen.add(at)
        file.seek(min(at, size))
        words = file.read(struct.calcsize(number))
        (count,) = struct.unpack(order + number, words) if len(words) == struct.calcsize(number) else (0,)
        block = file.read(min(count * struct.calcsize(order + entry), size))
        following = file.read(struct.calcsize(place))
        if len(following) < struct.calcsize(place):
            raise _cut(path, f"a directory at byte {at} is not whole", size)
        entries = {tag: _Entry(*rest) for tag, *rest in struct.iter_unpack(order + entry, block)}
        for tag, one in entries.items():
            end = _end(layout, one)
            if end > size:
                raise _cut(path, f"the value of tag {tag} reaches to byte {end}", size)
        yield at, entries
        children = _numbers(path, file, layout, entries, _CHILDREN).tolist() if _CHILDREN in entries else []
        waiting += [*children, *struct.unpack(order + place, following)]


def _end(layout: _Layout, entry: _Entry) -> int:
    """Where the values of an entry end, if they are not in it; 0 for a type that is not known."""
    length = entry.values * np.dtype(_TYPES.get(entry.kind, "V0")).itemsize
    return length + struct.unpack(layout.order + layout.place, entry.field)[0] if length > len(entry.field) else 0


def _numbers(path: Path, file: BinaryIO, layout: _Layout, entries: _Directory, tag: int, default: int | None = None) -> _Numbers:
    """The values of a tag, (n,).

    Raises:
        SlideError: there are none and no default, or they are no whole numbers.
    """
    if tag not in entries and default is not None:
        return np.array([default], np.int64)
    kind, count, field = entries.get(tag, _Entry(0, 0, b""))
    if kind not in _WHOLE or not count:
        raise _damaged(path, f"tag {tag} should hold whole numbers and does not")
    dtype = np.dtype(_TYPES[kind]).newbyteorder(layout.order)
    length = count * dtype.itemsize
    if length > len(field):
        file.seek(struct.unpack(layout.order + layout.place, field)[0])
        field = file.read(length)
    return np.frombuffer(field, dtype, count).astype(np.int64)


def _check_parts(
    path: Path, file: BinaryIO, layout: _Layout, entries: _Directory, blocks: npt.NDArray[np.int64], size: int
) -> None:
    """The tiles or strips of one directory against its size, the file and the `blocks` (start, end) of all directories."""

    def one(tag: int, default: int | None = None) -> int:
        return int(_numbers(path, file, layout, entries, tag, default)[0])

    tiled = any(tag in entries for tag in (*_TILE, *_TILES))
    if _DEPTH in entries or not (tiled or _STRIPS[0] in entries):
        return
    color, samples, planar = one(_COLOR, 1), one(_SAMPLES, 1), one(_PLANES, 1)
    extra = entries[_EXTRA].values if _EXTRA in entries else 0
    gray = _COLORS.get(color) == 1 and samples - extra == 3
    if planar not in (1, 2) or samples < _COLORS.get(color, 1) or gray:
        raise _damaged(path, f"{samples} samples per px in color space {color}, arranged in way {planar}")
    width, height = one(_WIDTH), one(_HEIGHT)
    part = (one(_TILE[0]), one(_TILE[1])) if tiled else (width, min(height, one(_ROWS, height)))
    if min(width, height, *part) < 1 or (tiled and part[0] * part[1] > MOST_PX):
        raise _damaged(path, f"an image of {width} x {height} px in {'tiles' if tiled else 'strips'} of {part[0]} x {part[1]}")
    planes = samples if planar == 2 else 1
    parts = -(-width // part[0]) * -(-height // part[1]) * planes
    offsets, counts = (_numbers(path, file, layout, entries, tag) for tag in (_TILES if tiled else _STRIPS))
    if not parts == len(offsets) == len(counts):
        raise _damaged(
            path,
            f"an image of {width} x {height} px has {parts} {'tiles' if tiled else 'strips'} of {part[0]} x {part[1]}, but "
            f"{len(offsets)} places and {len(counts)} lengths are listed",
        )
    if max(offsets.max(), counts.max()) > size or min(offsets.min(), counts.min()) < 0:  # negative: of 63 bits and more
        raise _cut(path, f"its tiles begin at up to byte {offsets.max()} and have up to {counts.max()} bytes", size)
    offsets, ends = offsets[counts > 0], (offsets + counts)[counts > 0]
    if len(ends) and ends.max() > size:
        raise _cut(path, f"its tiles reach to byte {ends.max()}", size)
    if any(((offsets < end) & (start < ends)).any() for start, end in blocks):
        raise _damaged(path, "a tile or strip is said to lie where a directory lies")
    if one(_COMPRESSION, 1) == 1 and one(_BITS, 1) == 8:
        row, counts = samples // planes * part[0], counts[counts > 0]
        most = len(counts) * row * part[1]  # a last strip may be stored as if it were full
        if not (most if tiled else row * height * planes) <= counts.sum() <= most + len(counts):  # or to an even length
            raise _damaged(path, f"{width} x {height} px in {counts.sum()} bytes without compression")


def check_complete(path: Path, pages: Iterable[Any]) -> None:
    """Raises SlideError if a file ends before the last tile of its tifffile pages: better found now than when it is read."""
    parts = (zip(page.dataoffsets, page.databytecounts, strict=True) for page in pages)
    end = max((offset + count for part in parts for offset, count in part), default=0)
    if end > (size := path.stat().st_size):
        raise _cut(path, f"its tiles reach to byte {end}", size)


def _cut(path: Path, what: str, size: int) -> SlideError:
    return SlideError(f"{path}: truncated: {what}, the file ends at {size}; copy it again from the source")


def _damaged(path: Path, what: str) -> SlideError:
    return SlideError(f"{path}: damaged: {what}; copy it again from the source")
