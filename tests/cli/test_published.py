"""A study with the defects of the published code beside the models and the numbers that they spoil."""

from __future__ import annotations

import csv
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from wsol.cli.config import ConfigError, load_config
from wsol.cli.evaluate import evaluate
from wsol.cli.files import read_json, write_json
from wsol.cli.localize import localize
from wsol.cli.model import Model
from wsol.cli.plan import model_settings
from wsol.cli.prepare import prepare
from wsol.cli.published import options
from wsol.cli.schema import Evaluate, Prepare
from wsol.cli.train import train
from wsol.data import MapReader, MapWriter, read_image, read_manifest, read_masks, to_tensor
from wsol.models import load_checkpoint

SIDE = 64
STUDY = {
    "prepare": {"name": "d", "source": "glas"},
    "models": {
        "cam": {"head": "cam"}, "gap": {}, "wild": {"head": "wildcat", "head_options": {"kmax": 0.3}},
        "negev": {"from": "cam", "head": "decoded", "strategy": "negev"},
        "pixel": {"from": "gap", "head": "pixel", "strategy": "pixelcam"},
    },
    "maps": {"fast": ["cam"]},
}  # fmt: skip
KEY = {"dataset": "tiny", "model": "cam", "checkpoint": "last", "fold": 0, "seed": 0, "set": "fast", "split": "test"}


def study(**changes):
    return load_config({**deepcopy(STUDY), **changes})


def test_each_defect_gives_a_twin_to_the_models_that_it_concerns():
    config = study(as_published=["weight-row", "wildcat-min", "background-seeds", "test-threshold"])
    made = {name: (m.parent, m.as_published) for name, m in config.models.items() if name not in STUDY["models"]}
    assert made == {
        "cam+weight-row": (None, ["weight-row"]),
        "negev+weight-row": ("cam+weight-row", ["weight-row"]),  # its seeds come from the maps of the spoiled parent
        "wild+wildcat-min": (None, ["wildcat-min"]),
        "negev+background-seeds": ("cam", ["background-seeds"]),
        "pixel+background-seeds": ("gap", ["background-seeds"]),
    }
    assert config.evaluate.as_published == ["test-threshold"]
    plain, twin = (model_settings(config, name) for name in ("wild", "wild+wildcat-min"))
    assert {k for k in twin if twin[k] != plain[k]} == {"as_published"}  # nothing else differs, the seed of the run neither
    assert load_config(config.model_dump(by_alias=True)).models == config.models  # no twins of twins
    models = {**STUDY["models"], "cam+weight-row": {"head": "gap"}}
    with pytest.raises(ConfigError, match=r"models\.cam\+weight-row: \+ is kept for the twins NAME\+DEFECT"):
        study(models=models, as_published=["weight-row"])


def test_a_child_of_a_spoiled_model_is_told_as_such():
    models = {"cam": {"head": "cam", "as_published": ["weight-row"]}, "child": {"from": "cam"}}
    assert model_settings(study(models=models), "child")["as_published"] == ["weight-row"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"as_published": ["weight-rows"]}, "as_published.0: unknown defect of the published code 'weight-rows'; did you mean"),
        ({"as_published": ["wildcat-min"], "models": {"gap": {}}}, "wildcat-min needs a model with head: wildcat; there is none"),
        ({"models": {"a": {"as_published": ["test-threshold"]}}}, "unknown defect of a model 'test-threshold'"),
        ({"models": {"a": {"as_published": ["weight-row"]}}}, "models.a.as_published: neither it nor a model that it descends"),
        ({"evaluate": {"as_published": ["weight-row"]}}, "unknown defect of the evaluation 'weight-row'"),
        ({"as_published": ["weight-row"], "models": {"a": {"from": "b"}, "b": {"from": "a", "head": "cam"}}}, "in a circle"),
        ({"train": {"resize": 256}}, "crop: 416 does not fit into images that resize: 256 makes"),
        ({"localize": {"resize": 225}}, "localize.resize"),
        ({"prepare": {"name": "d", "source": "phantom"}, "evaluate": {"size": 224}}, "slides are compared as they are"),
    ],
)
def test_a_slip_is_answered(change, says):
    with pytest.raises(ConfigError) as error:
        study(**change)
    assert says in str(error.value)


