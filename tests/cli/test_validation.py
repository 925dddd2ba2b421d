"""What chooses epochs: labels, a few masks, maps without either; and that masks are opened where they are asked for only."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from wsol.cli.config import Evaluate, Prepare, Tile
from wsol.cli.evaluate import evaluate
from wsol.cli.localize import localize
from wsol.cli.prepare import prepare
from wsol.cli.results import checkpoint_source, kept
from wsol.cli.tile import tile
from wsol.cli.train import train
from wsol.cli.validation import IMAGES, SIDE, Validation
from wsol.cli.validation_masks import choose, mask_scores, open_masks, spread
from wsol.data import Batch, Masks, read_manifest, read_masks
from wsol.models import build_localizer
from wsol.slides import open_slide
from wsol.training import CHECKPOINTS, criterion

LABEL_FREE = sorted(n for n, c in CHECKPOINTS.items() if c.source == "label-free")
SETTINGS = {
    "weights": None, "output_stride": 16, "name": "gap", "train": {"epochs": 2, "batch_size": 3, "crop": 64, "bf16": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """Fourteen images of 88 x 96 px, a dark square on the positive ones; six validate, three of them with a mask file."""
    root = tmp_path_factory.mktemp("sheet")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(14):
        image, mask = generator.integers(180, 255, (88, 96, 3), dtype=np.uint8), np.zeros((88, 96), bool)
        if i % 2:
            mask[16 + i : 40 + i, 20:70] = True
            image[mask] = generator.integers(60, 120, (int(mask.sum()), 3), dtype=np.uint8)
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"m{i}.png")
        Image.fromarray(image).save(root / f"i{i}.png")
        split = "train" if i < 6 else "val" if i < 12 else "test"
        label = "tumor" if i % 2 else "normal"
        rows.append([f"i{i}", f"i{i}.png", label, f"p{i // 2}", f"m{i}.png" if i % 2 else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    return root


def trained(root, out, keep, **more):
    options = {"fold": 0, "seed": 0, "tiles": None, "parents": [], "threads": 1, "masks": root / "k.parquet", **more}
    train(SETTINGS, manifest=root / "m.parquet", out=root / out, keep=keep, **options)
    with open(root / out / "history.csv", newline="") as file:
        return json.loads((root / out / "run.json").read_text()), list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(sheet):
    """A run that keeps every checkpoint there is."""
    return trained(sheet, "all", [*CHECKPOINTS, "masks-1", "masks-3"])


def test_every_epoch_is_measured_by_what_the_kept_checkpoints_need(run):
    record, history = run
    metrics = {*(c.metric for c in CHECKPOINTS.values() if c.metric), "valcl_loss", "valpx1_pxap", "valpx3_pxap"}
    assert len(history) == 2
    assert metrics <= set(history[0])
    assert all(-1 <= float(row[name]) <= 1 for row in history for name in metrics if "loss" not in name)
    assert record["checkpoints"]["masks-3"] == "masks-3"
    assert {record["checkpoints"][n] for n in LABEL_FREE} == {"label-free"}
    assert record["selection"] == {"map_class": "positive", "masks": ["i7", "i9", "i11"]}
    assert record["masks"] == 0  # none of a training sample
    assert record["supervision"] == "image label"


@pytest.mark.parametrize("name", ["masks-3", "label-free", "b-cl", "last"])
def test_the_epoch_kept_is_the_best_of_the_history(sheet, run, name):
    epoch = json.loads((sheet / "all" / f"{name}.json").read_text())["meta"]["epoch"]
    metric = criterion(name).metric
    values = [(float(row[metric]), -float(row["valcl_loss"]) * (name == "b-cl")) for row in run[1]] if metric else []
    assert epoch == (values.index(max(values)) + 1 if values else 2)


def test_masks_n_has_the_pxap_that_evaluate_finds(sheet, run):
    """All three files and three known-empty samples are the whole validation split: the same number by another way."""
    methods = [{"id": "native", "method": "native", "options": {}}]
    localize(
        {"methods": methods}, model=sheet / "all/last.safetensors", manifest=sheet / "m.parquet", out=sheet / "valcl.h5",
        split="valcl", fold=0, slide=None, tiles=None, threads=1,
    )  # fmt: skip
    key = {"dataset": "tiny", "model": "gap", "fold": 0, "seed": 0, "checkpoint": "masks-3", "set": "fast", "split": "valcl"}
    evaluate(
        Evaluate(bootstrap=5, boxes_px=0, regions=False), manifest=sheet / "m.parquet", masks=sheet / "k.parquet",
        maps=sheet / "valcl.h5", validation=sheet / "valcl.h5", record=sheet / "all/run.json", key=key,
        scores=sheet / "scores.json", curves=sheet / "curves.parquet",
    )  # fmt: skip
    found = json.loads((sheet / "scores.json").read_text())["methods"]["native"]
    assert float(run[1][-1]["valpx3_pxap"]) == pytest.approx(found["groups"]["all"]["pxap"], abs=1e-6)
    assert found["badges"]["checkpoint"] == "masks-3"


def test_masks_stay_shut_unless_a_checkpoint_asks_for_them(sheet, monkeypatch):
    monkeypatch.setattr(Masks, "open", lambda *a, **k: pytest.fail("a mask was opened"))
    record, history = trained(sheet, "shut", ["b-cl", "seed-agreement"])
    assert record["selection"]["masks"] == []
    assert "masks" not in record["provenance"]["inputs"]
    assert {"seed_agreement", "valcl_accuracy"} < set(history[0])
    assert not any("valpx" in name or "stability" in name for name in history[0])


def test_what_cannot_be_chosen_is_said(sheet):
    with pytest.raises(ValueError, match="checkpoint masks-2 is chosen on masks: --masks is needed"):
        trained(sheet, "none", ["masks-2"], masks=None)
    with pytest.raises(ValueError, match=r"masks-4 needs 4 validation samples \(role valpx\) with a mask file .* there are 3"):
        trained(sheet, "none", ["b-cl", "masks-4"])
    with pytest.raises(ValueError, match="unknown checkpoint 'label_free'; did you mean 'label-free'"):
        trained(sheet, "none", ["label_free"])


def test_masks_that_trained_choose_nothing(sheet):
    listing, truth = read_manifest(sheet / "m.parquet"), read_masks(sheet / "k.parquet")
    rows = listing.rows(0, "valpx")
    with pytest.raises(ValueError, match="that are not trained on; there are 2"):
        open_masks(listing, rows[rows["sample"] != "i7"].reset_index(drop=True), truth, 3, None, 8)
    with pytest.raises(ValueError, match="that are not trained on; there are 0"):  # train_on: valpx
        open_masks(listing, rows.iloc[:0], truth, 3, None, 8)
    assert truth.opened == set()


def test_few_of_one_patient_then_few_of_one_class():
    rows = pd.DataFrame({"sample": list("abcdefg"), "patient": ["p", "p", "q", "q", "r", "", ""], "label": [0, 1, 0, 1, 1, 0, 1]})
    assert choose(rows, 5) == ["a", "d", "e", "f", "g"]
    assert [choose(rows, n) for n in (0, 2, 7, 9)] == [[], ["a", "d"], [*"adefg", "c", "b"], [*"adefg", "c", "b"]]


def test_spread_is_even_and_within():
    assert spread(range(10), 5) == [1, 3, 5, 7, 9]
    assert spread(range(10), 1) == [5]
    assert spread([3, 7], 5) == [3, 7]
    assert spread([], 3) == []


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Six phantom slides cut into tiles of 32 px, 64 at level 0."""
    root = tmp_path_factory.mktemp("slides")
    options = {"slides": 6, "patients": 6, "size": 512, "out": str(root / "slides"), "mixed_patients": False}
    prepare(Prepare(name="tiny", source="phantom", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    listing = read_manifest(root / "m.parquet")
    for sample in listing.rows(0, "valpx")["sample"]:
        cut = Tile(mpp=1.0, tile_px=32, min_tissue=0.0)
        tile(cut, manifest=root / "m.parquet", slide=sample, out=root / "tiles" / f"{sample}.parquet")
    return root


def test_tiles_of_a_slide_come_with_the_mask_below_them(slides):
    listing, truth = read_manifest(slides / "m.parquet"), read_masks(slides / "k.parquet")
    rows = listing.rows(0, "valpx")
    found = open_masks(listing, rows, truth, 1, slides / "tiles", 8)
    assert [one.file for one in found] == [True, False]
    assert truth.opened == {found[0].sample}
    assert not any(mask.any() for mask in found[1].masks)
    assert sum(mask.any() for mask in found[0].masks) == 4  # half of the eight
    table = pd.read_parquet(slides / "tiles" / f"{found[0].sample}.parquet")
    whole = read_masks(slides / "k.parquet").open(found[0].sample)
    row = next(r for r in rows.itertuples() if r.sample == found[0].sample)
    with open_slide(row.path) as slide:
        pixels = slide.thumbnail(1.0)
    for image, mask in zip(found[0].images, found[0].masks, strict=True):
        near = [
            np.abs(pixels[r.y // 2 : r.y // 2 + 32, r.x // 2 : r.x // 2 + 32].astype(float) - image).mean()
            if r.y // 2 + 32 <= 256 and r.x // 2 + 32 <= 256 else np.inf
            for r in table.itertuples()
        ]  # fmt: skip
        place = table.iloc[int(np.argmin(near))]
        below = whole[int(place.y) :, int(place.x) :][:64, :64].reshape(32, 2, 32, 2).mean((1, 3)) >= 0.5
        assert min(near) < 3
        assert np.array_equal(mask, below)


def test_a_slide_is_drawn_for_the_class_of_its_bag(slides):
    listing = read_manifest(slides / "m.parquet")
    found = open_masks(listing, listing.rows(0, "valpx"), read_masks(slides / "k.parquet"), 1, slides / "tiles", 8)
    net = build_localizer(
        "efficientnet_lite0", "gap", 2, weights=None, output_stride=16, generator=torch.Generator().manual_seed(0)
    ).eval()
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([9.0, 0.0]))
    scores = [mask_scores(net, found, how, 1, [1])[1] for how in ("predicted", "truth", "positive")]
    assert scores[0] == mask_scores(net, found, "positive", 0, [1])[1] != scores[2]
    assert scores[1] not in (scores[0], scores[2])  # tumor slides as positive, normal ones as negative


def test_label_free_criteria_see_a_few_images_only():
    class Loader:
        def __len__(self):
            return 40

        def __iter__(self):
            for i in range(40):
                yield Batch(torch.full((1, 3, 500, 450), i / 40), torch.tensor([i % 2]), [str(i)])

    shown = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images, groups=None):
            return type("Prediction", (), {"logits": images.mean((2, 3))[:, :2]})

    check = Validation(Loader(), {"map-stability": criterion("map-stability")})
    found, shown = check._labels(Net(), look=True)
    assert len(shown) == IMAGES
    assert {tuple(one.shape) for one in shown} == {(1, 3, SIDE, SIDE)}
    assert [round(float(one[0, 0, 0, 0]) * 40) for one in shown] == spread(range(40), IMAGES)
    assert found["valcl_accuracy"] == 0.5
    assert check._labels(Net(), look=False)[1] == []


def test_the_record_says_what_chose_a_checkpoint():
    assert checkpoint_source({"checkpoints": {"b-cl": "masks-3"}}, "b-cl") == "masks-3"
    assert checkpoint_source({}, "b-cl") == "validation labels (B-CL)"
    assert checkpoint_source({}, "masks-6") == "masks-6"
    assert checkpoint_source({}, "none") == "none"
    assert checkpoint_source({}, "epoch-7") == "unknown"


def test_kept_epochs_are_read_beside_the_weights(tmp_path):
    folder = tmp_path / "train/tiny/gap/fold0/seed1"
    folder.mkdir(parents=True)
    (folder / "b-cl.json").write_text(json.dumps({"meta": {"epoch": 3}}))
    key = {"dataset": "tiny", "model": "gap", "fold": 0, "seed": 1}
    scores = [{"key": {**key, "checkpoint": name}} for name in ("b-cl", "last")]
    assert kept(scores, tmp_path) == {("gap", 0, 1): {"b-cl": 3}}
