"""Small slides made on the spot."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile


def write_slide(path, rgb, mpp=0.5, levels=1):
    """A tiled TIFF with `levels` halving levels; no resolution tags when mpp is None."""
    options = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as tiff:
        for i in range(levels):
            extra = {} if mpp is None else {"resolution": (1e4 / mpp / 2**i,) * 2, "resolutionunit": "CENTIMETER"}
            level = rgb if i == 0 else cv2.resize(rgb, None, fx=0.5**i, fy=0.5**i, interpolation=cv2.INTER_AREA)
            tiff.write(level, subfiletype=1 if i else 0, metadata=None, **options, **extra)
    return path


@pytest.fixture(scope="session")
def stained():
    """Glass (768 x 1024 px at 0.5 um) with one 400 x 500 px block of noisy pink and purple at (200, 100)."""
    rng = np.random.default_rng(0)
    rgb = np.full((768, 1024, 3), 243, np.uint8)
    block = np.where(rng.random((400, 500, 1)) < 0.3, [110, 70, 150], [225, 165, 205])
    rgb[100:500, 200:700] = np.clip(block + rng.normal(0, 6, (400, 500, 3)), 0, 255)
    return rgb


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory, stained):
    return write_slide(tmp_path_factory.mktemp("slides") / "block.tiff", stained, levels=3)
