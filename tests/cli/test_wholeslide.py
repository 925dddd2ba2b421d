"""Slides drawn whole: the map file against one encode of the whole field, whatever the blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from wsol.cams import Route, cams
from wsol.cli.localize import as_images, localize
from wsol.cli.prepare import prepare
from wsol.cli.schema import Prepare, Tile
from wsol.cli.tile import tile
from wsol.cli.wholeslide import WholeSlide, lattice, plan
from wsol.data import MapReader, read_manifest
from wsol.models import Backbone, Features, Localizer, build_localizer, bytes_per_pixel, save_checkpoint
from wsol.models.heads.linear import Gap
from wsol.slides import blocks, open_slide

METHODS = ["cam", "grad-cam", "hirescam", "layer-cam", "grad-cam++", "eigen-cam"]


def named(methods):
    return [{"id": m, "method": m, "options": {}} for m in methods]


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A phantom with its tile table: (manifest, row, tiles)."""
    root = tmp_path_factory.mktemp("phantom")
    options = {"slides": 6, "patients": 3, "size": 900, "out": str(root / "slides")}
    manifest = root / "m.parquet"
    prepare(Prepare(name="t", source="phantom", options=options), manifest=manifest, masks=root / "k.parquet")
    row = next(read_manifest(manifest).rows(0, "test").itertuples(index=False))
    tile(Tile(tile_px=64, min_tissue=0.05), manifest=manifest, slide=row.sample, out=root / "tiles.parquet")
    return manifest, row, root / "tiles.parquet"


def net_with(head, stride=32):
    net = build_localizer(
        "efficientnet_lite0", head, 2, weights=None, output_stride=stride, generator=torch.Generator().manual_seed(0)
    ).eval()
    torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(1))
    return net


def drawn(net, slide, out, methods, **settings):
    """The open map file of the slide."""
    manifest, row, tiles = slide
    save_checkpoint(net, out / "last.safetensors", {"classes": ["normal", "tumor"]})
    localize(
        {"methods": named(methods), **settings},
        model=out / "last.safetensors", manifest=manifest, out=out / "maps.h5", split="test", fold=0,
        slide=row.sample, tiles=tiles, threads=1,
    )  # fmt: skip
    return MapReader(out / "maps.h5")


def whole_field(net, slide):
    """(features of the slide encoded at once, the lattice)."""
    _, row, tiles = slide
    with open_slide(row.path) as opened:
        grid = lattice(opened, pd.read_parquet(tiles), net.output_stride)
        images = as_images(grid.field.read((0, grid.field.size[0]), (0, grid.field.size[1])), net)
    with torch.inference_mode():
        return net.encode(images).last.clone(), grid


class Short(Backbone):
    """Three convolutions: a reach of a few cells, so that a small slide has many blocks."""

    paper = "none"
    channels = (8, 12, 16)

    def __init__(self):
        super().__init__()
        self.strides = (2, 4, 8)
        inside = (3, *self.channels[:-1])
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(i, o, 5, 2, 2) for i, o in zip(inside, self.channels, strict=True))

    def normalize(self, images):
        return images - 0.5

    def stage(self, number, x):
        return self.convs[number](x).relu()


