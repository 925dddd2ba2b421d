"""A study on tiles that were cut before: the same tiles and maps as on the slides that they were cut from."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from wsol.cli.config import Prepare, Tile, load_config
from wsol.cli.localize import localize
from wsol.cli.plan import plan, source_options
from wsol.cli.prepare import prepare
from wsol.cli.tile import tile
from wsol.data import MapReader
from wsol.models import build_localizer, save_checkpoint

SETTINGS = Tile(mpp=1.0, tile_px=64, min_tissue=0.05, tissue_mpp=4.0)


@pytest.fixture
def studies(tmp_path):
    """Six slides of 256 x 192 px, whole and cut into 48 px tiles whose names say where they lie."""
    rows = {"slides": [], "tiles": []}
    for i, split in enumerate(["train"] * 2 + ["val"] * 2 + ["test"] * 2):
        generator = np.random.default_rng(i)
        pixels = np.clip(generator.normal((215, 150, 195), 25, (192, 256, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"s{i}.png")
        folder = tmp_path / f"cut{i}"
        folder.mkdir()
        for y in range(0, 192, 48):
            for x in range(0, 256, 48):
                Image.fromarray(pixels[y : y + 48, x : x + 48]).save(folder / f"t_{x}_{y}.png")
        told = [["normal", "tumor"][i % 2], f"p{i}", split, 1.0]
        rows["slides"].append([f"s{i}", f"s{i}.png", *told])
        rows["tiles"].append([f"s{i}", f"cut{i}", *told])
    for source, listed in rows.items():
        with open(tmp_path / f"{source}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["sample", "path", "label", "patient", "split", "mpp"], *listed])
        options = {"sheet": str(tmp_path / f"{source}.csv"), "classes": ["normal", "tumor"]}
        if source == "tiles":
            options |= {"pattern": r"t_(?P<x>\d+)_(?P<y>\d+)\.png", "out": str(tmp_path / "mosaics")}
        prepare(
            Prepare(name="tiny", source=source, options=options),
            manifest=tmp_path / f"{source}.parquet",
            masks=tmp_path / f"{source}-k.parquet",
        )
    return tmp_path


def test_tiles_and_maps_are_those_of_the_slide(studies):
    net = build_localizer(
        "efficientnet_lite0", "gap", 2, weights=None, output_stride=32, generator=torch.Generator().manual_seed(0)
    )
    save_checkpoint(net, studies / "net.safetensors", {})
    tables, maps = [], []
    for source in ("slides", "tiles"):
        where = {"manifest": studies / f"{source}.parquet", "slide": "s4"}
        tile(SETTINGS, out=studies / source / "s4.parquet", **where)
        tables.append(pd.read_parquet(studies / source / "s4.parquet"))
        settings = {"methods": [{"id": "cam", "method": "cam", "options": {}}]}
        localize(
            settings, model=studies / "net.safetensors", out=studies / source / "s4.h5", split="test", fold=0,
            tiles=studies / source / "s4.parquet", threads=1, **where,
        )  # fmt: skip
        with MapReader(studies / source / "s4.h5") as reader:
            stored = reader.read("cam", "s4")
            maps.append((stored.array, stored.frame, stored.size, reader.logits("s4")))
    pd.testing.assert_frame_equal(*tables)
    assert len(tables[0]) == 12
    np.testing.assert_array_equal(maps[0][0], maps[1][0])
    assert maps[0][1:3] == maps[1][1:3]
    np.testing.assert_array_equal(maps[0][3], maps[1][3])


def test_a_study_plans_them_as_slides(studies):
    options = {"sheet": str(studies / "tiles.csv"), "classes": ["normal", "tumor"], "pattern": r"t_(?P<x>\d+)_(?P<y>\d+)\.png"}
    study = load_config(
        {"prepare": {"name": "cut", "source": "tiles", "options": options}, "models": {"gap": {}}, "maps": {"fast": ["cam"]}}
    )
    assert source_options(study)["out"] == "results/prepare/cut/slides"
    assert plan(study).by_slide
    assert sorted({s for slides in plan(study).slides.values() for s in slides}) == [f"s{i}" for i in range(6)]
