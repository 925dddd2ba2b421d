"""What a slide of 100,000 x 100,000 px costs in memory: measured in a process of its own, on a slide that is nearly all glass."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import zlib

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile

from wsol.cli.prepare import prepare
from wsol.cli.schema import Prepare
from wsol.data import MapReader
from wsol.models import build_localizer, save_checkpoint

SIDE, TILE = 100_000, 512
TISSUE = [*itertools.product(range(100, 106), range(100, 106)), (150, 20), (3, 190)]
"""(row, column) of the tiles of level 0 that hold tissue."""
MEMORY_MB = 512
LIBRARIES_MB = 650

SCRIPT = """
import sys
from pathlib import Path
from wsol.cli.localize import localize
from wsol.cli.heatmap import heatmap
from wsol.cli.schema import Heatmap

root = Path(sys.argv[1])
if sys.argv[2] == "localize":
    localize(
        {"methods": [{"id": m, "method": m, "options": {}} for m in ("cam", "grad-cam++")], "memory_mb": int(sys.argv[3])},
        model=root / "last.safetensors", manifest=root / "m.parquet", out=root / "maps.h5", split="test", fold=0,
        slide="large", tiles=root / "tiles.parquet", threads=1,
    )
else:
    heatmap(Heatmap(mpp=4.0), manifest=root / "m.parquet", masks=None, maps=root / "maps.h5", scores=root / "scores.json",
            out=root / "out" / "index.json")
with open("/proc/self/status") as file:  # getrusage would count what the process was forked from
    print(next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024)
"""


def write_large(path):
    """Three levels of tiles that are one of two, compressed once."""
    rng = np.random.default_rng(0)
    glass = np.full((TILE, TILE, 3), 243, np.uint8)
    stained = np.where(rng.random((TILE, TILE, 1)) < 0.3, [110, 70, 150], [225, 165, 205]).astype(np.uint8)
    packed = [zlib.compress(tile.tobytes(), 9) for tile in (glass, stained)]
    options = {"dtype": np.uint8, "tile": (TILE, TILE), "photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for down in (1, 4, 16):
            side = SIDE // down
            count = -(-side // TILE)
            marked = {(row // down, column // down) for row, column in TISSUE}
            tiles = (packed[(i, j) in marked] for i in range(count) for j in range(count))
            resolution = {"resolution": (1e4 / (0.25 * down),) * 2, "resolutionunit": "CENTIMETER"}
            tiff.write(tiles, shape=(side, side, 3), subfiletype=int(down > 1), **resolution, **options)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    write_large(root / "large.tiff")
    rows = [["large", "large.tiff", "tumor", "large", "test", 0.25]]
    for i, split in enumerate(("train", "train", "val", "val")):
        cv2.imwrite(str(root / f"{i}.png"), np.full((64, 64, 3), i, np.uint8))
        rows.append([f"s{i}", f"{i}.png", ("normal", "tumor")[i % 2], f"p{i}", split, 0.25])
    pd.DataFrame(rows, columns=["sample", "path", "label", "patient", "split", "mpp"]).to_csv(root / "sheet.csv", index=False)
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="t", source="slides", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    places = sorted({(row * TILE // 1024, column * TILE // 1024) for row, column in TISSUE})  # tiles of 256 px at 1 um per px
    table = pd.DataFrame([{"x": c * 1024, "y": r * 1024, "width": 1024, "height": 1024, "tissue": 1.0} for r, c in places])
    table.attrs = {"mpp": 1.0, "tile_px": 256, "side": 1024}
    table.to_parquet(root / "tiles.parquet")
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None, output_stride=16)
    save_checkpoint(net, root / "last.safetensors", {"classes": ["normal", "tumor"]})
    return root


def peak_mb(root, *what):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(root), *what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_the_peaks_are_the_memory_that_was_given_and_little_more(large):
    peak = peak_mb(large, "localize", str(MEMORY_MB))
    with MapReader(large / "maps.h5") as reader:
        stored = reader.read("grad-cam++", "large")
        assert reader.provenance["blocks"] > 3
        assert [d["from"] for d in reader.provenance["drawn"].values()] == ["cells", "slide"]
    assert stored.size == (SIDE, SIDE)
    assert stored.array.shape == (1563, 1563)
    assert stored.coverage.sum() == (3 * 3 + 2) * 16 * 16
    assert stored.drawn == "whole"
    cells_mb = stored.array.size * 4 / 2**20
    assert peak < LIBRARIES_MB + MEMORY_MB + 8 * cells_mb

    low, high = (float(v) for v in (stored.array.min(), stored.array.max()))
    scale = {"kind": "fitted", "low": min(low, 0.0), "high": max(high, 1e-6)}
    facts = {"samples": {}, "threshold": {"value": 0.5}, "scale": scale, "class": "tumor"}
    (large / "scores.json").write_text(json.dumps({"methods": {"cam": facts}}))
    assert peak_mb(large, "heatmap") < LIBRARIES_MB
    with openslide.OpenSlide(str(large / "out" / "cam.ome.tiff")) as slide:
        assert slide.dimensions == (6250, 6250)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(4.0)
