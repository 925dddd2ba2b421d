"""Heads on features that were made before: the head of a frozen backbone, and its maps at the tiles' resolution."""

from __future__ import annotations

import csv
import json
import re

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from wsol.cli import train as verb
from wsol.cli.config import ConfigError, Prepare, Tile, load_config
from wsol.cli.embed import embed
from wsol.cli.localize import localize
from wsol.cli.main import app
from wsol.cli.prepare import prepare
from wsol.cli.rehearsal import rehearse
from wsol.cli.tile import tile
from wsol.cli.vectors import laid
from wsol.data import MapReader, read_manifest
from wsol.models import load_checkpoint, save_checkpoint
from wsol.slides import read_vectors

WIDTH = 1280
HOW = {"epochs": 3, "batch_size": 2, "tiles_per_bag": 3, "bf16": False, "lr": 1e-3, "device": "cpu"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A backbone with random weights, the same that training starts at."""
    path = tmp_path_factory.mktemp("encoder") / "net.safetensors"
    net = verb.net_of(verb.Model(weights=None, head="gap", output_stride=16), 2, 0)
    save_checkpoint(net, path, {})
    return path


@pytest.fixture(scope="module")
def embedded(tiled, encoder, tmp_path_factory):
    """The slides of `tiled` as files of features by that backbone, and their tile tables."""
    root = tmp_path_factory.mktemp("features")
    for sample in read_manifest(tiled / "slides.parquet").samples["sample"].unique():
        where = {"manifest": tiled / "slides.parquet", "slide": sample}
        embed(tiles=tiled / "tiles" / f"{sample}.parquet", out=root / f"{sample}.h5", model=encoder, **where)
        tile(Tile(mpp=1.0, tile_px=32, features=str(root)), out=root / "tiles" / f"{sample}.parquet", **where)
    return root


@pytest.fixture
def fitted(tiled, tmp_path):
    def run(out, tiles, how=None, keep="b-cl", **model):
        settings = {"name": out, "weights": None, "output_stride": 16, **model, "train": {**HOW, **(how or {})}}
        where = {"manifest": tiled / "slides.parquet", "out": tmp_path / out, "tiles": tiles, "parents": []}
        verb.train(settings, fold=0, seed=0, keep=[keep], threads=1, **where)
        return load_checkpoint(tmp_path / out / "b-cl.safetensors")

    return run


def test_features_are_those_of_the_backbone(tiled, embedded, encoder):
    from wsol.data import BagBatches

    rows = read_manifest(tiled / "slides.parquet").rows(0, "test")
    net = load_checkpoint(encoder)
    (one, two) = BagBatches(rows, tiled / "tiles", bags=1, tiles_per_bag=12, ahead=0)
    for batch in (one, two):
        found = read_vectors(embedded / f"{batch.samples[0]}.h5")
        with torch.no_grad():
            wanted = net.encode(batch.images).last.mean((2, 3))
        np.testing.assert_allclose(found.features(), wanted.numpy(), rtol=1e-4, atol=1e-5)
        table = pd.read_parquet(tiled / "tiles" / f"{batch.samples[0]}.parquet")
        np.testing.assert_array_equal(found.coords, table[["x", "y"]])
        assert found.encoder.startswith("efficientnet_lite0:")
        assert (found.side, found.mpp) == (32, 1.0)


@pytest.mark.parametrize("model", [{"head": "gap"}, {"head": "attention-mil", "head_options": {"gated": True}}])
def test_a_head_learns_what_it_learns_on_stored_embeddings(fitted, tiled, embedded, tmp_path, monkeypatch, model):
    ours = fitted("ours", tiled / "tiles", {"embeddings": "tiles"}, **model)
    build = verb.net_of

    def same_head(*args):  # the backbone draws no numbers of its own here, so the head would start elsewhere
        net, like = build(*args), build(verb.Model(weights=None, output_stride=16, **model), 2, 0)
        net.head.load_state_dict(like.head.state_dict())
        return net

    monkeypatch.setattr(verb, "net_of", same_head)
    theirs = fitted("theirs", embedded / "tiles", backbone=f"stored:{WIDTH}", **model)
    for (name, a), b in zip(ours.head.named_parameters(), theirs.head.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name
    record = json.loads((tmp_path / "theirs" / "run.json").read_text())
    assert (record["supervision"], record["net"]["backbone"]) == ("slide label", f"stored:{WIDTH}")


def maps_of(tiled, tiles, model, sample, methods, out):
    localize(
        {"methods": [{"id": m, "method": m, "options": {}} for m in methods]}, model=model, out=out, fold=0, split="test",
        manifest=tiled / "slides.parquet", slide=sample, tiles=tiles / f"{sample}.parquet", threads=1,
    )  # fmt: skip


def test_maps_are_means_of_those_of_the_backbone(fitted, tiled, embedded, tmp_path):
    """A class map is linear in the features: its mean over a tile is what the mean of the features gives."""
    fitted("ours", tiled / "tiles", {"embeddings": "tiles"}, head="gap")
    ours = tmp_path / "ours" / "b-cl.safetensors"
    stored = verb.net_of(verb.Model(weights=None, head="gap", backbone=f"stored:{WIDTH}"), 2, 0)
    stored.head.load_state_dict(load_checkpoint(ours).head.state_dict())
    save_checkpoint(stored, tmp_path / "stored.safetensors", {})
    sample = read_manifest(tiled / "slides.parquet").rows(0, "test")["sample"][0]
    maps_of(tiled, tiled / "tiles", ours, sample, ["cam"], tmp_path / "a.h5")
    methods = ["cam", "grad-cam", "layer-cam", "hirescam"]
    maps_of(tiled, embedded / "tiles", tmp_path / "stored.safetensors", sample, methods, tmp_path / "b.h5")
    settings = {"methods": [{"id": "cam", "method": "cam", "options": {}}], "slides": "tiles", "halo_px": 0}
    localize(
        settings, model=ours, out=tmp_path / "c.h5", fold=0, split="test", manifest=tiled / "slides.parquet", slide=sample,
        tiles=tiled / "tiles" / f"{sample}.parquet", threads=1,
    )  # fmt: skip
    with MapReader(tmp_path / "c.h5") as one, MapReader(tmp_path / "b.h5") as two:
        fine, coarse = one.read("cam", sample), two.read("cam", sample)
        assert (fine.array.shape, coarse.array.shape) == ((6, 8), (3, 4))
        means = fine.array.reshape(3, 2, 4, 2).mean((1, 3))
        np.testing.assert_allclose(coarse.array, means, atol=1e-4 * np.abs(means).max())
        assert (coarse.frame, coarse.size) == (fine.frame, fine.size)
        assert coarse.coverage.all()
        np.testing.assert_allclose(one.logits(sample), two.logits(sample), atol=1e-4)
        assert two.provenance["drawn"]["cam"]["from"] == "cells"
        assert two.provenance["encoder"].startswith("efficientnet_lite0:")
        # At one linear layer the slope is the same for all tiles, so these are the class map up to scale and sign.
        scaled = two.read("hirescam", sample).array
        assert np.abs(np.corrcoef(scaled.ravel(), coarse.array.ravel())[0, 1]) > 0.999


def test_files_of_features_alone_are_slides(tiled, embedded, tmp_path):
    """The sheet lists nothing but features: tiles, bags, maps as ever."""
    rows = []
    for row in read_manifest(tiled / "slides.parquet").samples.drop_duplicates("sample").itertuples():
        split = {"valcl": "val"}.get(row.role, row.role)
        rows.append([row.sample, embedded / f"{row.sample}.h5", ["normal", "tumor"][row.label], row.patient, split])
    with open(tmp_path / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "split"], *rows])
    options = {"sheet": str(tmp_path / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="t", source="slides", options=options), manifest=tmp_path / "m.parquet", masks=tmp_path / "k.parquet")
    found = tile(Tile(mpp=1.0, tile_px=32), manifest=tmp_path / "m.parquet", slide="test0", out=tmp_path / "test0.parquet")
    assert (found["status"], found["tiles"], found["side"]) == ("ok", 12, 32)
    assert "1280 numbers each" in found["reason"]
    net = verb.net_of(verb.Model(weights=None, head="attention-mil", backbone=f"stored:{WIDTH}"), 2, 0)
    save_checkpoint(net, tmp_path / "net.safetensors", {})
    localize(
        {"methods": [{"id": "native", "method": "native", "options": {}}]}, model=tmp_path / "net.safetensors", threads=1,
        out=tmp_path / "o.h5", fold=0, split="test", manifest=tmp_path / "m.parquet", slide="test0",
        tiles=tmp_path / "test0.parquet",
    )  # fmt: skip
    with MapReader(tmp_path / "o.h5") as reader:
        assert reader.read("native", "test0").array.shape == (3, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"backbone": "stored:512"},
            r"8 of 8 files .*: .*12 tiles of 512 numbers expected, got 12 of 1280\).*; .*set backbone: stored:1280",
        ),
        ({"backbone": f"stored:{WIDTH}", "strategy": "has"}, f"backbone: stored:{WIDTH}: strategy 'has' needs pixels"),
        ({"backbone": f"stored:{WIDTH}", "how": {"embeddings": "tiles"}}, "leave out train.embeddings"),
        ({"backbone": f"stored:{WIDTH}", "keep": "map-stability"}, "look at maps of pixels"),
        ({"backbone": "stored:wide"}, "stored:WIDTH names the numbers per tile"),
    ],
)
def test_what_does_not_fit_is_refused(fitted, embedded, change, says):
    with pytest.raises(ValueError, match=says):
        fitted("none", embedded / "tiles", **{"head": "gap", **change})


def test_tiles_without_features_and_files_of_other_slides_are_named(fitted, tiled, embedded, tmp_path):
    with pytest.raises(ValueError, match=r"the tiles of 'train\d' are not those of a file of features; name the folder in"):
        fitted("none", tiled / "tiles", head="gap", backbone=f"stored:{WIDTH}")
    settings = Tile(mpp=1.0, tile_px=32, features=str(tmp_path))
    gone = tile(settings, manifest=tiled / "slides.parquet", slide="test0", out=tmp_path / "t" / "test0.parquet")
    assert gone["status"] == "failed"
    assert "no features at" in gone["reason"]
    with h5py.File(tmp_path / "test0.h5", "w") as file:
        file["features"] = np.zeros((2, 4), np.float32)
        file["coords"] = np.array([[0, 0], [640, 0]])
        file["coords"].attrs["patch_size_level0"] = 32
    other = tile(settings, manifest=tiled / "slides.parquet", slide="test0", out=tmp_path / "t" / "test0.parquet")
    assert "the file is of another slide" in other["reason"]


def features(path, values, coords=None, side=32, **said):
    """A file of features of 32 px tiles, `values` (n, d); what else it says stands at its coordinates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = values
        file["coords"] = np.array([[32 * i, 0] for i in range(len(values))]) if coords is None else coords
        file["coords"].attrs.update({"patch_size_level0": side, **said})


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"coords": np.array([[0, 0], [np.nan, 0]])}, r"coords are px, but those of tile 1 are \[nan +0\.\]"),
        ({"values": np.array([[0, 1], [2, np.inf]])}, "1 features are not finite"),
        ({"values": np.array([[0, 1], [2, 1e200]])}, "1 features are not finite"),
        ({"coords": np.array([[32, 0], [32, 0]])}, r"2 tiles lie at \(32, 0\)"),
        ({"coords": np.array([[0, 0], [-32, 0]])}, r"the tile of 32 px at \(-32, 0\) lies beside the slide"),
        ({"coords": np.array([[0, 0], [128, 0]])}, r"tiles reach to \(160, 32\), the slide to \(128, 96\)"),
        ({"side": 0}, "patch_size_level0: a number above 0 expected, got"),
        ({"level0_mpp": "abc"}, "level0_mpp: a number above 0 expected, got 'abc'"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_record_of_its_slide(tiled, tmp_path, broken, says):
    features(tmp_path / "test0.h5", **{"values": np.zeros((2, 2)), **broken})
    settings = Tile(mpp=1.0, tile_px=32, features=str(tmp_path))
    where = {"manifest": tiled / "slides.parquet", "slide": "test0", "out": tmp_path / "t" / "test0.parquet"}
    record = tile(settings, **where)
    assert (record["status"], record["verb"]) == ("failed", "tile")
    assert re.search(says, record["reason"])
    features(tmp_path / "test0.h5", np.zeros((2, 2)), np.array([[-16, 0], [112, 80]]))  # those that reach beyond are welcome
    assert tile(settings, **where)["status"] == "ok"


@pytest.fixture
def made(tiled, tmp_path):
    """Tile tables of slides whose files of features say of themselves what `said` has for them."""

    def build(said, width=None):
        samples = list(read_manifest(tiled / "slides.parquet").samples["sample"].unique())
        for sample in samples:
            features(tmp_path / "f" / f"{sample}.h5", np.zeros((4, (width or {}).get(sample, 8))), **said.get(sample, {}))
            settings = Tile(mpp=1.0, tile_px=32, features=str(tmp_path / "f"))
            tile(settings, manifest=tiled / "slides.parquet", slide=sample, out=tmp_path / "t" / f"{sample}.parquet")
        return tmp_path / "t"

    return build


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("encoder", "uni", "conch"),
        ("mpp", 0.5, 1.0),
        ("target_magnification", 20, 40),
        ("patch_size", 256, 224),
    ],
)
def test_features_that_were_made_otherwise_are_not_mixed(fitted, made, name, one, two):
    said = {f"train{i}": {name: one} for i in range(2)}
    tables = made({**said, "val1": {name: two}})
    with pytest.raises(ValueError, match=rf"val1\.h5 and .*train\d\.h5 do not belong together: {name} {two}.* and {one}"):
        fitted("none", tables, head="gap", backbone="stored:8")
    fitted("some", made(said), head="gap", backbone="stored:8")  # the others do not say


