"""From a sample sheet to numbers through the verbs, on tiny images; where the answer is known, it is demanded."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from wsol.cli.config import Evaluate, Heatmap, Prepare
from wsol.cli.evaluate import evaluate
from wsol.cli.floors import draw_floors, fit_floors
from wsol.cli.heatmap import heatmap
from wsol.cli.localize import localize
from wsol.cli.prepare import prepare
from wsol.cli.report import report, table
from wsol.cli.scoring import Scale, fit_scale, score
from wsol.cli.train import train
from wsol.data import MapReader, MapWriter, StoredMap, read_manifest, read_masks
from wsol.slides import Box

SIDE = 96
METHODS = [{"id": m, "method": m, "options": {}} for m in ("cam", "grad-cam")]


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Twelve images of four splits: a dark square on the positive ones, noise on all."""
    root = tmp_path_factory.mktemp("line")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(12):
        label = "tumor" if i % 2 else "normal"
        image = generator.integers(180, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), bool)
        if label == "tumor":
            mask[16:48, 32:80] = True
            image[mask] = generator.integers(60, 120, (int(mask.sum()), 3), dtype=np.uint8)
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"m{i}.png")
        Image.fromarray(image).save(root / f"i{i}.png")
        split = "train" if i < 6 else "val" if i < 8 else "test"
        rows.append([f"i{i}", f"i{i}.png", label, f"p{i // 2}", f"m{i}.png" if label == "tumor" else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    settings = {
        "head": "gap",
        "name": "gap",
        "output_stride": 16,
        "train": {"epochs": 2, "batch_size": 3, "crop": 64, "bf16": False},
    }
    train(
        settings, manifest=root / "m.parquet", out=root / "run", fold=0, seed=0, tiles=None, parents=[], keep=["b-cl"], threads=1
    )
    for split in ("valcl", "test"):
        localize(
            {"methods": METHODS}, model=root / "run/b-cl.safetensors", manifest=root / "m.parquet", out=root / f"{split}.h5",
            split=split, fold=0, slide=None, tiles=None, threads=1,
        )  # fmt: skip
    return root


def scored(root, maps, validation, settings=None, split="test", record=None):
    key = {"dataset": "tiny", "model": "gap", "fold": 0, "seed": 0, "checkpoint": "b-cl", "set": "fast", "split": split}
    evaluate(
        settings or Evaluate(bootstrap=20), manifest=root / "m.parquet", masks=root / "k.parquet",
        maps=maps, validation=validation, record=record or root / "run/run.json", key=key,
        scores=root / "scores.json", curves=root / "curves.parquet",
    )  # fmt: skip
    return json.loads((root / "scores.json").read_text())


def write_maps(root, split, values):
    """Maps at full resolution from `values(sample, mask)`."""
    rows, truth = read_manifest(root / "m.parquet").rows(0, split), read_masks(root / "k.parquet")
    with MapWriter(root / f"made-{split}.h5", {"map_class": "positive", "methods": METHODS[:1]}) as writer:
        for row in rows.itertuples():
            mask = truth.open(row.sample, shape=(SIDE, SIDE))
            writer.add("cam", row.sample, values(row.sample, mask).astype(np.float32), target=1, size=(SIDE, SIDE), seconds=0.0)
            writer.predict(row.sample, np.array([0.0, 1.0]) if mask.any() else np.array([1.0, 0.0]))
    return root / f"made-{split}.h5"


def test_a_map_that_is_the_mask_scores_one(line):
    made = [write_maps(line, split, lambda sample, mask: mask * 3.0 - 1.0) for split in ("test", "valcl")]
    result = scored(line, *made)
    found = result["methods"]["cam"]
    assert found["groups"]["all"]["pxap"] == 1.0
    assert found["groups"]["all"]["dice"] == 1.0
    assert found["negatives"]["flagged_area"] == 0.0
    assert found["threshold"]["source"] == "validation masks"
    assert found["badges"]["threshold"] == "validation masks (1)"
    assert result["classification"]["accuracy"] == 1.0


def test_the_threshold_comes_from_validation_even_where_test_disagrees(line):
    # On validation foreground is 0.6 over 0.4; on test all is shifted down by 0.3: the carried threshold finds nothing.
    validation = write_maps(line, "valcl", lambda sample, mask: np.where(mask, 0.6, 0.4) + (np.arange(SIDE) == 0) * -0.4)
    test = write_maps(line, "test", lambda sample, mask: np.where(mask, 0.3, 0.1))
    found = scored(line, test, validation)["methods"]["cam"]
    assert found["groups"]["all"]["pxap"] == 1.0
    assert found["groups"]["all"]["dice"] == 0.0
    assert found["groups"]["all"]["oracle_dice"] == 1.0
    assert found["oracle"]["source"] == "test oracle"


def test_otsu_and_fixed_open_no_mask_and_say_so(line):
    made = [write_maps(line, split, lambda sample, mask: mask * 1.0) for split in ("test", "valcl")]
    assert (
        scored(line, *made, Evaluate(threshold="otsu", bootstrap=5))["methods"]["cam"]["badges"]["threshold"]
        == "label-free (otsu)"
    )
    fixed = scored(line, *made, Evaluate(threshold="fixed", fixed=0.25, bootstrap=5))["methods"]["cam"]
    assert (fixed["threshold"]["value"], fixed["badges"]["threshold"]) == (0.25, "fixed")


def test_a_missing_mask_file_is_an_error_and_nothing_is_written(line, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(line, root)
    hidden = line / "m9.png"
    hidden.rename(line / "m9.away")
    try:
        (root / "scores.json").unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError, match="m9"):
            scored(root, line / "test.h5", line / "valcl.h5")
        assert not (root / "scores.json").exists()
    finally:
        (line / "m9.away").rename(hidden)


def test_prepare_refuses_a_mask_of_another_size_and_an_unknown_option(tmp_path):
    for i in range(6):
        Image.fromarray(np.full((40, 50, 3), 200, np.uint8)).save(tmp_path / f"i{i}.png")
    Image.fromarray(np.full((20, 25), 255, np.uint8)).save(tmp_path / "m1.png")
    rows = [
        f"i{i},i{i}.png,{'ab'[i % 2]},p{i},{'m1.png' if i == 1 else ''},{split}"
        for i, split in enumerate(["train"] * 2 + ["val"] * 2 + ["test"] * 2)
    ]
    (tmp_path / "sheet.csv").write_text("\n".join(["sample,path,label,patient,mask,split", *rows]))
    options = {"sheet": str(tmp_path / "sheet.csv"), "classes": ["a", "b"]}
    where = {"manifest": tmp_path / "m.parquet", "masks": tmp_path / "k.parquet"}
    with pytest.raises(ValueError, match=r"m1\.png is \(20, 25\) .* its image is \(40, 50\)"):
        prepare(Prepare(name="x", source="images", options=options), **where)
    with pytest.raises(ValueError, match="unknown option 'shet' of source 'images'; did you mean 'sheet'"):
        prepare(Prepare(name="x", source="images", options={**options, "shet": 1}), **where)
    assert not where["manifest"].exists()


def test_the_whole_line_gives_scores_pictures_and_a_page(line):
    fit_floors(manifest=line / "m.parquet", masks=line / "k.parquet", out=line / "floors.json", fold=0, mpp=1.0)
    for split in ("valcl", "test"):
        draw_floors(
            model=line / "floors.json",
            manifest=line / "m.parquet",
            out=line / f"f-{split}.h5",
            split=split,
            fold=0,
            slide=None,
            seed=0,
            mpp=1.0,
        )
    result = scored(line, line / "test.h5", line / "valcl.h5")
    assert list(result["methods"]) == ["cam", "grad-cam"]
    assert result["supervision"] == "image label"
    groups = result["methods"]["cam"]["groups"]
    assert set(groups) == {"all", "normal", "tumor"}
    assert groups["normal"]["pxap"] is None  # no foreground there: undefined, never 0
    heatmap(
        Heatmap(samples=3),
        manifest=line / "m.parquet",
        masks=line / "k.parquet",
        maps=line / "test.h5",
        scores=line / "scores.json",
        out=line / "h/index.json",
    )
    index = json.loads((line / "h/index.json").read_text())
    assert all((line / "h" / drawn["cam"]["overlay"]).stat().st_size > 1000 for drawn in index.values())
    report([line / "scores.json"], out=line / "page/index.html", results=line, title="tiny")
    assert "grad-cam" in (line / "page/index.html").read_text()
    assert "grad-cam" in table([line / "scores.json"], "test")


def test_maps_cover_the_padded_image_and_come_back_at_its_size(line):
    with MapReader(line / "test.h5") as reader:
        stored = reader.read("cam", reader.samples("cam")[0])
    assert stored.array.shape == (6, 6)
    assert stored.size == (SIDE, SIDE)
    assert score(stored, Scale("fitted", False, -1.0, 1.0), (SIDE, SIDE)).shape == (SIDE, SIDE)


def test_a_frame_beyond_the_image_is_cropped_not_squeezed():
    array = np.zeros((2, 4), np.float32)
    array[:, 2:] = 1.0  # right half of a 64 px wide frame around a 40 px wide image
    stored = StoredMap(array, 0, Box(0, 0, 64, 32), (32, 40), None, "whole", 0.0)
    found = score(stored, Scale("none"), (32, 40))
    assert found.shape == (32, 40)
    np.testing.assert_allclose(found[:, 31:33].mean(), 0.5, atol=1e-6)  # the step stays at px 32


def test_cells_that_were_not_drawn_score_zero():
    covered = np.array([[True, False]])
    stored = StoredMap(np.full((1, 2), 5.0, np.float32), 0, Box(0, 0, 64, 32), (32, 64), covered, "tile", 0.0)
    found = score(stored, Scale("fitted", False, 0.0, 5.0), (32, 64))
    assert (found[:, :32] == 1).all()
    assert (found[:, 32:] == 0).all()


def test_a_dead_map_has_a_scale_and_scores_zero():
    dead = StoredMap(np.zeros((2, 2), np.float32), 0, None, (8, 8), None, "whole", 0.0)
    scale = fit_scale("fitted", [dead], rectified=True)
    assert (score(dead, scale, (8, 8)) == 0).all()
