"""Maps of slides: every method lands on one grid of cells, whatever the resolution it is drawn at."""

from __future__ import annotations

import numpy as np
import torch

from wsol.cli.localize import localize, to_cells
from wsol.cli.prepare import prepare
from wsol.cli.schema import Prepare, Tile
from wsol.cli.tile import tile
from wsol.data import MapReader, read_manifest
from wsol.models import build_localizer, save_checkpoint


def test_cells_are_means_of_what_lies_in_them():
    maps = torch.arange(32.0).reshape(2, 4, 4)
    expected = maps.reshape(2, 2, 2, 2, 2).mean((2, 4))
    torch.testing.assert_close(to_cells(maps, 2), expected)
    assert to_cells(maps, 4) is maps


def test_a_map_at_the_image_s_resolution_lies_where_that_of_the_last_stage_lies(tmp_path):
    options = {"slides": 6, "patients": 3, "size": 512, "out": str(tmp_path / "slides")}
    manifest = tmp_path / "m.parquet"
    prepare(Prepare(name="t", source="phantom", options=options), manifest=manifest, masks=tmp_path / "k.parquet")
    name = read_manifest(manifest).rows(0, "test")["sample"].iloc[0]
    tile(Tile(tile_px=64, min_tissue=0.05), manifest=manifest, slide=name, out=tmp_path / f"{name}.parquet")
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None, output_stride=32)
    save_checkpoint(net, tmp_path / "last.safetensors", {"classes": ["normal", "tumor"]})
    settings = {"methods": [{"id": m, "method": m, "options": {}} for m in ("cam", "gradient", "grad-cam")], "halo_px": 32}
    localize(
        settings, model=tmp_path / "last.safetensors", manifest=manifest, out=tmp_path / "maps.h5", split="test", fold=0,
        slide=name, tiles=tmp_path / f"{name}.parquet", threads=1,
    )  # fmt: skip
    with MapReader(tmp_path / "maps.h5") as reader:
        found = {m: reader.read(m, name) for m in reader.methods}
    assert {m.array.shape for m in found.values()} == {found["cam"].array.shape}
    covered = found["cam"].coverage
    for one in found.values():
        assert (one.array[~covered] == 0).all()
        assert np.count_nonzero(one.array[covered]) > 0.5 * covered.sum()