def test_tiles_of_another_size_are_not_mixed_but_scanners_may_differ(fitted, made):
    with pytest.raises(ValueError, match=r"do not belong together: um per tile (16|32)\.0 and (16|32)\.0"):
        fitted("none", made({"train1": {"patch_size_level0": 16}}), head="gap", backbone="stored:8")
    fitted("some", made({"train1": {"patch_size_level0": 34}}), head="gap", backbone="stored:8")


def test_all_files_of_another_width_are_named_at_once(fitted, made, tiled, encoder, tmp_path):
    tables = made({}, {"train0": 9, "train1": 9, "test0": 9})
    with pytest.raises(
        ValueError, match=r"2 of 8 files .*train0\.h5 \(4 tiles of 8 .* got 4 of 9\); .*train1\.h5 .*stored:9 if all"
    ):
        fitted("none", tables, head="gap", backbone="stored:8")
    net = verb.net_of(verb.Model(weights=None, head="gap", backbone="stored:8"), 2, 0)
    save_checkpoint(net, tmp_path / "net.safetensors", {})
    maps_of(tiled, tables, tmp_path / "net.safetensors", "test0", ["cam"], tmp_path / "o.h5")
    with MapReader(tmp_path / "o.h5") as reader:
        assert "9 numbers per tile, stored:8 reads other features" in reader.provenance["failure"]["reason"]


