"""Three classes, one per image, from the sheet to the numbers of the classifier; the map is that of the declared class."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from wsol.cli.config import Evaluate, Prepare
from wsol.cli.evaluate import evaluate
from wsol.cli.localize import localize
from wsol.cli.prepare import prepare
from wsol.cli.train import train
from wsol.data import MapReader, read_image, read_manifest, to_tensor
from wsol.models import load_checkpoint

NAMES = ["normal", "tumor", "necrosis"]
COUNT = {"train": 9, "val": 6, "test": 9}


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    root = tmp_path_factory.mktemp("three")
    rows = []
    for split, count in COUNT.items():
        for i in range(count):
            pixels = np.random.default_rng(len(rows)).integers(60, 160, (64, 64, 3), np.uint8)
            pixels[..., i % 3] += 90  # a color per class
            Image.fromarray(pixels).save(root / f"{split}{i}.png")
            mask = np.zeros((64, 64), np.uint8)
            mask[:, :32] = 255
            Image.fromarray(mask).save(root / "m.png")
            rows.append([f"{split}{i}", f"{split}{i}.png", NAMES[i % 3], f"p{len(rows)}", "m.png" if i % 3 == 2 else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": NAMES, "positive": ["necrosis"], "valpx": 2}
    prepare(Prepare(name="three", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    how = {"epochs": 2, "batch_size": 3, "crop": 64, "bf16": False, "balance": "loss", "device": "cpu"}
    where = {"manifest": root / "m.parquet", "out": root / "run", "tiles": None, "parents": []}
    settings = {"name": "gap", "head": "gap", "weights": None, "output_stride": 16, "train": how}
    train(settings, fold=0, seed=0, keep=["b-cl"], threads=1, **where)
    for split in ("valcl", "test"):
        localize(
            {"methods": [{"id": "cam", "method": "cam", "options": {}}]}, model=root / "run/b-cl.safetensors",
            manifest=root / "m.parquet", out=root / f"{split}.h5", split=split, fold=0, slide=None, tiles=None, threads=1,
        )  # fmt: skip
    return root


def test_training_and_validation_know_three_classes(line):
    net = load_checkpoint(line / "run/b-cl.safetensors").eval()
    rows = read_manifest(line / "m.parquet").rows(0, "valcl")
    with torch.no_grad():
        logits = torch.cat([net(to_tensor([read_image(path)])).logits for path in rows["path"]])
    labels = torch.from_numpy(rows["label"].to_numpy().copy())
    assert logits.shape == (6, 3)
    metrics = json.loads((line / "run/b-cl.json").read_text())
    found = metrics.get("metrics") or metrics["meta"]["metrics"]
    assert found["valcl_accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert found["valcl_loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-4)


def test_maps_are_of_the_declared_class_and_the_classifier_is_scored(line):
    key = {"dataset": "three", "model": "gap", "fold": 0, "seed": 0, "checkpoint": "b-cl", "set": "fast", "split": "test"}
    settings = Evaluate(bootstrap=5, compare_scales=[], regions=False, boxes_px=0)
    evaluate(
        settings, manifest=line / "m.parquet", masks=line / "k.parquet", maps=line / "test.h5", validation=line / "valcl.h5",
        record=line / "run/run.json", key=key, scores=line / "scores.json", curves=line / "curves.parquet",
    )  # fmt: skip
    rows = read_manifest(line / "m.parquet").rows(0, "test")
    with MapReader(line / "test.h5") as reader:
        called = np.array([reader.logits(sample).argmax() for sample in rows["sample"]])
        assert {reader.read("cam", sample).target for sample in rows["sample"]} == {2}
    found = json.loads((line / "scores.json").read_text())
    table = np.zeros((3, 3), int)
    np.add.at(table, (rows["label"].to_numpy(), called), 1)
    assert found["classes"] == NAMES
    assert found["classification"]["accuracy"] == pytest.approx(float(np.trace(table)) / 9)
    assert found["classification"]["levels"]["sample"]["confusion"] == table.tolist()
    assert found["methods"]["cam"]["class"] == "necrosis"
