"""The schema: the files we ship are valid, and a slip is answered with the nearest known word."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wsol._names import resolve
from wsol.cli.config import ConfigError, Tile, load_config
from wsol.cli.plan import model_settings, plan
from wsol.cli.reference import reference
from wsol.models import DECODERS, HEADS, PixelHead
from wsol.training import DECODED, MASKED, STRATEGIES, TAUGHT, build_strategy, strategy_options

ROOT = Path(__file__).parents[2]
STUDY = {
    "prepare": {"name": "d", "source": "phantom", "options": {"out": "x", "slides": 16, "patients": 8, "folds": 4}},
    "models": {"gap": {}, "child": {"from": "gap", "head": "lse", "train": {"epochs": 3}}},
    "maps": {"fast": ["cam", {"id": "deep", "method": "layer-cam", "options": {"layers": [-1]}}]},
}


def study(**changes):
    return {**deepcopy(STUDY), **changes}


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "configs").glob("*.yaml")))
def test_shipped_studies_are_valid(file):
    assert load_config(ROOT / "configs" / file).models


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"evalute": {}}, "did you mean 'evaluate'"),
        ({"train": {"epoch": 3}}, "train.epoch: unknown key 'epoch'; did you mean 'epochs'"),
        ({"models": {"a": {"hed": "gap"}}}, "did you mean 'head'"),
        ({"models": {"a": {"head": "gpa"}}}, "unknown head 'gpa'; did you mean 'gap'"),
        ({"models": {"a": {"train": {"ephocs": 1}}}}, "did you mean 'epochs'"),
        ({"maps": {"m": ["gradcam"]}}, "unknown CAM method 'gradcam'; did you mean 'grad-cam'"),
        ({"maps": {"m": ["cam", "cam"]}}, "an id stands twice"),
        ({"checkpoints": ["b-loc"]}, "unknown checkpoint 'b-loc'"),
        ({"models": {"a": {"from": "b"}}}, "named by models.a.from"),
        ({"models": {"a": {"from": "b"}, "b": {"from": "a"}}}, "runs in a circle: a -> b -> a"),
        ({"models": {"floors": {}}}, "this name is taken"),
        ({"train": {"lr": -1}}, "train.lr"),
        ({"prepare": {"name": "d", "source": "glass"}}, "did you mean 'glas'"),
        ({"prepare": {"source": "glas"}}, "prepare.name: this key is required"),
        ({"models": {}}, "at least one model"),
        ({"models": {"a": {"maps": ["fst"]}}}, "unknown map set 'fst'; did you mean 'fast'"),
        ({"models": {"a": {"strategy": "hass"}}}, "models.a.strategy: unknown strategy 'hass'; did you mean 'has'"),
        ({"models": {"a": {"seeds": "gradcam"}}}, "models.a.seeds: unknown CAM method 'gradcam'; did you mean 'grad-cam'"),
        (
            {"models": {"a": {"head": "decoded"}}},
            "models.a.strategy: head 'decoded' draws pixels, which strategy 'classify' does not train, so they would be noise; "
            "take strategy negev or pixelcam or f-cam or unet,",
        ),
        ({"models": {"a": {"head": "pixel", "strategy": "maxmin"}}}, "models.a.strategy: head 'pixel' draws pixels, which"),
        ({"models": {"a": {"head": "masker", "strategy": "has"}}}, "draws masks, which strategy 'has' does not train"),
        ({"models": {"a": {"head": "masker", "strategy": "unet"}}}, "take strategy masker, or a head without"),
        ({"models": {"a": {"strategy": "negev"}}}, "'negev' trains pixels, which head 'gap' does not draw; take head decoded or"),
        ({"models": {"a": {"strategy": "masker"}}}, "which head 'gap' does not draw; take head masker"),
        (
            {"models": {"a": {"strategy": "pixelcam", "head": "pixel"}}},
            "models.a.from: strategy 'pixelcam' learns from a trained model: name it here",
        ),
        (
            {"models": {"a": {}, "b": {"from": "a", "backbone": "resnet18"}}},
            "models.b.backbone: 'resnet18', but `from` names 'a', whose backbone is 'efficientnet_lite0'",
        ),
        ({"prepare": {"name": "d", "source": "glas"}, "models": {"a": {"strategy": "inherit"}}}, "for images take classify"),
        (
            {"prepare": {"name": "d", "source": "glas"}, "models": {"a": {"train": {"embeddings": "tiles"}}}},
            "models.a.train.embeddings: images are drawn as fresh crops",
        ),
        ({"models": {"a": {"train": {"lr": -1}}}}, "models.a.train: lr: Input should be greater than 0; got -1"),
        ({"models": {"a+b": {}}}, "models.a+b: + is kept for the twins NAME+DEFECT that as_published makes"),
    ],
)
def test_a_slip_names_the_place_and_the_nearest_word(change, says):
    with pytest.raises(ConfigError, match="config") as error:
        load_config(study(**change))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": [99999999999999999999]}, "seeds.0: Input should be less than 4294967296; got 99999999999999999999"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 stands twice in [0, 1, 0]; keep one"),
        ({"folds": [2, 2]}, "folds: 2 stands twice"),
        ({"folds": [10**30]}, "folds.0: Input should be less than or equal to 1000000"),
        ({"checkpoints": ["last", "last"]}, "checkpoints: 'last' stands twice"),
        ({"evaluate": {"splits": ["test", "test"]}}, "evaluate.splits: 'test' stands twice"),
        ({"tile": {"mpp": 0.0001}}, "tile.mpp: Input should be greater than or equal to 0.02"),
        ({"tile": {"tile_px": 100_000_000}}, "tile.tile_px: Input should be less than or equal to 16384"),
        ({"tile": {"tile_um": 1e6}}, "tile_um: 1e+06 um at mpp 1 are 1000000 px, at most 16384 fit"),
        ({"train": {"epochs": 10**22}}, "train.epochs: Input should be less than or equal to 1000000"),
        (
            {"models": {"a": {"train": {"repeats": 10**22}}}},
            "models.a.train: repeats: Input should be less than or equal to 1000000",
        ),
        ({"evaluate": {"bootstrap": 10**22}}, "evaluate.bootstrap: Input should be less than or equal to 1000000"),
        ({"train": {"crop": 10**8}}, "train.crop: Input should be less than or equal to 16384"),
        ({"train": {"lr": float("inf")}}, "train.lr: Input should be a finite number"),
        ({"results": "a\nb"}, "results: 'a\\nb' holds '\\n'"),
        ({"results": "o'neill"}, 'results: "o\'neill" holds "\'"'),
        ({"results": 'a"b'}, "results: 'a\"b' holds '\"'"),
        ({"results": "{run}"}, "results: '{run}' holds '{' '}'"),
        ({"results": "my results"}, "results: 'my results' holds ' '; it stands in shell commands"),
        ({"prepare": {"name": "d\n", "source": "phantom"}}, "prepare.name: String should match"),
        ({"prepare": {"name": "d'", "source": "phantom"}}, "prepare.name: String should match"),
    ],
)
def test_values_that_would_fail_later_are_refused_at_once(change, says):
    with pytest.raises(ConfigError) as error:
        load_config(study(**change))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "change", [{"seeds": [2**32 - 1, 0]}, {"tile": {"mpp": 0.02, "tile_px": 16384}}, {"results": "/tmp/räsults"}]
)
def test_values_at_their_bounds_are_taken(change):
    (key, value), *_ = change.items()
    told = load_config(study(**change)).model_dump()[key]
    assert told == value or value.items() <= told.items()


def test_broken_yaml_and_missing_file_name_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("models: [")
    with pytest.raises(ConfigError, match=r"a\.yaml: not valid YAML"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("maps: {fast: [cam], fast: [cam]}")
    with pytest.raises(ConfigError, match=r"'fast' stands twice \(line 1\)"):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"b\.yaml: no such"):
        load_config(tmp_path / "b.yaml")


def test_a_models_own_training_settings_win():
    config = load_config(study(train={"epochs": 9, "crop": 64}))
    assert model_settings(config, "child")["train"]["epochs"] == 3
    assert model_settings(config, "child")["train"]["crop"] == 64
    assert model_settings(config, "gap")["train"]["epochs"] == 9
    assert config.lineage("child") == ["child", "gap"]
    many = {**STUDY["models"], "lse": {"head": "lse"}, "r": {"from": ["child", "lse"], "head": "readout", "strategy": "readout"}}
    assert load_config(study(models=many)).lineage("r") == ["r", "child", "gap", "lse"]


def test_map_entries_become_ids_with_methods():
    assert load_config(study()).methods("fast") == [
        {"id": "cam", "method": "cam", "options": {}},
        {"id": "deep", "method": "layer-cam", "options": {"layers": [-1]}},
    ]


def test_tile_side_in_um_is_a_multiple_of_32_px():
    assert Tile(mpp=0.5, tile_um=128).side_px == 256
    assert Tile(mpp=1.0, tile_um=250).side_px == 256


def test_plan_multiplies_folds_seeds_models_checkpoints_and_sets():
    config = load_config(study(folds=[0, 2], seeds=[0, 1, 5], checkpoints=["b-cl", "last"]))
    made = plan(config)
    runs = made.runs(floors=True)
    assert len(runs) == 2 * 3 * (2 * 2 * 1 + 1)
    assert len({tuple(r.items()) for r in runs}) == len(runs)
    assert made.by_slide
    assert set(made.part(0, "test")).isdisjoint(made.part(0, "valcl"))


def test_masks_that_train_a_model_choose_none_of_its_checkpoints():
    models = {"gap": {}, "few": {"strategy": "unet", "head": "decoded", "train_on": "valpx"}}
    images = {"prepare": {"name": "d", "source": "images"}, "models": models, "maps": {"fast": ["native"]}}
    config = load_config(images | {"checkpoints": ["b-cl", "masks-6"]})
    assert (config.kept("gap"), config.kept("few")) == (["b-cl", "masks-6"], ["b-cl"])
    made = [(r["model"], r["checkpoint"]) for r in plan(config).runs(floors=False)]
    assert made == [("gap", "b-cl"), ("gap", "masks-6"), ("few", "b-cl")]
    with pytest.raises(ConfigError, match=r"models.few trains on the role valpx.*keep another too"):
        load_config(images | {"checkpoints": ["masks-6"]})


def test_a_model_draws_its_own_map_sets_or_all():
    maps = {"fast": ["cam"], "trained": ["masker"], "slow": ["rise"]}
    models = {"gap": {"maps": ["slow", "fast"]}, "masker": {"from": "gap", "head": "masker", "strategy": "masker"}}
    config = load_config(study(maps=maps, models=models))
    drawn = [(run["model"], run["set"]) for run in plan(config).runs(floors=False)]
    assert drawn == [("gap", "fast"), ("gap", "slow"), *(("masker", s) for s in maps)]
    models["gap"]["maps"] = ["fast"]
    assert model_settings(load_config(study(maps=maps, models=models)), "gap") == model_settings(config, "gap")  # no retraining


def test_what_is_known_of_heads_and_strategies_without_torch_is_so():
    heads = {name: resolve("head", name, HEADS, "wsol.models") for name in HEADS}
    special = {"mask": "masks", "read": "a readout"}
    drawn = {
        name: next((what for part, what in special.items() if hasattr(kind, part)), "pixels")
        for name, kind in heads.items()
        if issubclass(kind, PixelHead)
    }
    assert drawn == DECODERS
    net = SimpleNamespace(head=heads["gap"](4, 2), backbone=torch.nn.Identity(), between={}, stage_number=int)
    refused, taught = [], []
    for name in STRATEGIES:
        needs_seeds = "seeds" in strategy_options(name)
        strategy = build_strategy(name, **({"seeds": print} if needs_seeds else {}))
        if strategy.needs_parent or needs_seeds:
            taught.append(name)
        try:
            strategy.attach(net)
        except ValueError:
            refused.append(name)
    assert refused == list(DECODED)
    assert taught == list(TAUGHT)
    assert [n for n in STRATEGIES if resolve("", n, STRATEGIES, "wsol.training").supervision == "masks"] == list(MASKED)


def test_an_option_of_the_source_is_checked_before_slides_are_listed():
    prepare = {"name": "d", "source": "phantom", "options": {"out": "x", "slide": 16}}
    with pytest.raises(
        ValueError, match=r"unknown option 'slide' of source 'phantom' \(prepare.options\); did you mean 'slides'"
    ):
        plan(load_config(study(prepare=prepare)))


def test_a_fold_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"folds: \[7\] have no samples"):
        plan(load_config(study(folds=[7])))


def test_the_reference_in_the_docs_is_the_schema():
    assert (ROOT / "docs/configuration.md").read_text() == reference() + "\n"


def test_a_shuffled_control_must_be_one():
    study = {
        "prepare": {"name": "x", "source": "phantom"},
        "models": {"gap": {}, "noise": {"shuffle_labels": True}},
        "maps": {"fast": ["cam"]},
    }
    assert load_config({**study, "probe": {"samples": 2, "shuffled": {"gap": "noise"}}}).probe.shuffled == {"gap": "noise"}
    with pytest.raises(ConfigError, match=r"models\.gap is trained on true labels"):
        load_config({**study, "probe": {"shuffled": {"noise": "gap"}}})
    with pytest.raises(ConfigError, match="did you mean 'noise'"):
        load_config({**study, "probe": {"shuffled": {"gap": "nois"}}})
