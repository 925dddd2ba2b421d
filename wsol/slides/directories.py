"""The directories of a TIFF, walked by hand: whether the file reaches as far as they say."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsol.slides.reader import SlideError

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value by its type."""


def check_directories(path: Path) -> None:
    """Raises SlideError if a TIFF ends before one of its directories or of the values they point to.

    OpenSlide refuses a pyramid that was cut off, but Pillow would open what is left; and an OME-TIFF without its description
    passes for another kind.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16 or struct.unpack(order + "H", head[2:4])[0] not in (42, 43):
            return
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        number, entry, pointer = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
        (offset,) = struct.unpack(order + pointer, head[8:16] if big else head[4:8])
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            words = file.read(struct.calcsize(number))
            count = struct.unpack(order + number, words)[0] if len(words) == struct.calcsize(number) else 0
            length = min(count * struct.calcsize(order + entry), size)
            entries = file.read(length)
            following = file.read(struct.calcsize(pointer))
            if len(following) < struct.calcsize(pointer):
                raise _cut(path, f"a directory at byte {offset} is not whole", size)
            for tag, kind, values, place in struct.iter_unpack(order + entry, entries):
                end = place + values * _BYTES.get(kind, 0)
                if end - place > struct.calcsize(pointer) and end > size:
                    raise _cut(path, f"the value of tag {tag} reaches to byte {end}", size)
            (offset,) = struct.unpack(order + pointer, following)


def check_complete(path: Path, pages: Iterable[Any]) -> None:
    """Raises SlideError if a file ends before the last tile of its tifffile pages: better found now than when it is read."""
    parts = (zip(page.dataoffsets, page.databytecounts, strict=True) for page in pages)
    end = max((offset + count for part in parts for offset, count in part), default=0)
    if end > (size := path.stat().st_size):
        raise _cut(path, f"its tiles reach to byte {end}", size)


def _cut(path: Path, what: str, size: int) -> SlideError:
    return SlideError(f"{path}: truncated: {what}, the file ends at {size}; copy it again from the source")
