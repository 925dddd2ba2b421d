"""What `wsol train` says of settings that cannot be: one clear error before anything is trained."""

from __future__ import annotations

import sys

import pytest
import torch

from wsol._options import OptionError
from wsol.cli.config import ConfigError, Train
from wsol.cli.main import main
from wsol.cli.model import Model
from wsol.cli.parts import strategy_of, with_defects
from wsol.cli.train import train
from wsol.models import build_localizer, save_checkpoint


def run(tiled, out, parent=None, **model):
    where = {"manifest": tiled / "images.parquet", "out": out, "tiles": None, "parents": [parent] if parent else []}
    settings = {"weights": None, "output_stride": 32, "train": {"crop": 32, "epochs": 1}, **model}
    train(settings, fold=0, seed=0, keep=["last"], threads=1, **where)


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (
            {"strategy": "has", "strategy_options": {"gird": 8}}, OptionError,
            r"^unknown option 'gird' of strategy 'has'; did you mean 'grid'\?",
        ),
        ({"strategy": "has", "strategy_options": {"grid": "big"}}, OptionError, "'has': grid must be an integer; got 'big'"),
        ({"strategy": "has", "strategy_options": {"grid": 0}}, ValueError, "grid is the side of a block"),
        ({"head": "lse", "head_options": {"R": 5}}, OptionError, r"unknown option 'R' of head 'lse'"),
        ({"head": "lse", "head_options": {"r": [5]}}, OptionError, r"head 'lse': r must be a number; got \[5\]"),
        ({"head": "gpa"}, ConfigError, "settings: head: unknown head 'gpa'; did you mean 'gap'"),
        ({"head": "decoded"}, ConfigError, "settings: strategy: head 'decoded' draws pixels, which strategy 'classify' does not"),
        ({"as_published": ["weight-row"]}, ValueError, "weight-row lies in head cam, and this model has head 'gap'; take it out"),
        ({"as_published": ["background-seeds"]}, ValueError, "lies in strategy negev or pixelcam, and this model has strategy"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_clear_error(tiled, tmp_path, model, error, says):
    with pytest.raises(error, match=says):
        run(tiled, tmp_path / "run", **model)
    assert not (tmp_path / "run").exists()


def test_the_command_line_says_it_in_one_line(tiled, tmp_path, monkeypatch, capsys):
    settings = '{"weights": null, "strategy": "has", "strategy_options": {"gird": 8}}'
    words = ["train", "--manifest", str(tiled / "images.parquet"), "--settings", settings, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["wsol", *words])
    monkeypatch.delenv("WSOL_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "wsol: error: unknown option 'gird' of strategy 'has'; did you mean 'grid'?" in said
    assert "Traceback" not in said


def test_a_defect_may_lie_in_the_parent(tiled, tmp_path):
    net = build_localizer("efficientnet_lite0", "cam", 2, weights=None, output_stride=32)
    for name, defects in (("spoiled", ["weight-row"]), ("plain", [])):
        save_checkpoint(net, tmp_path / f"{name}.safetensors", {"settings": {"as_published": defects}})
    told = {"as_published": ["weight-row"], "train": {"crop": 32, "epochs": 1, "batch_size": 2}}
    run(tiled, tmp_path / "child", parent=tmp_path / "spoiled.safetensors", **told)
    assert (tmp_path / "child/last.safetensors").is_file()
    with pytest.raises(ValueError, match="weight-row lies in head cam"):
        run(tiled, tmp_path / "other", parent=tmp_path / "plain.safetensors", **told)
    assert with_defects(Model(as_published=["weight-row"]), ["weight-row"]).head_options == {}


def test_seeds_are_no_option():
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None)
    model = Model(head="decoded", strategy="negev", strategy_options={"seeds": "grad-cam"})
    with pytest.raises(ValueError, match="the key `seeds` of the model names the map method"):
        strategy_of(model, Train(), [net], None)
    seeds = strategy_of(model.model_copy(update={"strategy_options": {}}), Train(), [net], None).seeds
    assert seeds(torch.rand(1, 3, 64, 64), torch.tensor([1])).shape == (1, 2, 2)
