"""One file through one model: what comes out is what the net, the map method and the study say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import torch
from PIL import Image
from shapely.geometry import shape
from typer.testing import CliRunner

from wsol.cams import cam, finish
from wsol.cli.localize import localize
from wsol.cli.main import app
from wsol.cli.predict import predict, probabilities
from wsol.cli.prepare import prepare
from wsol.cli.schema import Prepare, Tile
from wsol.cli.tile import tile
from wsol.data import MapReader, read_manifest
from wsol.models import build_localizer, save_checkpoint

META = {
    "classes": ["normal", "tumor"], "positive": ["normal"], "task": "binary", "fold": 0, "seed": 3,
    "settings": {"name": "gap", "tile": {"mpp": 1.0, "tile_px": 64, "min_tissue": 0.05, "labels": "annotation"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def net():
    made = build_localizer(
        "efficientnet_lite0", "gap", 2, weights=None, output_stride=16, generator=torch.Generator().manual_seed(0)
    ).eval()
    torch.nn.init.normal_(made.head.weight, generator=torch.Generator().manual_seed(1))
    return made


@pytest.fixture(scope="module")
def model(net, tmp_path_factory):
    return save_checkpoint(net, tmp_path_factory.mktemp("run") / "b-cl.safetensors", META)[0]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A picture of 96 x 64 px (whole cells), as file and as the net's input."""
    path = tmp_path_factory.mktemp("image") / "my picture.png"
    pixels = np.random.default_rng(0).integers(60, 255, (64, 96, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path, torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def ends(net, image):
    """A range that is a little wider than that of the map."""
    values = raw(net, image[1], target=1)
    return float(values.min()) - 0.5, float(values.max()) + 0.25


@pytest.fixture
def scores(model, ends, tmp_path):
    """What an evaluation of this model may have fixed: the range, and a threshold of 0.4."""
    low, high = ends
    method = {"id": "mine", "method": "cam", "options": {}}
    fixed = {
        "key": {"dataset": "tiny", "model": "gap", "fold": 0, "seed": 3, "checkpoint": "b-cl", "set": "fast", "split": "test"},
        "classes": META["classes"],
        "drawn_by": {
            "methods": [method], "halo_px": 32, "sha256": json.loads(model.with_suffix(".json").read_text())["sha256"],
        },
        "methods": {
            "mine": {
                "badges": {"map_class": "declared positive"}, "class": "tumor",
                "scale": {"kind": "fitted", "rectified": False, "low": low, "high": high},
                "threshold": {"value": 0.4, "source": "validation masks", "direction": ">=", "masks": 6},
            }
        },
    }  # fmt: skip
    (tmp_path / "scores.json").write_text(json.dumps(fixed))
    return tmp_path / "scores.json"


def raw(net, images, target):
    return cam("cam", net, images, torch.tensor([target]))[0].numpy()


def test_an_image_is_what_net_and_method_say(net, model, image, tmp_path):
    path, images = image
    found = predict(path, model=model, out=tmp_path)
    logits = net(images).logits[0].detach().double()
    assert list(found["probabilities"].values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)
    assert found["predicted"] == META["classes"][int(logits.argmax())]
    assert (found["kind"], found["map"]["class"], found["map"]["scale"]) == ("images", "normal", "range of this map")
    values = raw(net, images, target=0)  # the declared positive class of the checkpoint, not the second of two
    expected = finish(values, (64, 96), relu=False, normalize="range", scope=tuple(np.percentile(values, [0.5, 99.5])))
    page = tifffile.imread(found["files"]["ome_tiff"])
    assert np.abs(page.astype(int) - np.round(255 * np.clip(expected, 0, 1))).max() <= 1
    assert found == json.loads((tmp_path / "prediction.json").read_text())
    assert set(found["files"]) == {"overlay", "ome_tiff"}  # nothing to outline without a threshold
    with tifffile.TiffFile(found["files"]["ome_tiff"]) as tiff:
        assert "PhysicalSizeX" not in tiff.ome_metadata


def test_scores_fix_class_scale_and_threshold(net, model, image, scores, ends, tmp_path):
    (path, images), (low, high) = image, ends
    found = predict(path, model=model, scores=scores, out=tmp_path, kind="images", mpp=0.5)
    expected = np.clip(finish(raw(net, images, target=1), (64, 96), relu=False, normalize="range", scope=(low, high)), 0, 1)
    assert found["flagged_area"] == pytest.approx((expected >= 0.4).mean(), abs=1e-9)
    assert (found["map"]["class"], found["map"]["threshold"]) == ("tumor", 0.4)
    assert found["map"]["threshold_source"] == "validation masks (6)"
    regions = [shape(f["geometry"]) for f in json.loads(Path(found["files"]["geojson"]).read_text())["features"]]
    assert sum(r.area for r in regions) / (64 * 96) == pytest.approx((expected >= 0.4).mean(), abs=0.02)
    assert 0.02 < found["flagged_area"] < 0.98  # or the comparison would say little
    with openslide.OpenSlide(found["files"]["ome_tiff"]) as opened:
        assert float(opened.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.5)


def test_a_slide_is_what_the_study_says(model, tmp_path):
    options = {"slides": 6, "patients": 3, "size": 600, "out": str(tmp_path / "slides")}
    manifest = tmp_path / "m.parquet"
    prepare(Prepare(name="t", source="phantom", options=options), manifest=manifest, masks=tmp_path / "k.parquet")
    row = next(read_manifest(manifest).rows(0, "test").itertuples(index=False))
    tile(Tile(tile_px=64, min_tissue=0.05), manifest=manifest, slide=row.sample, out=tmp_path / "t.parquet")
    localize(
        {"methods": [{"id": "cam", "method": "cam", "options": {}}]}, model=model, manifest=manifest, out=tmp_path / "maps.h5",
        split="test", fold=0, slide=row.sample, tiles=tmp_path / "t.parquet", threads=1,
    )  # fmt: skip
    with MapReader(tmp_path / "maps.h5") as reader:
        logits, stored = torch.from_numpy(reader.logits(row.sample)), reader.read("cam", row.sample)
    found = predict(Path(row.path), model=model, out=tmp_path / "p", target="tumor")
    assert list(found["probabilities"].values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)
    assert (found["kind"], found["map"]["drawn"], found["map"]["class"]) == ("slides", "whole", "tumor")
    shown = tifffile.imread(found["files"]["ome_tiff"])
    assert shown.max() >= 200  # the map's own range
    assert (shown == 0).mean() >= (~stored.coverage).mean() - 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": "tumour"}, "did you mean 'tumor'"),
        ({"method": "gradcam"}, "did you mean 'grad-cam'"),
        ({"kind": "slide"}, "did you mean 'slides'"),
        ({"kind": "slides"}, "no resolution in the file; give --mpp"),
    ],
)
def test_what_does_not_go_is_said_before_anything_is_drawn(model, image, tmp_path, change, says):
    with pytest.raises((ValueError, RuntimeError), match=says):
        predict(image[0], model=model, out=tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_scores_of_other_weights_or_of_the_true_class_are_refused(model, image, scores):
    known = json.loads(scores.read_text())
    with pytest.raises(ValueError, match="belong to the class that was evaluated"):
        predict(image[0], model=model, scores=scores, target="tumor")
    known["methods"]["mine"]["badges"]["map_class"] = "ground truth"
    scores.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="true class, which is not known"):
        predict(image[0], model=model, scores=scores)
    known["drawn_by"]["sha256"] = "0" * 64
    scores.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="other weights"):
        predict(image[0], model=model, scores=scores)


