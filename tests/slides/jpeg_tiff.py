"""Tiled JPEG TIFFs of every make, for tests: subsampling, shared tables, color space, missing and damaged tiles."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import simplejpeg
from PIL import Image

_SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "440": (1, 2), "411": (4, 1)}


def write_jpeg_tiff(
    path, rgb, *, tile=(64, 64), kind="420", shared=False, levels=1, down=2, missing=(), damage=None, description=None, mpp=0.5
):
    """Writes (H, W, 3) as a pyramid of JPEG tiles (height, width).

    kind: a color subsampling of YCbCr, "rgb" (no color transform), "gray", or "mislabeled" (YCbCr that is said to be RGB).
    shared: tables once per level, as Aperio does.
    missing: (level, tile) without bytes. damage: (tile, bytes -> bytes) for level 0.
    """
    data, link = bytearray(struct.pack("<2sHI", b"II", 42, 0)), 4
    for i in range(levels):
        level = rgb if i == 0 else cv2.resize(rgb, None, fx=down**-i, fy=down**-i, interpolation=cv2.INTER_AREA)
        streams, tables = _tiles(level, tile, kind), None
        if shared:
            tables = _split(streams[0])[0]
            streams = [_split(stream)[1] for stream in streams]
        streams = [b"" if (i, n) in missing else stream for n, stream in enumerate(streams)]
        if i == 0 and damage is not None:
            streams[damage[0]] = damage[1](streams[damage[0]])
        offsets = [len(data) + sum(map(len, streams[:n])) for n in range(len(streams))]
        data += b"".join(streams)
        tags = _tags(level.shape, tile, kind, mpp * down**i)
        tags |= {254: ("I", [int(i > 0)]), 324: ("I", offsets), 325: ("I", [len(stream) for stream in streams])}
        if tables:
            tags[347] = ("B", list(tables))
        if description and i == 0:
            tags[270] = ("s", [*description.encode(), 0])
        struct.pack_into("<I", data, link, len(data))
        link = _append_directory(data, tags)
    path.write_bytes(data)
    return path


def _tags(shape, tile, kind, mpp):
    samples = 1 if kind == "gray" else 3
    resolution = ("R", [round(1e7 / mpp), 1000])
    tags = {
        256: ("I", [shape[1]]),
        257: ("I", [shape[0]]),
        258: ("H", [8] * samples),
        259: ("H", [7]),
        262: ("H", [{"gray": 1, "rgb": 2, "mislabeled": 2}.get(kind, 6)]),
        277: ("H", [samples]),
        282: resolution,
        283: resolution,
        284: ("H", [1]),
        296: ("H", [3]),
        322: ("I", [tile[1]]),
        323: ("I", [tile[0]]),
    }
    return tags | ({530: ("H", list(_SUBSAMPLING[kind]))} if kind in _SUBSAMPLING else {})


def _append_directory(data, tags):
    types = {"B": (1, "B"), "s": (2, "B"), "H": (3, "H"), "I": (4, "I"), "R": (5, "I")}
    start = len(data)
    values, entries = b"", struct.pack("<H", len(tags))
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{types[kind][1]}", *numbers)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place = struct.pack("<I", start + 6 + 12 * len(tags) + len(values))
            values += packed
        entries += struct.pack("<HHI", tag, types[kind][0], len(numbers) // (2 if kind == "R" else 1)) + place
    data += entries + struct.pack("<I", 0) + values
    return start + 2 + 12 * len(tags)


def _tiles(rgb, tile, kind):
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)), mode="edge")
    return [
        _encode(np.ascontiguousarray(padded[top : top + tile[0], left : left + tile[1]]), kind)
        for top in range(0, height, tile[0])
        for left in range(0, width, tile[1])
    ]


def _encode(rgb, kind):
    if kind == "gray":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb[..., 1:2]), colorspace="GRAY", colorsubsampling="Gray")
    if kind != "rgb":
        return simplejpeg.encode_jpeg(rgb, colorsubsampling="420" if kind == "mislabeled" else kind)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=85, keep_rgb=True)
    # Without Adobe's mark, and with components 1, 2, 3 for R, G, B: by itself the stream passes for YCbCr.
    parts = [bytearray(part) for marker, part in _segments(file.getvalue()) if marker != 0xEE]
    for part in parts:
        if part[1] in (0xC0, 0xDA):
            first, step = (10, 3) if part[1] == 0xC0 else (5, 2)
            part[first : first + 3 * step : step] = bytes([1, 2, 3])
    return b"\xff\xd8" + b"".join(parts)


def _segments(stream):
    """(marker, bytes) up to the entropy-coded data, which comes with the last of them."""
    place = 2
    while True:
        marker, length = stream[place + 1], struct.unpack(">H", stream[place + 2 : place + 4])[0]
        if marker == 0xDA:
            yield marker, stream[place:]
            return
        yield marker, stream[place : place + 2 + length]
        place += 2 + length


def _without(stream, markers):
    return b"\xff\xd8" + b"".join(part for marker, part in _segments(stream) if marker not in markers)


def _split(stream):
    """(tables, the stream without them), both as TIFF wants them."""
    tables = b"".join(part for marker, part in _segments(stream) if marker in (0xDB, 0xC4))
    return b"\xff\xd8" + tables + b"\xff\xd9", _without(stream, {0xDB, 0xC4, 0xE0})
