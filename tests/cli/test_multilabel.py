"""Several labels per sample, from the sheet to the numbers: one question per class, and the map is that of the declared one."""

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
from wsol.cli.supervision import shuffled
from wsol.cli.train import train
from wsol.data import ImageBatches, MapReader, read_image, read_manifest, to_tensor
from wsol.models import build_localizer, checkpoint_recipe, load_checkpoint
from wsol.training import build_strategy

NAMES = ["normal", "tumor", "necrosis"]
LABELS = ["normal", "tumor", "necrosis", "tumor|necrosis"]
HELD = {"normal": [1, 0, 0], "tumor": [0, 1, 0], "necrosis": [0, 0, 1], "tumor|necrosis": [0, 1, 1]}
HOW = {"epochs": 2, "batch_size": 4, "crop": 64, "bf16": False, "device": "cpu"}
SETTINGS = {"name": "gap", "head": "gap", "weights": None, "output_stride": 16, "train": HOW}
METHODS = {"methods": [{"id": "cam", "method": "cam", "options": {}}]}


def run(root, out="run", settings=SETTINGS, **more):
    where = {"manifest": root / "m.parquet", "out": root / out, "tiles": None, "parents": [], "fold": 0, "seed": 0}
    train(settings, **where, keep=["b-cl"], threads=1, **more)


