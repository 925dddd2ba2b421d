"""Colors of DICOM slides whose header and pixels disagree.

OpenSlide decodes JPEG frames by the header's PhotometricInterpretation. Where it says RGB of frames that were compressed as YCbCr
(a known mistake of converters), OpenSlide hands out Y, Cb and Cr as if they were red, green and blue.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np

from wsol.slides.reader import RGB

_ITEM, _FRAMES = b"\xfe\xff\x00\xe0", b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
"""An item; and the pixel data element of compressed frames, which is followed by items: a table of offsets, then the frames."""


def mislabeled(path: Path, photometric: str | None) -> bool:
    """Whether the header says RGB and the first frame is surely YCbCr.

    Surely: its JPEG bears the mark of JFIF, which knows no RGB, or Adobe's of the transform, or coarser color than brightness.

    Args:
        path: of one file of the pyramid.
        photometric: the header's PhotometricInterpretation.
    """
    if photometric != "RGB":
        return False
    import simplejpeg

    frame = _first_frame(path)
    try:
        _, _, space, subsampling = simplejpeg.decode_jpeg_header(frame)
    except ValueError:
        return False  # no JPEG
    head = frame[: frame.find(b"\xff\xda")]
    return bool(space == "YCbCr" and (subsampling != "444" or b"JFIF\0" in head or b"Adobe" in head))


def _first_frame(path: Path) -> bytes:
    """Its compressed bytes; empty where there is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(_FRAMES) + len(_FRAMES)
        for item in range(2):
            if place < len(_FRAMES) or data[place : place + 4] != _ITEM:
                return b""
            (length,) = struct.unpack("<I", data[place + 4 : place + 8])
            place += 8
            if item == 0:
                place += length
        return data[place : place + length]


def rgb_of_ybr(ybr: RGB) -> RGB:
    """(h, w, 3) of Y, Cb, Cr as RGB, by the integer arithmetic of libjpeg (JFIF 1.02: full range, Rec. 601)."""
    chroma = np.arange(-128, 128)
    red, blue = ((round(weight * 65536) * chroma + 32768 >> 16).astype(np.int16) for weight in (1.402, 1.772))
    of_cb, of_cr = (-round(weight * 65536) * chroma for weight in (0.34414, 0.71414))
    y, cb, cr = ybr[..., 0].astype(np.int16), ybr[..., 1], ybr[..., 2]
    green = (of_cb[cb] + of_cr[cr] + 32768 >> 16).astype(np.int16)
    return np.stack([y + red[cr], y + green, y + blue[cb]], axis=-1).clip(0, 255).astype(np.uint8)