def test_the_options_of_a_defect_are_those_of_the_part_that_has_it():
    both = ["weight-row", "background-seeds"]
    assert options(both, "cam", "classify") == {
        "head_options": {"background": True, "published_rows": True},
        "strategy_options": {},
    }
    assert options(both, "decoded", "negev") == {"head_options": {}, "strategy_options": {"released": True}}
    assert options(["wildcat-min"], "wildcat", "has")["head_options"] == {"released_min": True}
    assert Model(head="wildcat").as_published == []


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve images of noise, a dark square on the positive ones."""
    root = tmp_path_factory.mktemp("published")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(12):
        image, mask = generator.integers(150, 255, (SIDE, SIDE, 3), dtype=np.uint8), np.zeros((SIDE, SIDE), bool)
        if i % 2:
            mask[8:40, 16:48] = True
            image[mask] //= 2
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"m{i}.png")
        Image.fromarray(image).save(root / f"i{i}.png")
        split = "train" if i < 4 else "val" if i < 8 else "test"
        rows.append([f"i{i}", f"i{i}.png", ["normal", "tumor"][i % 2], f"p{i // 2}", f"m{i}.png" if i % 2 else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    sheet = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=sheet), manifest=root / "m.parquet", masks=root / "k.parquet")
    return root


def fitted(root, name, **model):
    """The net of one epoch, and its maps of the class tumor on the test images."""
    settings = {
        "name": name, "weights": None, "freeze_bn": False, "output_stride": 32, **model,
        "train": {"epochs": 1, "batch_size": 2, "crop": 64, "bf16": False, "lr": 1e-3},
    }  # fmt: skip
    where = {"manifest": root / "m.parquet", "out": root / name, "tiles": None, "parents": []}
    train(settings, fold=0, seed=0, keep=["last"], threads=1, **where)
    drawn(root, name, "test")
    with MapReader(root / name / "test.h5") as reader:
        return load_checkpoint(root / name / "last.safetensors"), np.stack([reader.read("cam", s).array for s in ("i8", "i9")])


def drawn(root, name, split):
    localize(
        {"methods": [{"id": "cam", "method": "cam", "options": {}}]}, model=root / name / "last.safetensors",
        manifest=root / "m.parquet", out=root / name / f"{split}.h5", split=split, fold=0, slide=None, tiles=None, threads=1,
    )  # fmt: skip


def test_the_twin_with_the_wrong_row_is_the_same_net_and_draws_the_other_class(root):
    plain, _ = fitted(root, "cam", head="cam")
    twin, maps = fitted(root, "cam+weight-row", head="cam", as_published=["weight-row"])
    ours, theirs = plain.state_dict(), twin.state_dict()
    assert set(theirs) - set(ours) == {"head.background_weight"}
    assert all((theirs[name] == value).all() for name, value in ours.items())
    images = to_tensor([read_image(root / f"{s}.png") for s in ("i8", "i9")])
    with torch.no_grad():
        normal, tumor = plain.eval()(images).maps.unbind(1)
    np.testing.assert_allclose(maps, normal.numpy(), rtol=1e-4, atol=1e-6)  # of the class tumor, by its name
    assert not np.allclose(maps, tumor.numpy())
    drawn(root, "cam+weight-row", "valcl")
    said = numbers(root, root / "cam+weight-row", record=root / "cam+weight-row/run.json")
    assert said["badges"]["as_published"] == "weight-row"


def test_wildcat_without_its_minimum_is_the_mean_of_the_largest(root):
    twin, _ = fitted(root, "wild+wildcat-min", head="wildcat", as_published=["wildcat-min"])
    assert twin.head.released_min
    assert read_json(root / "wild+wildcat-min/run.json")["settings"]["as_published"] == ["wildcat-min"]


def made_up(root, out, value):
    """Maps that are `value(mask)`, for validation and test."""
    listing, truth = read_manifest(root / "m.parquet"), read_masks(root / "k.parquet")
    out.mkdir(exist_ok=True)
    for split in ("valcl", "test"):
        made = {"map_class": "positive", "methods": [{"id": "cam", "method": "cam", "options": {}}]}
        with MapWriter(out / f"{split}.h5", made) as writer:
            for row in listing.rows(0, split).itertuples(index=False):
                mask = truth.open(row.sample, shape=(SIDE, SIDE))
                writer.add("cam", row.sample, value(mask).astype(np.float32), target=1, size=(SIDE, SIDE))
    write_json(out / "run.json", {"supervision": "image label", "masks": 0})


def numbers(root, out, record=None, **settings):
    quick = {"bootstrap": 5, "compare_scales": [], "regions": False, "boxes_px": 0}
    evaluate(
        Evaluate(**quick, **settings), manifest=root / "m.parquet", masks=root / "k.parquet", maps=out / "test.h5",
        validation=out / "valcl.h5", record=record or out / "run.json", key=KEY, scores=out / "scores.json",
        curves=out / "curves.parquet",
    )  # fmt: skip
    return read_json(out / "scores.json")["methods"]["cam"]


def test_defects_of_the_evaluation_stand_beside_the_number_and_do_not_change_it(root):
    def value(mask):  # 0.6 on the mask and on as many pixels beside it, 0.8 on its upper half
        found = np.where(mask | np.roll(mask, 24, 0), 0.6, 0.0)
        found[:24][mask[:24]] = 0.8
        return found

    made_up(root, root / "made", value)
    how = {"scale": "none", "threshold": "fixed", "fixed": 0.3}
    plain = numbers(root, root / "made", **how)
    found = numbers(root, root / "made", **how, as_published=["test-threshold", "mirrored-threshold"])
    assert plain["as_published"] == {}
    assert "as_published" not in found["badges"]
    assert {k: v for k, v in found.items() if k != "as_published"} == {k: v for k, v in plain.items() if k != "as_published"} | {
        "seconds": found["seconds"]
    }
    beside = found["as_published"]
    # Pixels of the two tumors: 2 x 1024 on the mask, half of them at 0.8; 2 x 768 beside it at 0.6.
    assert beside["test-threshold"]["threshold"] == 0.6
    assert beside["test-threshold"]["dice"] == pytest.approx(2 * 1024 / (2 * 1024 + 768))
    assert beside["mirrored-threshold"]["threshold"] == 0.701
    assert beside["mirrored-threshold"]["dice"] == pytest.approx(2 * 512 / (2 * 512 + 512))
    assert found["groups"]["all"]["dice"] == beside["test-threshold"]["dice"]  # 0.3 flags the same pixels as 0.6
    assert beside["test-threshold"]["badge"] == "as published: test-threshold"
