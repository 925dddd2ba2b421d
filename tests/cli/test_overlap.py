"""Overlapping and shifted tiles are for training: maps stay those of the tiles side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from wsol.cli.config import Prepare, Tile
from wsol.cli.localize import localize
from wsol.cli.prepare import prepare
from wsol.cli.tile import tile
from wsol.data import MapReader, read_manifest
from wsol.models import build_localizer, save_checkpoint


def test_maps_do_not_see_the_tiles_between(tmp_path):
    generator = np.random.default_rng(0)
    lines = ["sample,path,label,patient,split,mpp"]
    for i, split in enumerate(["train", "train", "val", "val", "test", "test"]):
        pixels = np.clip(generator.normal((215, 150, 195), 12, (150, 210, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"s{i}.png")
        lines.append(f"s{i},s{i}.png,{['normal', 'tumor'][i % 2]},p{i},{split},1.0")
    (tmp_path / "sheet.csv").write_text("\n".join(lines))
    options = {"sheet": str(tmp_path / "sheet.csv"), "classes": ["normal", "tumor"]}
    manifest = tmp_path / "m.parquet"
    prepare(Prepare(name="tiny", source="slides", options=options), manifest=manifest, masks=tmp_path / "k.parquet")
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None, output_stride=32)
    save_checkpoint(net, tmp_path / "last.safetensors", {"classes": ["normal", "tumor"]})
    maps, counts = {}, {}
    for name, change in {"plain": {}, "half": {"overlap": 0.5}, "drop": {"edge": "drop"}, "shift": {"edge": "shift"}}.items():
        table = tmp_path / f"{name}.parquet"
        cut = Tile(tile_px=64, min_tissue=0.05, qc={"sharpness_mpp": None}, **change)
        tile(cut, manifest=manifest, slide="s4", out=table)
        counts[name] = len(pd.read_parquet(table))
        localize(
            {"methods": [{"id": "cam", "method": "cam", "options": {}}], "slides": "tiles", "halo_px": 0},
            model=tmp_path / "last.safetensors", manifest=manifest, out=tmp_path / f"{name}.h5", split="test", fold=0,
            slide="s4", tiles=table, threads=1,
        )  # fmt: skip
        with MapReader(tmp_path / f"{name}.h5") as reader:
            maps[name] = reader.read("cam", "s4").array
    assert read_manifest(manifest).sample("s4").label == 0
    assert counts == {
        "plain": 12,
        "half": 30,
        "drop": 6,
        "shift": 12,
    }  # 210 x 150 px: 4 x 3 tiles; at half a step 6 x 4, and the last of the former
    np.testing.assert_array_equal(maps["half"], maps["plain"])
    np.testing.assert_array_equal(maps["shift"], maps["drop"])
    assert np.count_nonzero(maps["plain"]) > np.count_nonzero(maps["drop"]) > 0
