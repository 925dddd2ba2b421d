"""Slides cut into tiles, for whatever learns from slide labels."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsol.cli.config import Prepare
from wsol.cli.prepare import prepare

LABELS = {"train": [0, 0, 0, 0, 0, 0, 1, 1], "val": [0, 1], "test": [0, 1]}


@pytest.fixture(scope="session")
def tiled(tmp_path_factory):
    """The same pictures as images and as slides of twelve tiles each: six normal and two tumors to train on."""
    root = tmp_path_factory.mktemp("tiled")
    rows = []
    for split, labels in LABELS.items():
        for i, label in enumerate(labels):
            name = f"{split}{i}"
            pixels = np.random.default_rng(len(rows)).integers(0, 255, (96, 128, 3), np.uint8)
            Image.fromarray(pixels).save(root / f"{name}.png")
            rows.append([name, f"{name}.png", ["normal", "tumor"][label], f"p{len(rows)}", split, 1.0])
            y, x = (v.ravel() * 32 for v in np.mgrid[:3, :4])
            table = pd.DataFrame({"x": x, "y": y, "width": 32, "height": 32, "tissue": 1.0})
            table.attrs = {"mpp": 1.0, "tile_px": 32, "side": 32.0}
            (root / "tiles").mkdir(exist_ok=True)
            table.to_parquet(root / "tiles" / f"{name}.parquet")
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "split", "mpp"], *rows])
    for source in ("images", "slides"):
        options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
        prepare(
            Prepare(name="tiny", source=source, options=options), manifest=root / f"{source}.parquet", masks=root / "k.parquet"
        )
    return root
