"""Masks reach a training only where the strategy learns from them; what it was told is on record and in the badge."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from wsol.cli.config import Evaluate, Prepare, load_config
from wsol.cli.evaluate import evaluate
from wsol.cli.localize import localize
from wsol.cli.prepare import prepare
from wsol.cli.train import train
from wsol.data import MapReader, read_manifest, read_masks
from wsol.models import load_checkpoint

SIDE = 64


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Twelve images, a dark box on the positive ones; two of them are valpx (one with a mask file, one known to be empty)."""
    root = tmp_path_factory.mktemp("supervision")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(16):
        label = "tumor" if i % 2 else "normal"
        image = generator.integers(180, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), bool)
        if label == "tumor":
            mask[8:40, 16:56] = True
            image[mask] = generator.integers(60, 120, (int(mask.sum()), 3), dtype=np.uint8)
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"m{i}.png")
        Image.fromarray(image).save(root / f"i{i}.png")
        split = "train" if i < 6 else "val" if i < 12 else "test"
        rows.append([f"i{i}", f"i{i}.png", label, f"p{i // 2}", f"m{i}.png" if label == "tumor" else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"], "valpx": 1}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    return root


def fitted(root, out, *, masks=None, parent=None, keep="b-cl", epochs=1, **model):
    settings = {
        "name": out, "head": "decoded", "head_options": {"width": 8}, "weights": None, "freeze_bn": False, "output_stride": 16,
        "train": {"epochs": epochs, "batch_size": 3, "crop": 64, "bf16": False, "lr": 1e-3}, **model,
    }  # fmt: skip
    where = {
        "manifest": root / "m.parquet",
        "out": root / out,
        "tiles": None,
        "parents": [parent] if parent else [],
        "masks": masks,
    }
    train(settings, fold=0, seed=0, keep=[keep], threads=1, **where)
    return json.loads((root / out / "run.json").read_text())


@pytest.mark.parametrize("role", ["train", "valpx"])
def test_a_unet_from_masks_to_scores(line, role):
    record = fitted(line, f"unet-{role}", masks=line / "k.parquet", strategy="unet", train_on=role, epochs=6, keep="last")
    rows = read_manifest(line / "m.parquet").rows(0, role)
    files = [s for s in rows["sample"] if read_masks(line / "k.parquet").kind(s) == "file"]
    assert record["masks"] == len(files) > 0
    assert record["supervision"] == f"masks ({len(files)})"
    assert set(record["provenance"]["inputs"]) == {"manifest", "masks"}
    native = [{"id": "native", "method": "native", "options": {}}]
    for split in ("valcl", "test"):
        localize(
            {"methods": native}, model=line / f"unet-{role}/last.safetensors", manifest=line / "m.parquet",
            out=line / f"{role}-{split}.h5", split=split, fold=0, slide=None, tiles=None, threads=1,
        )  # fmt: skip
    with MapReader(line / f"{role}-test.h5") as reader:
        assert reader.read("native", reader.samples("native")[0]).array.shape == (32, 32)  # pixels, not the 4 x 4 class map
    key = {"dataset": "tiny", "model": "unet", "fold": 0, "seed": 0, "checkpoint": "last", "set": "fast", "split": "test"}
    settings = Evaluate(bootstrap=5, scale="probability", threshold="fixed", compare_scales=[], regions=False, boxes_px=0)
    evaluate(
        settings, manifest=line / "m.parquet", masks=line / "k.parquet",
        maps=line / f"{role}-test.h5", validation=line / f"{role}-valcl.h5", record=line / f"unet-{role}/run.json", key=key,
        scores=line / "scores.json", curves=line / "curves.parquet",
    )  # fmt: skip
    found = json.loads((line / "scores.json").read_text())["methods"]["native"]
    assert found["badges"]["supervision"] == f"masks ({len(files)})"
    assert found["badges"]["scale"] == "probability"
    if role == "train":
        assert found["groups"]["all"]["pxap"] > 0.8  # learned: the prevalence is 0.16


def test_labels_never_get_a_mask(line, monkeypatch):
    from wsol.data.masks import Masks

    def forbidden(self, *args, **options):
        raise AssertionError("a mask was opened")

    monkeypatch.setattr(Masks, "open", forbidden)
    record = fitted(line, "gap", masks=line / "k.parquet", head="gap", head_options={})
    assert (record["supervision"], record["masks"]) == ("image label", 0)
    assert set(record["provenance"]["inputs"]) == {"manifest"}
    with pytest.raises(AssertionError, match="a mask was opened"):
        fitted(line, "opened", masks=line / "k.parquet", strategy="unet")


def test_what_is_trained_on_does_not_validate(line):
    from wsol.cli.config import Model
    from wsol.cli.supervision import supervise

    listing = read_manifest(line / "m.parquet")
    told = supervise(listing, 0, Model(head="decoded", strategy="unet", train_on="valpx"), "masks", line / "k.parquet", 0)
    assert set(told.rows["sample"]) == set(listing.rows(0, "valpx")["sample"])
    assert set(told.checked["sample"]) == set(listing.rows(0, "valcl")["sample"]) - set(told.rows["sample"])
    assert supervise(listing, 0, Model(), "labels", None, 0).masks is None


def test_what_masks_cannot_be_had_for_is_said(line):
    with pytest.raises(ValueError, match="'unet' learns from masks: --masks is needed"):
        fitted(line, "x", strategy="unet")
    with pytest.raises(ValueError, match="shuffle_labels would shuffle nothing"):
        fitted(line, "x", strategy="unet", masks=line / "k.parquet", shuffle_labels=True)
    study = {"models": {"unet": {"strategy": "unet", "head": "decoded"}}, "maps": {"m": ["native"]}}
    assert load_config({**study, "prepare": {"name": "x", "source": "images"}}).models["unet"].train_on == "train"
    with pytest.raises(ValueError, match=r"models\.unet: strategy 'unet' learns from masks, which are read for images only"):
        load_config({**study, "prepare": {"name": "x", "source": "slides"}})


@pytest.fixture(scope="module")
def parent(line):
    fitted(line, "parent", head="gap", head_options={})
    return line / "parent/b-cl.safetensors"


@pytest.mark.parametrize(("name", "head"), [("negev", "decoded"), ("f-cam", "decoded"), ("pixelcam", "pixel")])
def test_seeds_of_a_parent_train_pixels(line, parent, name, head):
    options = {"head": head, "head_options": {"width": 8} if head == "decoded" else {}, "strategy": name}
    record = fitted(line, name, parent=parent, seeds="grad-cam", strategy_options={"empty_class": 0}, epochs=2, **options)
    assert (record["supervision"], record["masks"]) == ("image label", 0)
    first, last = load_checkpoint(parent).eval(), load_checkpoint(line / name / "b-cl.safetensors").eval()
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first(images).logits, last(images).logits) == (name != "pixelcam")
    if name != "pixelcam":  # accuracy ties in every epoch of a frozen classifier: the later decoder is kept
        assert json.loads((line / name / "b-cl.json").read_text())["meta"]["epoch"] == 2


def test_without_a_parent_there_are_no_seeds(line, parent):
    with pytest.raises(ValueError, match="name it in `from`"):
        fitted(line, "x", strategy="negev")
    with pytest.raises(ValueError, match="'negev' trains pixels, which head 'gap' does not draw; take head decoded or pixel"):
        fitted(line, "x", strategy="negev", head="gap", head_options={}, parent=parent)