@pytest.mark.parametrize("tiles_per_block", [1, 2, 5, 100])
def test_local_maps_are_those_of_the_whole_field_whatever_the_blocks(slide, tiles_per_block):
    net = Localizer(Short(), Gap(16, 2)).eval()
    torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(1))
    last, grid = whole_field(net, slide)
    tissue = last[:, :, grid.covered][..., None]  # the slope is that of a mean over tissue
    truth = cams(METHODS[:4], net, None, torch.tensor([1]), features=Features((tissue,)))
    with open_slide(slide[1].path) as opened:
        grid = lattice(opened, pd.read_parquet(slide[2]), 8)
        made = plan(net, grid, named(METHODS[:4]), whole=True, memory_mb=2048, halo=32)
        assert {made.routes[m].kind for m in METHODS[:4]} == {"cells"}
        assert len(made.blocks) == 1
        made = replace(made, blocks=blocks(grid.places, tiles_per_block))
        whole = WholeSlide(net, grid, made, named(METHODS[:4]))
        whole.draw(1)
    assert len(whole.states) == len(grid.places)
    for name, array in whole.maps.items():
        expected = truth[name][0, :, 0].numpy()
        np.testing.assert_allclose(array[grid.covered], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert (array[~grid.covered] == 0).all()


def test_a_long_slide_in_blocks_of_the_default_backbone(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(rng.integers(60, 250, (8, 96, 3), dtype=np.uint8), 16, 0), 16, 1)
    Image.fromarray(pixels).save(tmp_path / "long.png")  # 1536 x 128 px
    table = pd.DataFrame({"x": np.arange(24) * 64, "y": 64, "width": 64, "height": 64, "tissue": 1.0})
    table.attrs = {"mpp": 0.5, "tile_px": 64, "side": 64}
    net = net_with("gap")
    with open_slide(tmp_path / "long.png", mpp=0.5) as opened:
        grid = lattice(opened, table, 32)
        most = int(1.5 * bytes_per_pixel(net) * 1200 * 128 / 2**20)
        made = plan(net, grid, named(["cam"]), whole=True, memory_mb=most, halo=32)
        assert len(made.blocks) > 1
        whole = WholeSlide(net, grid, made, named(["cam"]))
        whole.draw(1)
        images = as_images(grid.field.read((0, 128), (0, 1536)), net)
    expected = cams(["cam"], net, images, torch.tensor([1]))["cam"][0].numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(whole.maps["cam"][2:], expected[2:], rtol=0, atol=1e-6 * scale)
    assert not whole.maps["cam"][:2].any()  # no tiles there


def test_weights_of_the_slide_are_those_of_all_its_tissue(slide, tmp_path):
    net = net_with("lse")
    with drawn(net, slide, tmp_path, METHODS) as reader:
        found = {m: reader.read(m, slide[1].sample) for m in METHODS}
        made = reader.provenance["drawn"]
    last, grid = whole_field(net, slide)
    assert [made[m]["from"] for m in METHODS] == ["cells", *["slide"] * 5]
    tissue = last[:, :, grid.covered][..., None]
    truth = cams(METHODS, net, None, torch.tensor([1]), features=Features((tissue,)))
    for name, stored in found.items():
        expected = truth[name][0, :, 0].numpy()
        assert stored.drawn == "whole"
        np.testing.assert_allclose(stored.array[grid.covered], expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("head", ["gap", "noisy-or", "deep-mil"])
@pytest.mark.parametrize("choose", ["positive", "predicted"])
def test_logits_are_those_of_the_bag_of_tiles_cut_out_of_the_whole(slide, tmp_path, head, choose):
    net = net_with(head)
    with drawn(net, slide, tmp_path, ["cam"], map_class=choose) as reader:
        logits, target = reader.logits(slide[1].sample), reader.read("cam", slide[1].sample).target
    last, grid = whole_field(net, slide)
    tiles = [last[0, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2] for r, c in grid.places]
    assert {t.shape[1:] for t in tiles} == {(2, 2)}
    with torch.no_grad():
        bag = net.head(Features((torch.stack(tiles),)), groups=torch.zeros(len(tiles), dtype=torch.int64)).logits[0]
    np.testing.assert_allclose(logits, bag.numpy(), rtol=1e-4, atol=1e-4)
    assert target == (1 if choose == "positive" else int(bag.argmax()))


def test_what_cannot_be_drawn_whole_is_drawn_by_tiles_and_says_so(slide, tmp_path):
    net = net_with("gap")
    with drawn(net, slide, tmp_path, ["cam", "gradient"]) as reader:
        found = {m: reader.read(m, slide[1].sample) for m in reader.methods}
        made = reader.provenance["drawn"]
    assert {m: s.drawn for m, s in found.items()} == {"cam": "whole", "gradient": "tile"}
    assert made["gradient"] == {"from": "tile", "reason": "the method reads the image"}
    assert np.count_nonzero(found["gradient"].array[found["gradient"].coverage]) > 0


class Excited(torch.nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def test_a_net_that_sees_everything_is_drawn_by_tiles(slide):
    net = net_with("gap")
    net.backbone._bn1 = torch.nn.Sequential(net.backbone._bn1, Excited())
    with open_slide(slide[1].path) as opened:
        grid = lattice(opened, pd.read_parquet(slide[2]), 32)
        made = plan(net, grid, named(["cam"]), whole=True, memory_mb=2048, halo=32)
    assert made.blocks == []
    assert made.routes["cam"].kind == "tile"
    assert "squeeze-and-excite" in made.routes["cam"].reason


def test_features_that_do_not_fit_are_not_stored(slide):
    net = net_with("lse")
    with open_slide(slide[1].path) as opened:
        grid = lattice(opened, pd.read_parquet(slide[2]), 32)
        net.backbone.channels = (*net.backbone.channels[:-1], 1280 * 400)  # as if they were wide
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("wsol.cams.route", lambda *args: Route("slide"))
            made = plan(net, grid, named(["grad-cam"]), whole=True, memory_mb=512, halo=32)
    assert made.routes["grad-cam"].kind == "tile"
    assert "more than localize.memory_mb: 512" in made.routes["grad-cam"].reason


def test_too_little_memory_for_one_tile_is_an_error(slide):
    net = net_with("gap")
    with open_slide(slide[1].path) as opened, pytest.raises(ValueError, match=r"memory_mb: 64 is too little.*slides: tiles"):
        plan(net, lattice(opened, pd.read_parquet(slide[2]), 32), named(["cam"]), whole=True, memory_mb=64, halo=32)


def test_a_slide_without_tissue_has_an_empty_map(slide, tmp_path):
    manifest, row, tiles = slide
    table = pd.read_parquet(tiles)
    empty = table.iloc[:0]
    empty.attrs = table.attrs
    empty.to_parquet(tmp_path / "none.parquet")
    net = net_with("lse")
    with drawn(net, (manifest, row, tmp_path / "none.parquet"), tmp_path, METHODS[:2], map_class="predicted") as reader:
        for name in METHODS[:2]:
            stored = reader.read(name, row.sample)
            assert not stored.coverage.any()
            assert not stored.array.any()
        assert not reader.has_logits(row.sample)
