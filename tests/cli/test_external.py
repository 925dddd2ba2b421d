"""A frozen model on a sheet it never saw: what was fixed stays fixed, and what cannot belong together is refused."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from wsol.cli.config import Evaluate, Prepare
from wsol.cli.evaluate import evaluate
from wsol.cli.external import evaluate_external
from wsol.cli.localize import localize
from wsol.cli.plan import MAPS
from wsol.cli.prepare import prepare
from wsol.cli.report import report, table
from wsol.data import MapReader, MapWriter, read_manifest, read_masks
from wsol.evaluation import pixel_average_precision
from wsol.models import build_localizer, save_checkpoint

SIDE = 64
METHODS = [{"id": "cam", "method": "cam", "options": {}}, {"id": "mine", "method": "grad-cam", "options": {}}]
KEY = {"dataset": "tiny", "model": "gap", "fold": 0, "seed": 3, "checkpoint": "b-cl", "set": "fast", "split": "test"}
META = {"classes": ["normal", "tumor"], "settings": {"name": "gap", "tile": {"mpp": 1.0, "tile_px": 64}}, "fold": 0, "seed": 3}
QUICK = {"bootstrap": 20, "compare_scales": [], "regions": False, "boxes_px": 0}


def square(i):
    mask = np.zeros((SIDE, SIDE), bool)
    if i % 2:
        mask[16:48, 8:40] = True
    return mask


def write_sheet(folder, numbers, split, masked=True):
    """Images, masks of the tumors, and the sheet that lists them."""
    generator = np.random.default_rng(numbers[0])
    rows = []
    for i in numbers:
        mask = square(i)
        image = generator.integers(180, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        image[mask] = generator.integers(60, 120, (int(mask.sum()), 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"i{i}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"m{i}.png")
        label = "tumor" if i % 2 else "normal"
        rows.append([f"i{i}", f"i{i}.png", label, f"p{i // 2}", f"m{i}.png" if masked and i % 2 else "", split(i)])
    with open(folder / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    return folder / "sheet.csv"


def net(seed):
    generator = torch.Generator().manual_seed(seed)
    return build_localizer("efficientnet_lite0", "gap", 2, weights=None, output_stride=16, generator=generator)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A results folder: an untrained net, its maps of twelve images, and their scores."""
    root = tmp_path_factory.mktemp("study")
    sheet = write_sheet(root, range(12), lambda i: "train" if i < 4 else "val" if i < 8 else "test")
    where = {"manifest": root / "m.parquet", "masks": root / "k.parquet"}
    prepare(Prepare(name="tiny", source="images", options={"sheet": str(sheet), "classes": ["normal", "tumor"]}), **where)
    run = root / "results/train/tiny/gap/fold0/seed3"
    save_checkpoint(net(seed=0), run / "b-cl.safetensors", META)
    (run / "run.json").write_text(json.dumps({"supervision": "image label"}))
    maps = root / "results/localize" / MAPS.format(**KEY)
    for split in ("valcl", "test"):
        localize(
            {"methods": METHODS}, model=run / "b-cl.safetensors", manifest=where["manifest"], out=maps / f"{split}.h5",
            split=split, fold=0, slide=None, tiles=None, threads=1,
        )  # fmt: skip
    scored(root)
    return root


def scored(root, maps="results/localize", out="results/evaluate", **settings):
    folder = root / out / MAPS.format(**KEY) / "test"
    base = root / maps / MAPS.format(**KEY)
    evaluate(
        Evaluate(**QUICK, **settings), manifest=root / "m.parquet", masks=root / "k.parquet", maps=base / "test.h5",
        validation=base / "valcl.h5", record=root / "results/train/tiny/gap/fold0/seed3/run.json", key=KEY,
        scores=folder / "scores.json", curves=folder / "curves.parquet",
    )  # fmt: skip
    return folder / "scores.json"


