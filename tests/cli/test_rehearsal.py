"""`wsol config` finds what would end a study later, all of it at once, each with the key to change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wsol.cli.besides import config_
from wsol.cli.config import ConfigError, load_config
from wsol.cli.negatives import require_negatives
from wsol.cli.rehearsal import rehearse

NET = {"weights": None, "output_stride": 32}


def study(tiled, *, source="images", options=None, models=None, maps=None, **more):
    sheet = {"sheet": str(tiled / "sheet.csv"), "classes": ["normal", "tumor"], **(options or {})}
    return {
        "prepare": {"name": "d", "source": source, "options": sheet},
        "models": models or {"gap": NET},
        "maps": maps or {"fast": ["cam", "grad-cam"]},
        "tile": {"tile_px": 32},
        "train": {"crop": 64, "epochs": 2},
        **more,
    }


def found(tiled, **changes):
    return rehearse(load_config(study(tiled, **changes)))


def one(findings, start, says):
    """The only finding that starts with `start`."""
    here = [f for f in findings if f.startswith(start)]
    assert len(here) == 1, findings
    assert says in here[0]
    return True


@pytest.mark.parametrize("source", ["images", "slides"])
def test_a_study_that_would_run_has_no_findings(tiled, source):
    own = {
        "images": {"unet": {**NET, "head": "decoded", "strategy": "unet"}},
        "slides": {"topk": {**NET, "train": {"embeddings": "tiles"}}},
    }
    models = {
        "gap": {**NET, "head": "lse", "head_options": {"r": 5}, "strategy": "has", "strategy_options": {"grid": 8}},
        "adl": {**NET, "strategy": "adl"},
        "pixels": {
            **NET,
            "from": "gap",
            "head": "decoded",
            "head_options": {"width": 8},
            "strategy": "f-cam",
            "seeds": "grad-cam",
        },
        **own[source],
    }
    maps = {"all": ["layer-cam", {"id": "far", "method": "rise", "options": {"n": 10**9}}], "own": ["native"]}
    assert found(tiled, source=source, models=models, maps=maps, checkpoints=["b-cl"]) == []


def test_all_findings_come_at_once_each_with_its_key(tiled, tmp_path):
    models = {
        "head": {**NET, "head_options": {"rr": 3}},
        "value": {**NET, "head": "lse", "head_options": {"r": -1}},
        "kind": {**NET, "head": "lse", "head_options": {"r": "5"}},
        "grid": {**NET, "strategy": "has", "strategy_options": {"gird": 8}},
        "vit": {**NET, "head": "ts-cam"},
        "stride": {**NET, "backbone": "vit_tiny"},
        "weights": {**NET, "weights": str(tmp_path / "none.pth")},
        "seeded": {**NET, "from": "vit", "head": "decoded", "strategy": "negev"},
        "balanced": {**NET, "from": "grid", "head": "decoded", "strategy": "negev", "train": {"balance": "loss"}},
        "unmapped": {**NET, "head": "acol", "maps": ["fast"]},
        "deep": {**NET, "maps": ["layers"]},
    }
    maps = {
        "fast": ["cam"],
        "wrong": [{"id": "a", "method": "layer-cam", "options": {"gama": 2}}],
        "layers": [{"id": "b", "method": "score-cam", "options": {"layers": [7]}}],
    }
    for name in models:
        models[name].setdefault("maps", ["wrong"])
    findings = found(tiled, models=models, maps=maps, folds=[0, 3], options={"valpxx": 3})
    assert one(findings, "prepare.options: ", "unknown option 'valpxx' of source 'images'; did you mean 'valpx'")
    assert one(findings, "models.head.head_options: ", "unknown option 'rr' of head 'gap'")
    assert one(findings, "models.value.head_options: ", "r must be positive and finite")
    assert one(findings, "models.kind.head_options: ", "head 'lse': r must be a number; got '5'")
    assert one(findings, "models.grid.strategy_options: ", "unknown option 'gird' of strategy 'has'; did you mean 'grid'?")
    assert one(findings, "models.vit.head: ", "'ts-cam' needs features with the attention of a class token")
    assert one(findings, "models.stride.backbone: ", "output_stride=16; got 32")
    assert one(findings, "models.weights.weights: ", "no weights at")
    assert one(findings, "models.balanced.train.balance: ", "class_weights of strategy 'negev', which has none")
    assert one(findings, "maps.fast.cam, with models.unmapped: ", "linear class maps")
    assert one(findings, "maps.wrong.a: ", "unknown option 'gama' of CAM method 'layer-cam'; did you mean 'gamma'?")
    assert one(findings, "maps.layers.b, with models.deep: ", "no stage 7: the backbone has 5 stages")
    assert len(findings) == 12  # of `seeded` nothing: its parent has to be mended first


def test_files_and_folds_of_a_source(tiled):
    assert one(found(tiled, options={"sheet": "nowhere.csv"}), "prepare.options: ", "no sample sheet at nowhere.csv")
    assert one(found(tiled, options={"classes": "normal"}), "prepare.options: ", "classes must be a list of texts; got 'normal'")
    for source in ("images", "slides"):
        assert one(found(tiled, source=source, folds=[0, 1]), "folds: [1] have no samples in dataset", "it has folds [0]")


def test_several_labels_per_sample_are_for_those_that_can_read_them(tiled):
    several = {"classes": ["normal", "tumor", "none"], "positive": "tumor", "multilabel": True}
    models = {
        "gap": {**NET, "strategy": "has"},
        "acol": {**NET, "head": "acol", "maps": ["own"]},
        "adl": {**NET, "strategy": "adl"},
    }
    findings = found(tiled, options=several, models=models, maps={"fast": ["cam"], "own": ["native"]})
    assert len(findings) == 2
    assert one(findings, "models.acol: ", "several labels (multilabel), and head 'acol' reads the one label of each")
    assert one(findings, "models.adl: ", "several labels (multilabel), and strategy 'adl' reads the one label of each")


def test_what_a_strategy_does_to_a_batch_is_tried(tiled):
    findings = found(tiled, source="slides", models={"mixed": {**NET, "strategy": "cutmix"}})
    assert one(findings, "models.mixed.strategy: ", "cutmix mixes labels by area")
    models = {"gap": NET, "m": {**NET, "from": "gap", "head": "masker", "strategy": "masker", "maps": ["own"]}}
    findings = found(tiled, models=models, maps={"fast": ["cam"], "own": ["masker"]}, train={"epochs": 1, "crop": 64})
    assert one(findings, "models.m.strategy: ", "epochs must be at least 2")
    assert one(findings, "maps.own.masker, with models.gap: ", "needs a net that was trained with head 'masker'")
    spg = {"spg": {**NET, "head": "spg", "train": {"embeddings": "tiles"}}}
    assert one(found(tiled, source="slides", models=spg), "models.spg: ", "head 'spg' reads every stage")


@pytest.mark.parametrize("source", ["images", "slides"])
def test_negative_patients_that_a_conformal_threshold_needs_are_counted(tiled, source):
    """One validation patient is negative: enough at level 1/2, where ceil((1 + 1) / 2) = 1, and for no level above."""
    few = {"threshold": "conformal"}
    says = "conformal at level 0.95 (marginal) needs at least 19 negative validation patients, fold 0 has 1; add patients, lower"
    assert one(found(tiled, source=source, evaluate=few), "evaluate.threshold: ", says)
    assert found(tiled, source=source, evaluate={**few, "conformal": {"level": 0.5}}) == []
    sure = {**few, "conformal": {"level": 0.5, "bound": "confident"}}  # 1 - 0.5^n >= 0.95 from n = 5 on
    assert one(found(tiled, source=source, evaluate=sure), "evaluate.threshold: ", "(confident) needs at least 5 negative")
    turned = {"positive": "normal"}  # then it is the tumor that is negative, of one patient as well
    assert one(found(tiled, source=source, options=turned, evaluate=few), "evaluate.threshold: ", "fold 0 has 1")
    anything = {"mask_means": "any-foreground"}
    low = {**few, "conformal": {"level": 0.5}}
    assert one(found(tiled, source=source, options=anything, evaluate=low), "evaluate.threshold: ", "fold 0 has 0")
    assert found(tiled, source=source, evaluate={"compare_thresholds": ["conformal"]}) == []  # its table says why there is none


def test_patients_of_every_fold_are_counted_once():
    """Level 3/4 needs ceil((3/4) / (1/4)) = 3 patients, 4/5 needs 4; images, other roles and positive patients do not count."""
    held = [
        (fold, "valcl", label, f"{label}-{i % count}") for fold in (0, 1) for label, count in ((0, 3), (1, 5)) for i in range(10)
    ]
    other = [(fold, role, 0, f"{role}-{i}") for fold in (0, 1) for role in ("train", "test") for i in range(10)]
    spare = [(2, "valcl", 0, f"spare-{i}") for i in range(10)]
    columns = ("fold", "role", "label", "patient")
    rows = [dict(zip(columns, cells, strict=True)) for cells in (*held, *other, *spare, (1, "valcl", 0, "another"))]
    grid = {"prepare": {"name": "d", "source": "phantom"}, "models": {"gap": NET}, "maps": {"fast": ["cam"]}, "folds": [0, 1]}

    def asked(level, threshold="conformal"):
        return load_config({**grid, "evaluate": {"threshold": threshold, "conformal": {"level": level}}})

    require_negatives(asked(0.75), rows, {1})
    with pytest.raises(ValueError, match=r"needs at least 4 negative validation patients, fold 0 has 3; add"):
        require_negatives(asked(0.8), rows, {1})
    with pytest.raises(ValueError, match=r"at least 5 .* fold 0 has 3, fold 1 has 4; add"):
        require_negatives(asked(0.82), rows, {1})
    require_negatives(asked(0.8), rows, {0})  # the five patients of the other class
    require_negatives(asked(0.99, "auto"), rows, {1})
    with pytest.raises(ValueError, match="21 negative validation samples name none"):
        require_negatives(asked(0.75), [{**row, "patient": ""} for row in rows], {1})


def test_the_verb_lists_all_and_says_so_when_there_is_nothing(tiled, tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study(tiled)))
    config_(file)
    assert f"{file}: good; 1 models" in capsys.readouterr().out
    file.write_text(yaml.safe_dump(study(tiled, folds=[4], models={"a": {**NET, "head_options": {"rr": 1}}})))
    with pytest.raises(ConfigError) as error:
        config_(file)
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == ["folds", "models.a.head_options"]


def test_reading_and_planning_a_study_load_no_torch():
    root = Path(__file__).parents[2]
    code = (
        "import sys; from wsol.cli.config import load_config; from wsol.cli.plan import plan; from wsol.cli import rehearsal;"
        "plan(load_config('configs/demo.yaml')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"
