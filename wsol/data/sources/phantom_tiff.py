"""A pyramidal TIFF of JPEG tiles, written by hand.

tifffile needs one more package to write JPEG, and what it can write without, deflate, makes files many times as large.
Classic TIFF 6.0 with the JPEG tags of Technical Note 2: each level is a directory of its own with complete JPEG streams as tiles.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wsol._files import atomic

_SHORT, _LONG, _RATIONAL, _ASCII = 3, 4, 5, 2
_FORMAT = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _ASCII: "B"}


def write_pyramid(rgb: npt.NDArray[np.uint8], path: Path, mpp: float, *, tile: int = 256, quality: int = 88) -> None:
    """Writes an RGB image (H, W, 3) with levels that shrink by 4 until one fits in a tile.

    Args:
        rgb: level 0.
        path: of the file; written beside it and renamed.
        mpp: um per px of level 0, kept in the resolution tags, where OpenSlide finds it.
        tile: side of a tile, a multiple of 16.
        quality: of the JPEG, 0 to 100, with halved color.
    """
    data, link = bytearray(struct.pack("<2sHI", b"II", 42, 0)), 4
    level, down = rgb, 1
    while True:
        tiles = []
        for jpeg in _jpeg_tiles(level, tile, quality):
            tiles.append((len(data), len(jpeg)))
            data += jpeg + b"\0" * (len(jpeg) % 2)
        struct.pack_into("<I", data, link, len(data))  # the directory before, or the header, points here
        link = _append_directory(data, _tags(level.shape, tiles, tile, mpp * down, reduced=down > 1))
        if max(level.shape[:2]) <= tile:
            break
        down *= 4
        shape = (max(1, round(rgb.shape[1] / down)), max(1, round(rgb.shape[0] / down)))
        level = np.asarray(cv2.resize(level, shape, interpolation=cv2.INTER_AREA), np.uint8)
    if len(data) >= 2**32:
        raise ValueError(f"{path}: {len(data)} bytes do not fit in a classic TIFF (4 GB); draw smaller slides")
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def _jpeg_tiles(rgb: npt.NDArray[np.uint8], tile: int, quality: int) -> Iterator[bytes]:
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            yield cv2.imencode(".jpg", padded[top : top + tile, left : left + tile, ::-1], options)[1].tobytes()


def _tags(
    shape: tuple[int, ...], tiles: list[tuple[int, int]], tile: int, mpp: float, *, reduced: bool
) -> list[tuple[int, int, list[int]]]:
    """(tag, type, values) in the order TIFF asks for."""
    resolution = [round(1e4 / mpp * 10_000), 10_000]  # px per cm
    return [
        (254, _LONG, [int(reduced)]),  # NewSubfileType: a smaller copy
        (256, _LONG, [shape[1]]),
        (257, _LONG, [shape[0]]),
        (258, _SHORT, [8, 8, 8]),
        (259, _SHORT, [7]),  # Compression: JPEG
        (262, _SHORT, [6]),  # PhotometricInterpretation: YCbCr
        (277, _SHORT, [3]),
        (282, _RATIONAL, resolution),
        (283, _RATIONAL, resolution),
        (284, _SHORT, [1]),
        (296, _SHORT, [3]),  # ResolutionUnit: centimeter
        (305, _ASCII, list(b"wsol phantom\0")),
        (322, _LONG, [tile]),
        (323, _LONG, [tile]),
        (324, _LONG, [offset for offset, _ in tiles]),
        (325, _LONG, [count for _, count in tiles]),
        (530, _SHORT, [2, 2]),  # YCbCrSubSampling
        (532, _RATIONAL, [v for pair in ((0, 1), (255, 1), (128, 1), (255, 1), (128, 1), (255, 1)) for v in pair]),
    ]


def _append_directory(data: bytearray, tags: list[tuple[int, int, list[int]]]) -> int:
    """Appends a directory and the values that do not fit in it; returns the place of the link to the next one."""
    start = len(data)
    after = start + 2 + 12 * len(tags) + 4
    entries, values = struct.pack("<H", len(tags)), b""
    for tag, kind, numbers in tags:
        packed = struct.pack(f"<{len(numbers)}{_FORMAT[kind]}", *numbers)
        count = len(numbers) // 2 if kind == _RATIONAL else len(numbers)
        if len(packed) > 4:
            place = struct.pack("<I", after + len(values))
            values += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, count) + place
    data += entries + struct.pack("<I", 0) + values
    return start + 2 + 12 * len(tags)
