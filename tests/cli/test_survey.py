"""The survey's geometry: squares of 256 and 224 px, maps at stride 8, masks by their nearest pixel, min-max before enlarging."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional

from wsol.cli.config import Model, Prepare, Train, load_config
from wsol.cli.localize import localize, to_square
from wsol.cli.prepare import prepare
from wsol.cli.scoring import Scale, at_size, score
from wsol.cli.train import _streams
from wsol.cli.validation_masks import open_masks
from wsol.data import MapReader, StoredMap, read_image, read_manifest, read_masks
from wsol.models import build_localizer, save_checkpoint
from wsol.slides import Box

CONFIG = Path(__file__).parents[2] / "configs" / "glas_survey.yaml"


def test_the_shipped_study_has_what_is_published_and_a_twin_for_each_defect():
    study = load_config(CONFIG)
    how = study.training("cam")
    assert (how["resize"], how["crop"], how["validate_at"], how["color_jitter"], how["stain_jitter"]) == (256, 224, 224, 0.5, 0)
    assert (study.localize.resize, study.localize.map_class, study.evaluate.size) == (224, "truth", 224)
    assert (study.evaluate.scale, study.evaluate.as_published) == ("per-image", ["test-threshold", "mirrored-threshold"])
    assert [n for n in study.models if "+" in n] == [
        "cam+weight-row", "pixelcam+weight-row", "wildcat+wildcat-min", "pixelcam+background-seeds",
    ]  # fmt: skip
    assert {m.output_stride for m in study.models.values()} == {8}


def test_training_crops_squares_and_validation_sees_them_whole(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    rows = pd.DataFrame({"sample": ["a"], "path": [str(tmp_path / "a.png")], "label": [0]})
    told = SimpleNamespace(rows=rows, checked=rows, masks=None)
    how = Train(resize=48, crop=48, validate_at=32, color_jitter=0, stain_jitter=0)
    drawn, fixed = _streams(SimpleNamespace(kind="images", multilabel=False), told, Model(), how, None, 0)
    square = cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA)
    seen = next(iter(drawn.epoch(torch.Generator().manual_seed(0)))).images[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    turns = [np.rot90(flip, k) for flip in (square, square[:, ::-1]) for k in range(4)]
    assert any(np.array_equal(seen, one) for one in turns)
    whole = next(iter(fixed)).images[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(whole, cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA))


@pytest.fixture
def wide(tmp_path):
    """Wide images, two for each role, with masks."""
    generator = np.random.default_rng(0)
    lines = [["sample", "path", "label", "patient", "mask", "split"]]
    for i, split in enumerate(["train", "train", "val", "val", "test", "test"]):
        Image.fromarray(generator.integers(0, 255, (120, 300, 3), dtype=np.uint8)).save(tmp_path / f"i{i}.png")
        Image.fromarray((generator.random((120, 300)) < 0.5).astype(np.uint8)).save(tmp_path / f"m{i}.png")
        lines.append([f"i{i}", f"i{i}.png", ["benign", "malignant"][i % 2], f"p{i}", f"m{i}.png", split])
    (tmp_path / "sheet.csv").write_text("\n".join(",".join(line) for line in lines))
    options = {
        "sheet": str(tmp_path / "sheet.csv"),
        "classes": ["benign", "malignant"],
        "mask_means": "any-foreground",
        "valpx": 2,
    }
    prepare(Prepare(name="wide", source="images", options=options), manifest=tmp_path / "m.parquet", masks=tmp_path / "k.parquet")
    return tmp_path


def test_a_squared_image_is_drawn_at_28_x_28_and_its_map_covers_the_image(wide):
    net = build_localizer("efficientnet_lite0", "cam", 2, weights=None, output_stride=8).eval()
    save_checkpoint(net, wide / "last.safetensors", {"classes": ["benign", "malignant"]})
    localize(
        {"methods": [{"id": "cam", "method": "cam", "options": {}}], "resize": 224, "map_class": "truth"},
        model=wide / "last.safetensors", manifest=wide / "m.parquet", out=wide / "maps.h5", split="test", fold=0,
        slide=None, tiles=None, threads=1,
    )  # fmt: skip
    with MapReader(wide / "maps.h5") as reader:
        found, said = reader.read("cam", "i5"), reader.provenance
    assert (found.array.shape, found.size, found.frame, said["resize"]) == ((28, 28), (120, 300), Box(0, 0, 300, 120), 224)
    square = cv2.resize(read_image(wide / "i5.png"), (224, 224), interpolation=cv2.INTER_LINEAR)
    with torch.no_grad():
        expected = net(torch.from_numpy(square).permute(2, 0, 1)[None] / 255).maps[0, 1].numpy()
    np.testing.assert_allclose(found.array, expected, rtol=1e-3, atol=1e-4)


def test_masks_that_choose_an_epoch_are_squared_with_their_images(wide):
    listing, truth = read_manifest(wide / "m.parquet"), read_masks(wide / "k.parquet")
    one = open_masks(listing, listing.rows(0, "valpx"), truth, 1, None, 8, side=64)[0]
    assert one.images.shape == (1, 64, 64, 3)
    whole = truth.open(one.sample)
    places = [
        (np.arange(64) * n / 64).astype(int) for n in whole.shape
    ]  # the pixel at the upper left of each cell, as cv2 has it
    np.testing.assert_array_equal(one.masks[0], whole[np.ix_(*places)])


def test_min_max_comes_before_the_map_is_enlarged():
    raw = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    stored = StoredMap(raw, 1, None, (50, 90), None, "whole", 0.0)
    unit = torch.from_numpy((raw - raw.min()) / (raw.max() - raw.min()))[None, None]
    expected = functional.interpolate(unit, (64, 64), mode="bilinear", align_corners=False)[0, 0].numpy()
    found = score(stored, Scale("per-image"), (64, 64))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.max() < 1  # the peak lies inside: no pixel's center is the cell's
    flat = StoredMap(np.full((7, 7), 3.1, np.float32), 1, None, (50, 90), None, "whole", 0.0)
    assert (score(flat, Scale("per-image"), (64, 64)) == 0).all()


def test_a_mask_is_resized_by_its_nearest_pixels():
    mask = np.random.default_rng(2).random((64, 128)) < 0.5
    np.testing.assert_array_equal(at_size(mask, 32), mask[::2, ::4])
    assert at_size(mask, None) is mask


def test_squares_of_areas_where_both_sides_shrink():
    image = np.random.default_rng(3).integers(0, 255, (64, 128, 3), dtype=np.uint8)
    means = image.reshape(32, 2, 32, 4, 3).mean((1, 3))
    assert np.abs(to_square(image, 32) - means).max() <= 0.5 + 1e-6
