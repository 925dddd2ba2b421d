"""The picture of the first batch: what it shows is what the net is given in the first step of a training."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from wsol.cli.batch_picture import COUNT, LINE, picture_batch
from wsol.cli.prepare import prepare
from wsol.cli.schema import Prepare
from wsol.cli.train import train
from wsol.cli.validation_masks import spread
from wsol.data import Batch
from wsol.models import Features, build_localizer
from wsol.models.heads.acol import Acol
from wsol.training import build_strategy, fit, seeded_generator
from wsol.training.resume import weights_hash

CLASSES, SIDE = ["benign", "malignant"], 96


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Images are shown pixel by pixel."""
    monkeypatch.setattr("wsol.cli.batch_picture.SIDE", SIDE)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batches(epoch, draws, b=10):
    images = torch.rand(b, 3, SIDE, SIDE, generator=draws)
    return [Batch(images, torch.arange(b) % 2, [f"s{i}" for i in range(b)])]


def localizer(head="gap", **options):
    return build_localizer("efficientnet_lite0", head, 2, weights=None, head_options=options, generator=generator())


def shown(path):
    """The images in the picture, in [0, 1] (n, 3, SIDE, SIDE)."""
    sheet = np.asarray(Image.open(path))
    cells = [
        sheet[y * (SIDE + LINE + 4) :, x * (SIDE + 4) :][:SIDE, :SIDE]
        for y in range(len(sheet) // (SIDE + LINE))
        for x in range(4)
    ]
    return torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("name", ["classify", "has", "cutmix"])
def test_the_picture_is_what_the_first_step_of_a_training_sees(name, tmp_path):
    net, given = localizer(), []
    picture_batch(tmp_path / "batch.png", net, build_strategy(name), batches, CLASSES, seed=3)
    encode = net.encode
    net.encode = lambda images, **options: given.append(images) or encode(images, **options)
    fit(net, build_strategy(name), batches, epochs=1, seed=3, device="cpu", bf16=False, progress=False)
    assert len(given) == 1
    assert (shown(tmp_path / "batch.png") - given[0][spread(range(10), COUNT)]).abs().max() <= 0.5 / 255 + 1e-6


def test_what_is_erased_is_black(tmp_path):
    net, strategy = localizer(), build_strategy("adl", stages=[-1], drop_rate=1.0)
    picture_batch(tmp_path / "batch.png", net, strategy, batches, CLASSES, seed=3)
    images = batches(1, seeded_generator(3, 1, "batches"))[0].images[spread(range(10), COUNT)]
    activity = net.encode(images).last.mean(1, keepdim=True)
    left = (activity < 0.9 * activity.amax((2, 3), keepdim=True)).float()
    expected = images * left.repeat_interleave(32, 2).repeat_interleave(32, 3)
    assert 0 < left.mean() < 1
    assert (shown(tmp_path / "batch.png") - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_acol_leaves_what_its_second_branch_sees():
    head, f, seen = Acol(4, 2, width=8), Features((torch.rand(3, 4, 6, 5, generator=generator()) + 0.1,)), []
    head.second.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    labels = torch.tensor([0, 1, 1])
    head(f, labels=labels)
    kept = head.kept(f, labels)
    assert torch.equal(seen[0], f.last * kept)
    assert 0 < kept.mean() < 1


def test_nothing_of_the_training_changes(tmp_path):
    net, strategy = localizer(), build_strategy("adl")
    before, state = weights_hash(net), torch.get_rng_state()
    net.eval()
    picture_batch(tmp_path / "batch.png", net, strategy, batches, CLASSES, seed=0)
    assert (weights_hash(net), net.between, net.training) == (before, {}, False)
    assert torch.equal(torch.get_rng_state(), state)
    first = (tmp_path / "batch.png").read_bytes()
    picture_batch(tmp_path / "batch.png", net, strategy, batches, CLASSES, seed=0)
    assert (tmp_path / "batch.png").read_bytes() == first


def test_tiles_of_bags_bear_the_label_of_their_bag(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("wsol.cli.batch_picture.SIDE", 224)  # room for whole names
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, place, text, **options: written.append(text))

    def bags(epoch, draws):
        return [
            Batch(
                torch.rand(3, 3, 64, 32, generator=draws), torch.tensor([1, 0]), ["slide-a", "slide-b"], torch.tensor([1, 0, 0])
            )
        ]

    picture_batch(tmp_path / "batch.png", localizer(), build_strategy("classify"), bags, CLASSES, seed=0)
    assert written == ["benign | slide-b", "malignant | slide-a", "malignant | slide-a"]
    with Image.open(tmp_path / "batch.png") as sheet:
        assert sheet.size == (3 * (112 + 4), 224 + LINE + 4)


def test_no_batch_is_left_to_the_training(tmp_path):
    picture_batch(tmp_path / "batch.png", localizer(), build_strategy("classify"), lambda e, g: [], CLASSES, seed=0)
    assert not list(tmp_path.iterdir())


def test_a_run_has_its_picture(tmp_path):
    rows = []
    for i in range(8):
        Image.fromarray(np.full((64, 64, 3), 20 * i + 50, np.uint8)).save(tmp_path / f"i{i}.png")
        rows.append([f"i{i}", f"i{i}.png", CLASSES[i % 2], f"p{i}", "train" if i < 4 else "val" if i < 6 else "test"])
    with open(tmp_path / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "split"], *rows])
    options = {"sheet": str(tmp_path / "sheet.csv"), "classes": CLASSES}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=tmp_path / "m.parquet", masks=tmp_path / "k.parquet")
    settings = {
        **{"weights": None, "strategy": "has", "strategy_options": {"prob": 1.0}},
        "train": {"epochs": 1, "batch_size": 4, "crop": 64, "bf16": False},
    }
    where = {"manifest": tmp_path / "m.parquet", "out": tmp_path / "run", "tiles": None, "parents": []}
    train(settings, fold=0, seed=0, keep=["last"], threads=1, **where)
    assert (shown(tmp_path / "run/batch.png") * 255 == 127).all()  # everything is hidden