def prepared(root, **options):
    options = {"sheet": str(root / "sheet.csv"), "classes": NAMES, "positive": ["tumor"], "multilabel": True, **options}
    prepare(Prepare(name="several", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Eight images to train on, four to validate, eight to test: in turn with each set of labels."""
    root = tmp_path_factory.mktemp("several")
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(root / "mask.png")
    rows = []
    for split, count in {"train": 8, "val": 4, "test": 8}.items():
        for i in range(count):
            label = LABELS[i % 4]
            pixels = np.random.default_rng(len(rows)).integers(60, 160, (64, 64, 3), np.uint8)
            pixels[:, :32, 0] += 90 * ("tumor" in label)
            pixels[:, 32:, 2] += 90 * ("necrosis" in label)
            Image.fromarray(pixels).save(root / f"{split}{i}.png")
            rows.append([f"{split}{i}", f"{split}{i}.png", label, f"p{len(rows)}", "mask.png" * ("tumor" in label), split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    prepared(root)
    run(root)
    for split in ("valcl", "test"):
        localize(
            METHODS, model=root / "run/b-cl.safetensors", manifest=root / "m.parquet", out=root / f"{split}.h5", split=split,
            fold=0, slide=None, tiles=None, threads=1,
        )  # fmt: skip
    return root


def test_the_manifest_knows_all_labels_and_which_sample_is_positive(line):
    listing = read_manifest(line / "m.parquet")
    rows = listing.rows(0, "train")
    assert (listing.task, listing.multilabel) == ("multilabel", 3)
    assert list(rows["labels"])[:4] == ["0", "1", "2", "1 2"]
    assert list(rows["label"])[:4] == [0, 1, 2, 1]


def test_batches_hold_a_row_of_zeros_and_ones_per_sample(line):
    rows = read_manifest(line / "m.parquet").rows(0, "train")
    (batch,) = ImageBatches(rows, batch_size=8, multilabel=3)
    assert batch.labels.tolist() == [HELD[label] for label in LABELS * 2]
    (again,) = ImageBatches(rows, batch_size=8)
    assert again.labels.tolist() == [0, 1, 2, 1] * 2


def test_the_loss_is_the_mean_of_one_question_per_class(line):
    (batch,) = ImageBatches(read_manifest(line / "m.parquet").rows(0, "train"), batch_size=8, multilabel=3)
    net = build_localizer("efficientnet_lite0", "gap", 3, weights=None, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        found = build_strategy("classify")(net, batch, torch.Generator(), 1)
        p = torch.sigmoid(net(batch.images).logits.double()).numpy()
    expected = np.mean([
        [-np.log(p[i, c] if held else 1 - p[i, c]) for c, held in enumerate(row)] for i, row in enumerate(batch.labels.tolist())
    ])  # fmt: skip
    assert float(found["cross_entropy"]) == pytest.approx(expected, rel=1e-5)
    assert set(found) == {"cross_entropy"}


def test_validation_counts_every_question(line):
    net = load_checkpoint(line / "run/b-cl.safetensors").eval()
    rows = read_manifest(line / "m.parquet").rows(0, "valcl")
    with torch.no_grad():
        logits = torch.cat([net(to_tensor([read_image(path)])).logits for path in rows["path"]])
    truth = torch.tensor([HELD[label] for label in LABELS], dtype=torch.float32)
    found = checkpoint_recipe(line / "run/b-cl.safetensors")[1]["metrics"]
    assert found["valcl_accuracy"] == pytest.approx(float(((logits > 0) == (truth > 0)).float().mean()))
    assert found["valcl_loss"] == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)), abs=1e-4
    )


def test_the_numbers_are_those_of_the_positive_class(line):
    key = {"dataset": "several", "model": "gap", "fold": 0, "seed": 0, "checkpoint": "b-cl", "set": "fast", "split": "test"}
    settings = Evaluate(bootstrap=5, compare_scales=[], regions=False, boxes_px=0)
    evaluate(
        settings, manifest=line / "m.parquet", masks=line / "k.parquet", maps=line / "test.h5", validation=line / "valcl.h5",
        record=line / "run/run.json", key=key, scores=line / "scores.json", curves=line / "curves.parquet",
    )  # fmt: skip
    found = json.loads((line / "scores.json").read_text())
    with MapReader(line / "test.h5") as reader:
        said = [bool(reader.logits(f"test{i}")[1] > 0) for i in range(8)]
    right = [yes == ("tumor" in LABELS[i % 4]) for i, yes in enumerate(said)]
    assert found["classification"]["accuracy"] == pytest.approx(np.mean(right))
    assert found["classification"]["classes"] == ["not tumor", "tumor"]
    assert len(found["classification"]["levels"]["sample"]["confusion"]) == 2
    # the mask of a sample without the class is known to be empty: all eight are scored
    assert len(found["methods"]["cam"]["samples"]) == 8


def test_shuffled_labels_stay_together(line):
    rows = read_manifest(line / "m.parquet").rows(0, "train")
    dealt = shuffled(rows, seed=3)
    pairs = sorted(zip(rows["label"], rows["labels"], strict=True))
    assert sorted(zip(dealt["label"], dealt["labels"], strict=True)) == pairs
    assert list(dealt["labels"]) != list(rows["labels"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strategy": "cutmix"}, "strategy 'cutmix' reads the one label of each; take classify"),
        ({"head": "spg"}, "head 'spg' reads the one label of each; take another"),
        ({"train": {**HOW, "balance": "loss"}}, "take balance: sampler"),
    ],
)
def test_what_reads_one_label_is_refused(line, change, says):
    with pytest.raises(ValueError, match=f"several labels.*{says}"):
        run(line, "no", SETTINGS | change)
    assert not (line / "no/run.json").exists()


def test_maps_are_of_a_declared_class_only(line):
    with pytest.raises(ValueError, match=r"several labels.*'predicted' names one; set positive"):
        localize(
            METHODS | {"map_class": "predicted"}, model=line / "run/b-cl.safetensors", manifest=line / "m.parquet",
            out=line / "no.h5", split="test", fold=0, slide=None, tiles=None, threads=1,
        )  # fmt: skip


def test_slips_in_the_sheet_are_told(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for label, options, says in (
        ("tumor|necrosis", {"multilabel": False}, r"unknown label 'tumor\|necrosis'.*with option multilabel: true"),
        ("tumor|necrose", {}, "unknown label 'necrose'; did you mean 'necrosis'"),
        ("tumor|tumor", {}, "a class stands twice"),
        ("tumor", {"positive": ["tumor", "necrosis"]}, "multilabel: one positive class"),
    ):
        (tmp_path / "sheet.csv").write_text(f"sample,path,label,patient\na,a.png,{label},p\n")
        with pytest.raises(ValueError, match=says):
            prepared(tmp_path, **options)