@pytest.fixture
def given(study, tmp_path):
    """Arguments of a frozen evaluation, and a fresh sheet of eight images."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    sheet = write_sheet(folder, range(20, 28), lambda i: "train")
    return {
        "frozen": study / "results/evaluate" / MAPS.format(**KEY) / "test/scores.json",
        "model": study / "results/train/tiny/gap/fold0/seed3/b-cl.safetensors",
        "sheet": sheet,
        "out": tmp_path / "out",
        "method": "mine",
        "bootstrap": 20,
    }


def test_the_same_images_give_the_same_numbers(study, given):
    """Frozen on the very test images: every number of the table comes back, through preparing, drawing and scoring anew."""
    sheet = study / "again.csv"
    header, *rows = (study / "sheet.csv").read_text().splitlines()
    sheet.write_text("\n".join([header, *rows[8:]]))
    found = evaluate_external(**{**given, "sheet": sheet})
    before = json.loads(given["frozen"].read_text())
    for name in ("groups", "negatives", "macro", "threshold", "scale", "curve", "oracle"):
        assert found["methods"]["mine"][name] == before["methods"]["mine"][name]
    assert found["classification"] == before["classification"]
    assert list(found["methods"]) == ["mine"]


def test_what_was_frozen_is_named_and_every_row_is_scored(given):
    found = evaluate_external(**given)
    before = json.loads(given["frozen"].read_text())
    assert found["frozen_from"]["path"] == str(given["frozen"])
    assert len(found["frozen_from"]["hash"]) == 16
    assert (
        found["methods"]["mine"]["badges"]["threshold"]
        == before["methods"]["mine"]["badges"]["threshold"]
        == "validation masks (2)"
    )
    assert found["methods"]["mine"]["badges"]["split_unit"] == "unknown"
    assert found["masks_opened"] == {"validation": 0, "scored": 8}
    assert "frozen: nothing was chosen on these samples" in found["note"]
    out = given["out"]
    assert json.loads((out / "scores.json").read_text())["key"] == {**KEY, "dataset": "sheet"}
    curves = pd.read_parquet(out / "curves.parquet")
    assert curves["sample"].tolist() == [f"i{i}" for i in range(20, 28)]
    assert curves["label"].tolist() == [0, 1] * 4
    # An independent count of what lies on disk: maps, frozen range, masks.
    manifest, masks = read_manifest(out / "manifest.parquet"), read_masks(out / "masks.parquet")
    scale = before["methods"]["mine"]["scale"]
    scores, truth = [], []
    with MapReader(out / "maps.h5") as reader:
        for sample in manifest.rows(0, "test")["sample"]:
            array = torch.from_numpy(reader.read("mine", sample).array)[None, None].clamp(min=0 if scale["rectified"] else None)
            full = torch.nn.functional.interpolate(array, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0].numpy()
            scores.append(np.clip((full - scale["low"]) / (scale["high"] - scale["low"]), 0, 1).astype(np.float32))
            truth.append(masks.open(sample, shape=(SIDE, SIDE)))
    expected = pixel_average_precision(scores, truth)
    assert found["methods"]["mine"]["groups"]["all"]["ap"] == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def drawn(monkeypatch):
    """Lets a test say what the model draws, by sample: `drawn(values)` with values(number) -> (H, W)."""

    def set_maps(values):
        def fake(settings, *, model, manifest, out, split, fold, slide, tiles, threads):
            write_maps(out, read_manifest(manifest).rows(fold, split), settings["methods"][0]["id"], values)

        monkeypatch.setattr("wsol.cli.localize.localize", fake)

    return set_maps


def write_maps(path, rows, method, values, sha256=""):
    made = {"map_class": "positive", "methods": [{"id": method, "method": "cam", "options": {}}]}
    with MapWriter(path, {**made, "recipe": {"sha256": sha256}}) as writer:
        for sample in rows["sample"]:
            array = values(int(sample[1:])).astype(np.float32)
            writer.add(method, sample, array, target=1, size=(SIDE, SIDE), seconds=0.0)
            writer.predict(sample, np.array([0.0, 1.0]))


def test_neither_scale_nor_threshold_is_refitted(study, given, drawn, tmp_path):
    """Validation maps are 0.6 on foreground and 0.2 beside it. Elsewhere half of the images come out 0.3 lower: their foreground
    lies below the frozen threshold, so Dice is 2 h / (h + 2 h) with h one half of it; a threshold chosen there would give 1."""
    folder = tmp_path / "made"
    shutil.copytree(study, folder, ignore=shutil.ignore_patterns("results"))
    shutil.copytree(study / "results/train", folder / "results/train")
    weights = json.loads(given["model"].with_suffix(".json").read_text())["sha256"]
    for split in ("valcl", "test"):
        rows = read_manifest(folder / "m.parquet").rows(0, split)
        write_maps(folder / "made" / MAPS.format(**KEY) / f"{split}.h5", rows, "cam", lambda i: 0.2 + 0.4 * square(i), weights)
    frozen = scored(folder, maps="made", out="scores")
    run = {**given, "frozen": frozen, "method": "cam"}

    drawn(lambda i: 0.2 + 0.4 * square(i))
    same = evaluate_external(**run)["methods"]["cam"]
    assert same["groups"]["all"]["dice"] == 1.0
    drawn(lambda i: 0.2 + 0.4 * square(i) - (0.3 if i < 24 else 0.0))
    moved = evaluate_external(**run)["methods"]["cam"]
    assert moved["groups"]["all"]["dice"] == pytest.approx(2 / 3)
    assert (moved["groups"]["all"]["precision"], moved["groups"]["all"]["recall"]) == (1.0, 0.5)
    assert moved["groups"]["all"]["oracle_dice"] == 1.0
    assert moved["threshold"] == same["threshold"] == json.loads(frozen.read_text())["methods"]["cam"]["threshold"]
    assert moved["scale"] == same["scale"]
    assert moved["scale"]["low"] == pytest.approx(0.2)
    drawn(lambda i: 0.2 + 0.4 * square(i) + 0.3)  # background 0.5: above the frozen threshold everywhere
    flood = evaluate_external(**run)["methods"]["cam"]
    share = square(1).mean() / 2
    assert flood["groups"]["all"]["dice"] == pytest.approx(2 * share / (share + 1))
    assert flood["negatives"]["flagged_area"] == 1.0


def test_without_masks_classification_and_flagged_areas_remain(given, drawn, tmp_path):
    sheet = write_sheet(tmp_path / "elsewhere", range(20, 28), lambda i: "test", masked=False)
    before = json.loads(given["frozen"].read_text())["methods"]["mine"]
    low, high, at = before["scale"]["low"], before["scale"]["high"], before["threshold"]["value"]
    above, below = low + (high - low) * min(1, at + 0.01), low + (high - low) * (at - 0.01)
    drawn(lambda i: np.where(square(i), above, below))
    run = {**given, "sheet": sheet}
    found = evaluate_external(**run)["methods"]["mine"]
    # The normal samples are known to be empty; of the tumors nobody knows where they are.
    assert found["groups"]["all"]["samples"] == 4
    assert found["groups"]["all"]["pxap"] is None
    assert found["negatives"]["flagged_area"] == 0.0
    assert found["flagged"]["groups"]["tumor"] == {"mean": pytest.approx(square(1).mean()), "samples": 4}
    only = tmp_path / "elsewhere/only.csv"
    lines = sheet.read_text().splitlines()
    only.write_text("\n".join([lines[0], *[line for line in lines if ",tumor," in line]]))
    result = evaluate_external(**{**run, "sheet": only})
    assert result["methods"]["mine"]["flagged"]["groups"]["all"]["mean"] == pytest.approx(square(1).mean())
    assert result["methods"]["mine"]["groups"]["all"]["samples"] == 0
    assert result["classification"]["accuracy"] == 1.0  # the fake says tumor, and all are
    assert result["masks_opened"]["scored"] == 0
    scores = given["out"] / "scores.json"
    assert "mine" in table([scores], "test")
    report([scores], out=tmp_path / "page/index.html", results=tmp_path, title="elsewhere")
    assert "mine" in (tmp_path / "page/index.html").read_text()


def test_slides_are_tiled_as_in_training_and_drawn_as_the_frozen_study_drew(study, given, tmp_path):
    generator = np.random.default_rng(0)
    folder = tmp_path / "slides"
    folder.mkdir()
    mask = np.zeros((256, 384), np.uint8)
    mask[64:192, 64:320] = 255
    for name in ("a", "b"):
        rgb = np.full((256, 384, 3), 243, np.uint8)
        rgb[32:224, 32:352] = generator.integers([190, 130, 180], [230, 170, 220], (192, 320, 3))
        tifffile.imwrite(
            folder / f"{name}.tiff", rgb, tile=(64, 64), compression="zlib", photometric="rgb", metadata=None,
            resolution=(1e4, 1e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
        Image.fromarray(mask).save(folder / f"{name}.png")
    (folder / "far.csv").write_text("sample,path,label,patient,mask\na,a.tiff,tumor,p1,a.png\nb,b.tiff,tumor,p2,b.png\n")
    found = evaluate_external(**{**given, "sheet": folder / "far.csv", "source": "slides"})
    method = found["methods"]["mine"]
    assert method["badges"]["drawn"] == "whole image"
    assert found["key"]["dataset"] == "far"
    assert method["groups"]["all"]["samples"] == 2
    assert method["groups"]["all"]["prevalence"] == pytest.approx(128 * 256 / (256 * 384))
    tiles = pd.read_parquet(given["out"] / "tiles/a.parquet")
    assert (tiles.attrs["tile_px"], tiles.attrs["mpp"]) == (64, 1.0)  # as the model was trained


STRANGERS = {
    "classes": ({"classes": ["a", "b"]}, r"knows the classes \['normal', 'tumor'\], .* \['a', 'b'\]"),
    "seed": ({"seed": 4}, "is about seed 3, .* is seed 4; they do not belong together"),
    "model": ({"settings": {"name": "lse"}}, "is about model 'gap', .* is model 'lse'"),
    "weights": ({}, r"drawn with other weights \(sha256 .* than .*b-cl\.safetensors holds"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_model_of_other_scores_is_refused(given, tmp_path, what):
    changes, message = STRANGERS[what]
    save_checkpoint(net(seed=1), tmp_path / "b-cl.safetensors", {**META, **changes})
    with pytest.raises(ValueError, match=message):
        evaluate_external(**{**given, "model": tmp_path / "b-cl.safetensors"})
    assert not given["out"].exists()


def test_scores_alone_are_enough_and_old_ones_say_so(given, tmp_path):
    away = tmp_path / "scores.json"
    shutil.copy(given["frozen"], away)
    assert evaluate_external(**{**given, "frozen": away})["drawn_by"]["methods"][0]["id"] == "mine"
    old = json.loads(away.read_text())
    del old["drawn_by"]
    away.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="does not say what drew its maps; run `wsol evaluate` again"):
        evaluate_external(**{**given, "frozen": away})


def test_methods_and_thresholds_that_cannot_be_frozen(study, given, tmp_path):
    with pytest.raises(ValueError, match="it scores cam, mine; say which one with --method"):
        evaluate_external(**{**given, "method": None})
    with pytest.raises(ValueError, match="unknown method 'mina'; did you mean 'mine'"):
        evaluate_external(**{**given, "method": "mina"})
    with pytest.raises(FileNotFoundError, match="no scores at"):
        evaluate_external(**{**given, "frozen": tmp_path / "no.json"})
    with pytest.raises(ValueError, match="unknown source 'slide'; did you mean 'slides'"):
        evaluate_external(**{**given, "source": "slide"})
    own = scored(study, out="own", threshold="per-image-otsu")
    with pytest.raises(ValueError, match=r"its threshold \(per-image otsu\) is of each sample its own"):
        evaluate_external(**{**given, "frozen": own})
    own = scored(study, out="own", scale="per-slide")
    with pytest.raises(ValueError, match=r"its scale \(per-slide\) is of each sample its own"):
        evaluate_external(**{**given, "frozen": own})
    floors = json.loads(given["frozen"].read_text())
    floors["key"]["model"] = "floors"
    (tmp_path / "floors.json").write_text(json.dumps(floors))
    with pytest.raises(ValueError, match="these are scores of floors, which no model draws"):
        evaluate_external(**{**given, "frozen": tmp_path / "floors.json"})


def test_mistakes_of_the_sheet_name_the_sheet_that_was_given(given, tmp_path):
    sheet = given["sheet"]
    text = sheet.read_text()
    sheet.write_text(text.replace("i21.png,tumor", "i21.png,tumour"))
    with pytest.raises(ValueError, match=r"elsewhere/sheet\.csv: row 3: unknown label 'tumour'; did you mean 'tumor'"):
        evaluate_external(**given)
    with pytest.raises(FileNotFoundError, match="no sample sheet at"):
        evaluate_external(**{**given, "sheet": tmp_path / "no.csv"})
    assert not (given["out"] / "scores.json").exists()
