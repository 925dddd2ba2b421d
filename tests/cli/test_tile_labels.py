"""Tiles labeled by annotations: from the masks of slides to a training whose record says what it was told."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsol.cli.config import ConfigError, Prepare, Tile, load_config
from wsol.cli.prepare import prepare
from wsol.cli.tile import tile
from wsol.cli.train import train
from wsol.data import read_manifest

LABELED = Tile(mpp=1.0, tile_px=32, min_tissue=0.2, labels="annotation", qc={"sharpness_mpp": None})


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Eight slides full of tissue, 8 x 6 tiles of 32 px at 1 um; on tumor slides x < 78 is annotated, but for the last one."""
    root = tmp_path_factory.mktemp("labeled")
    generator = np.random.default_rng(0)
    rows = []
    mask = np.zeros((192, 256), np.uint8)
    mask[:, :78] = 1
    Image.fromarray(mask).save(root / "mask.png")
    for i, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 2):
        name, label = f"s{i}", ["normal", "tumor"][i % 2]
        pixels = np.clip(generator.normal((215, 150, 195), 12, (192, 256, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{name}.png")
        rows.append([name, f"{name}.png", label, f"p{i}", split, 1.0, "mask.png" if label == "tumor" and i < 7 else ""])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "split", "mpp", "mask"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="slides", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    for sample in read_manifest(root / "m.parquet").samples["sample"].unique():
        where = {"manifest": root / "m.parquet", "out": root / "tiles" / f"{sample}.parquet"}
        tile(LABELED, slide=sample, masks=root / "k.parquet", **where)
    return root


def test_labels_are_counted_on_the_mask(cut):
    normal, tumor, bare = (pd.read_parquet(cut / "tiles" / f"{name}.parquet") for name in ("s0", "s1", "s7"))
    assert len(normal) == len(tumor) == len(bare) == 48
    assert (normal["label"] == 0).all()
    assert (normal["foreground"] == 0).all()
    inside = tumor["x"].map({0: 1.0, 32: 1.0, 64: 14 / 32, 96: 0.0}).fillna(0.0)
    np.testing.assert_allclose(tumor["foreground"], inside)
    assert tumor["label"].tolist() == np.where(inside >= 0.2, 1, -1).tolist()
    assert (bare["label"] == -1).all()  # nobody annotated it: neither tumor nor normal
    assert bare["foreground"].isna().all()
    assert tumor.attrs == {"tile_px": 32, "mpp": 1.0, "side": 32}


def test_labels_need_masks_of_the_positive_class(cut, tmp_path):
    where = {"manifest": cut / "m.parquet", "slide": "s1", "out": tmp_path / "s1.parquet"}
    with pytest.raises(ValueError, match="give --masks"):
        tile(LABELED, **where)
    options = {"sheet": str(cut / "sheet.csv"), "classes": ["normal", "tumor"], "mask_means": "any-foreground"}
    prepare(Prepare(name="any", source="slides", options=options), manifest=tmp_path / "m.parquet", masks=tmp_path / "k.parquet")
    with pytest.raises(ValueError, match="needs masks of the positive class"):
        tile(LABELED, **where | {"manifest": tmp_path / "m.parquet"}, masks=tmp_path / "k.parquet")
    assert not list(tmp_path.glob("s1*"))


@pytest.mark.parametrize("tiles", ["labeled", "camelyon16-survey"])
def test_a_training_on_labeled_tiles_says_so(cut, tmp_path, tiles):
    settings = {
        "name": "t", "weights": None, "freeze_bn": False, "output_stride": 32, "tiles": tiles,
        "train": {"epochs": 1, "batch_size": 16, "tiles_per_bag": 2, "bf16": False},
    }  # fmt: skip
    where = {"manifest": cut / "m.parquet", "out": tmp_path, "tiles": cut / "tiles", "parents": []}
    train(settings, fold=0, seed=0, keep=["last"], threads=1, **where)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["supervision"], record["masks"]) == ("tile label from annotation", 0)


def study(**change):
    base = {
        "prepare": {"name": "d", "source": "phantom"}, "models": {"a": {"tiles": "labeled"}}, "maps": {"fast": ["cam"]},
        "tile": {"labels": "annotation"},
    }  # fmt: skip
    return base | change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tile": {}}, "models.a.tiles: labeled learns from labels of tiles, and none are made: set tile.labels: annotation"),
        ({"prepare": {"name": "d", "source": "glas"}}, "is for slides; images have labels of their own"),
        ({"models": {"a": {"tiles": "labeled", "strategy": "inherit"}}}, "the labels of annotations, inherit others"),
        ({"models": {"a": {"tiles": "labeled", "shuffle_labels": True}}}, "the labels of annotations, shuffle_labels others"),
        ({"models": {"a": {"tiles": "labeled", "train": {"embeddings": "tiles"}}}}, "train.embeddings are of bags"),
        ({"tile": {"overlap": 0.3}, "models": {"a": {}}}, "0.3 leaves no tiles side by side"),
        ({"tile": {"qc": {"drop": ["blur"], "sharpness_mpp": None}}, "models": {"a": {}}}, "blur needs sharpness_mpp"),
        ({"tile": {"edge": "cover"}, "models": {"a": {}}}, "tile.edge"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(change, says):
    with pytest.raises(ConfigError) as error:
        load_config(study(**change))
    assert says in str(error.value)


def test_a_study_of_labeled_tiles_and_overlap_is_accepted():
    config = load_config(study(tile={"labels": "annotation", "overlap": 0.667}))
    assert config.models["a"].tiles == "labeled"
    assert config.tile.overlap == pytest.approx(2 / 3)