def test_glass_without_tissue_is_an_error_with_the_reason(model, tmp_path):
    Image.new("RGB", (400, 300), "white").save(tmp_path / "empty.png")
    with pytest.raises(RuntimeError, match="nothing can be drawn"):
        predict(tmp_path / "empty.png", model=model, kind="slides", mpp=1.0)


def test_a_folder_is_its_only_slide(model, image, tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    (folder / "one.png").write_bytes(image[0].read_bytes())
    assert predict(folder, model=model, out=tmp_path / "p")["file"] == str(folder / "one.png")
    (folder / "two.png").write_bytes(image[0].read_bytes())
    with pytest.raises(ValueError, match="holds 2 slides or images; name one"):
        predict(folder, model=model, out=tmp_path / "p")


def test_several_labels_have_a_probability_each():
    assert probabilities([0.0, 2.0, -800.0], several=True) == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 0.0])
    assert probabilities([1e4, 0.0], several=False) == [1.0, 0.0]


def test_the_verb_prints_json_or_words(model, image, tmp_path):
    words = ["predict", str(image[0]), "--model", str(model), "--out", str(tmp_path)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0
    assert "no threshold is known, so nothing is outlined" in told.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json", "--class", "tumor"]).stdout)
    assert found["map"]["class"] == "tumor"
    assert CliRunner().invoke(app, ["predict", str(image[0])]).exit_code == 2
