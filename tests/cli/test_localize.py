"""Maps of slides: every method lands on one grid of cells, whatever the resolution it is drawn at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from wsol.cli.localize import localize, to_cells
from wsol.cli.prepare import prepare
from wsol.cli.schema import Prepare, Tile
from wsol.cli.tile import tile
from wsol.data import MapReader, read_manifest
from wsol.models import build_localizer, save_checkpoint
from wsol.slides import Box, open_slide


def test_cells_are_means_of_what_lies_in_them():
    maps = torch.arange(32.0).reshape(2, 4, 4)
    expected = maps.reshape(2, 2, 2, 2, 2).mean((2, 4))
    torch.testing.assert_close(to_cells(maps, 2), expected)
    assert to_cells(maps, 4) is maps


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A phantom with its tile table: (manifest, row, tiles)."""
    tmp_path = tmp_path_factory.mktemp("phantom")
    options = {"slides": 6, "patients": 3, "size": 640, "out": str(tmp_path / "slides")}
    manifest = tmp_path / "m.parquet"
    prepare(Prepare(name="t", source="phantom", options=options), manifest=manifest, masks=tmp_path / "k.parquet")
    row = next(read_manifest(manifest).rows(0, "test").itertuples(index=False))
    tiles = tmp_path / f"{row.sample}.parquet"
    tile(Tile(tile_px=64, min_tissue=0.05), manifest=manifest, slide=row.sample, out=tiles)
    return manifest, row, tiles


def drawn(net, slide, out, methods, **settings):
    """The map file of one slide."""
    manifest, row, tiles = slide
    save_checkpoint(net, out / "last.safetensors", {"classes": ["normal", "tumor"]})
    localize(
        {"methods": [{"id": m, "method": m, "options": {}} for m in methods], **settings},
        model=out / "last.safetensors", manifest=manifest, out=out / "maps.h5", split="test", fold=0,
        slide=row.sample, tiles=tiles, threads=1,
    )  # fmt: skip
    return MapReader(out / "maps.h5")


def test_a_map_at_the_image_s_resolution_lies_where_that_of_the_last_stage_lies(slide, tmp_path):
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None, output_stride=32)
    with drawn(net, slide, tmp_path, ("cam", "gradient", "grad-cam"), halo_px=32) as reader:
        found = {m: reader.read(m, slide[1].sample) for m in reader.methods}
    assert {m.array.shape for m in found.values()} == {found["cam"].array.shape}
    covered = found["cam"].coverage
    for one in found.values():
        assert (one.array[~covered] == 0).all()
        assert np.count_nonzero(one.array[covered]) > 0.5 * covered.sum()


@pytest.mark.parametrize("head", ["gap", "noisy-or", "deep-mil", "attention-mil"])
@pytest.mark.parametrize("choose", ["positive", "predicted"])
def test_a_slide_drawn_by_tiles_has_the_logits_of_the_bag_of_all_its_tiles(slide, tmp_path, head, choose):
    net = build_localizer("efficientnet_lite0", head, 2, weights=None, generator=torch.Generator().manual_seed(0)).eval()
    torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(1))
    with drawn(net, slide, tmp_path, ["native"], halo_px=0, map_class=choose, slides="tiles") as reader:
        logits, target = reader.logits(slide[1].sample), reader.read("native", slide[1].sample).target
    table = pd.read_parquet(slide[2])
    with open_slide(slide[1].path) as opened:
        boxes = [Box(int(r.x), int(r.y), int(r.width), int(r.height)) for r in table.itertuples(index=False)]
        pixels = np.stack([opened.read(box, float(table.attrs["mpp"])) for box in boxes])
    assert len(pixels) > 16  # more than a batch
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        whole = net(images, groups=torch.zeros(len(images), dtype=torch.int64)).logits[0]
    torch.testing.assert_close(torch.from_numpy(logits), whole, rtol=1e-3, atol=1e-3)
    assert target == (1 if choose == "positive" else int(whole.argmax()))
