"""A classifier and the masking network that explains it, through the verbs: trained, stored, loaded, drawn."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from wsol.cli.config import Prepare, load_config
from wsol.cli.localize import localize
from wsol.cli.plan import model_settings
from wsol.cli.prepare import prepare
from wsol.cli.train import train
from wsol.cli.validation import Look
from wsol.data import MapReader, read_image
from wsol.models import checkpoint_recipe, load_checkpoint

SIDE = 64
STUDY = {
    "prepare": {"name": "tiny", "source": "images"},
    "models": {
        "gap": {"head": "gap", "weights": None, "maps": ["plain"]},
        "masker": {"from": "gap", "head": "masker", "head_options": {"width": 8}, "strategy": "masker", "weights": None},
    },
    "maps": {"plain": ["cam"], "m": ["masker", {"id": "full", "method": "masker", "options": {"confidence": 0}}, "cam"]},
    "train": {"epochs": 2, "batch_size": 3, "crop": 64, "bf16": False},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve images of two classes; the study's two models."""
    root = tmp_path_factory.mktemp("masker")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(12):
        image = generator.integers(180, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        if i % 2:
            image[16:40, 8:40] = 80
        Image.fromarray(image).save(root / f"i{i}.png")
        rows.append([f"i{i}", f"i{i}.png", ("normal", "tumor")[i % 2], f"p{i // 2}", ("train", "val", "test")[i // 4]])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    fit(root, "gap", parent=None)
    fit(root, "masker", parent=root / "gap/last.safetensors")
    return root


def fit(root, name, parent):
    settings = {**model_settings(load_config(STUDY), name), "name": name}
    train(
        settings, manifest=root / "m.parquet", out=root / name, fold=0, seed=0, tiles=None, parents=[parent] if parent else [],
        keep=["b-cl", "last"], threads=1,
    )  # fmt: skip


def test_the_classifier_is_the_parents_to_the_bit(root):
    parent, child = (load_checkpoint(root / name / "last.safetensors") for name in ("gap", "masker"))
    ours = child.state_dict()
    for key, value in parent.state_dict().items():
        assert torch.equal(ours["head.base" + key.removeprefix("head") if key.startswith("head.") else key], value), key
    with open(root / "masker/history.csv") as file:
        first, second = csv.DictReader(file)
    assert float(first["train_loss"]) > 0
    assert first["train_area"] == ""
    assert all(float(second[f"train_{name}"]) >= 0 for name in ("destroyed", "preserved", "area", "smooth"))
    assert first["valcl_loss"] == second["valcl_loss"]


def test_where_all_epochs_classify_alike_the_last_is_kept(root):
    """In the first the decoder has not learned a thing."""
    assert checkpoint_recipe(root / "masker/b-cl.safetensors")[1]["epoch"] == 2


def test_maps_on_disk_are_the_masks_of_the_stored_net(root):
    model = root / "masker/last.safetensors"
    localize(
        {"methods": load_config(STUDY).methods("m")}, model=model, manifest=root / "m.parquet", out=root / "maps.h5",
        split="test", fold=0, slide=None, tiles=None, threads=1,
    )  # fmt: skip
    net = load_checkpoint(model)
    with MapReader(root / "maps.h5") as reader:
        for sample in ("i8", "i9"):
            images = torch.from_numpy(read_image(root / f"{sample}.png")).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                f = net.encode(images)
                expected = [net.head.mask(f, torch.tensor([1]), c)[0].numpy() for c in (6.0, 0.0)]
            for name, one in zip(("masker", "full"), expected, strict=True):
                stored = reader.read(name, sample)
                assert stored.array.shape == (16, 16)
                np.testing.assert_allclose(stored.array, one, atol=1e-5)
            assert reader.read("cam", sample).array.shape == (4, 4)


def test_checkpoints_are_chosen_by_the_mask_and_not_by_the_frozen_class_map(root):
    net = load_checkpoint(root / "masker/last.safetensors")
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net.head.mask(net.encode(images), torch.tensor([1, 1]))
    assert torch.equal(Look(net, 1, [images]).maps(images), expected)
    assert Look(load_checkpoint(root / "gap/last.safetensors"), 1, [images]).maps(images).shape == (2, 4, 4)


def test_a_black_box_without_a_parent_is_refused(root):
    with pytest.raises(ValueError, match=r"strategy 'masker' explains a classifier.*name a trained model in `from`"):
        fit(root, "masker", parent=None)


def test_a_net_without_the_head_is_told_so(root):
    with pytest.raises(ValueError, match="method 'masker' needs a net that was trained with head 'masker'"):
        localize(
            {"methods": load_config(STUDY).methods("m")}, model=root / "gap/last.safetensors", manifest=root / "m.parquet",
            out=root / "no.h5", split="test", fold=0, slide=None, tiles=None, threads=1,
        )  # fmt: skip
    assert not (root / "no.h5").exists()