def test_a_study_on_features_is_rehearsed(tiled, embedded):
    study = {
        "prepare": {
            "name": "t",
            "source": "slides",
            "options": {"sheet": str(tiled / "sheet.csv"), "classes": ["normal", "tumor"]},
        },
        "tile": {"features": str(embedded), "mpp": 1.0, "tile_px": 32},
        "models": {"mil": {"backbone": f"stored:{WIDTH}", "head": "attention-mil"}},
        "maps": {"fast": ["native", "grad-cam"]},
    }
    assert rehearse(load_config(study)) == []
    (finding,) = rehearse(load_config({**study, "models": {"mil": {"backbone": f"stored:{WIDTH}", "strategy": "has"}}}))
    assert "strategy 'has' needs pixels" in finding
    with pytest.raises(ConfigError, match="stored"):
        load_config({**study, "models": {"mil": {"backbone": "stord:12"}}})


def test_cells_of_tiles_that_reach_beyond_the_slide_stay_on_their_side():
    _, found = laid(np.array([[-32, 0], [64, 32]]), 64, (96, 96))
    assert found.tolist() == [[0, -1, -1], [0, -1, 1], [-1, -1, 1]]


def test_cells_have_the_outlines_of_their_tiles():
    cell, found = laid(np.array([[0, 0], [64, 32]]), 32, (64, 96))
    assert cell == 32
    assert found.tolist() == [[0, -1, -1], [-1, -1, 1]]
    cell, found = laid(np.array([[0, 0], [16, 0]]), 32, (32, 48))  # half of each lies on the other
    assert cell == 16
    assert found.tolist() == [[0, 0, 1], [0, 0, 1]] or found.tolist() == [[0, 1, 1], [0, 1, 1]]
    cell, found = laid(np.array([[5, 3], [1000, 701]]), 64, (900, 1200))  # anywhere
    assert cell == 16
    for i, (x, y) in enumerate(((5, 3), (1000, 701))):
        rows, columns = np.nonzero(found == i)
        assert len(rows) == 16
        assert abs(rows.min() * 16 - y) <= 8
        assert abs(columns.min() * 16 - x) <= 8
    assert laid(np.zeros((0, 2), np.int64), 32, (64, 64))[1].tolist() == [[-1, -1], [-1, -1]]


def test_the_verb_writes_features(tiled, encoder, tmp_path):
    words = ["embed", "--manifest", str(tiled / "slides.parquet"), "--slide", "test1", "--model", str(encoder)]
    run = CliRunner().invoke(
        app, [*words, "--tiles", str(tiled / "tiles" / "test1.parquet"), "--out", str(tmp_path / "test1.h5"), "--device", "cpu"]
    )
    assert run.exit_code == 0, run.exception
    assert "12 tiles of 1280 numbers" in run.output
    assert read_vectors(tmp_path / "test1.h5").features().shape == (12, WIDTH)
