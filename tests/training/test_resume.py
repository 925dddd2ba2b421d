from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wsol.training import CHECKPOINTS, clear_state
from wsol.training.resume import weights_hash

NAMES = ("b-cl", "last", "worst")


def start(out, kill=""):
    out.mkdir(exist_ok=True)
    script = Path(__file__).with_name("toy.py")
    return subprocess.run([sys.executable, script, out, "4", kill], capture_output=True, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, toy):
    out = tmp_path_factory.mktemp("undisturbed")
    toy.main(out, epochs=4, kill="")
    return out


def result(out):
    found = {}
    for name in NAMES:
        with safe_open(out / f"{name}.safetensors", "pt") as file:
            found[name] = file.metadata()["epoch"], load_file(out / f"{name}.safetensors")
    return found


def assert_bit_equal(out, other):
    ours, theirs = result(out), result(other)
    for name in NAMES:
        assert ours[name][0] == theirs[name][0]
        assert all(torch.equal(ours[name][1][key], value) for key, value in theirs[name][1].items()), name


def history(out):
    lines = (out / "history.csv").read_text().splitlines()
    skip = lines[0].split(",").index("seconds")
    return [[v for i, v in enumerate(line.split(",")) if i != skip] for line in lines]


# Renames of epoch 1: weights, two kept weights, the json (4th), the history (5th); the 7th is inside epoch 2, before its json.
@pytest.mark.parametrize("kill", ["step:3", "write:4", "write:7"])
def test_killed_and_continued_is_bit_equal(kill, undisturbed, tmp_path, toy, capsys):
    out = tmp_path / "run"
    killed = start(out, kill)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list(out.glob("*.safetensors"))  # nothing that looks like a result
    (out / "history.csv").unlink(missing_ok=True)  # as a workflow does with the outputs of a failed job
    toy.main(out, epochs=4, kill="")
    assert ("continuing after epoch" in capsys.readouterr().err) == (kill != "write:4")
    assert_bit_equal(out, undisturbed)
    assert history(out) == history(undisturbed)
    assert not list((out / "state").glob(".*.part*"))


def test_killed_while_saving_saves_again(run, toy, tmp_path):
    def save(name, net, epoch, metrics):
        if name == "last":
            raise KeyboardInterrupt

    keep = {name: CHECKPOINTS[name] for name in ("b-cl", "last")}
    options = {"validate": toy.validate, "keep": keep, "state_path": tmp_path / "state", "history_path": tmp_path / "history.csv"}
    with pytest.raises(KeyboardInterrupt):
        run(save=save, **options)
    (tmp_path / "history.csv").unlink()
    saved = {}
    net, rows = run(save=lambda name, net, epoch, metrics: saved.update({name: weights_hash(net)}), **options)
    assert (tmp_path / "history.csv").is_file()
    assert len(rows) == 2
    assert saved["last"] == weights_hash(net) == weights_hash(run(validate=toy.validate)[0])
    assert set(saved) == set(keep)


def test_an_interrupt_leaves_the_last_whole_epoch(run, toy, tmp_path):
    def interrupted(epoch, generator):
        if epoch == 3:
            raise KeyboardInterrupt
        return toy.batches(epoch, generator)

    with pytest.raises(KeyboardInterrupt):
        run(epochs=4, batches=interrupted, state_path=tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["epoch"] == 2
    assert weights_hash(run(epochs=4, state_path=tmp_path)[0]) == weights_hash(run(epochs=4)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 2e-3}, "lr: 0.001 -> 0.002"),
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"epochs": 3}, "epochs: 2 -> 3"),
        ({"fingerprint": {"crop": 5}}, 'fingerprint: {"crop": 4} -> {"crop": 5}'),
        ({"net": 7}, "start: "),
        ({"smoothing": 0.3}, "strategy: "),
    ],
)
def test_a_state_of_other_settings_is_not_used(change, message, run, toy, tmp_path, capsys):
    from wsol.training import build_strategy

    def go(net=0, smoothing=0.0, **options):
        options = {"fingerprint": {"crop": 4}, **options}
        return run(net=toy.Net(net), strategy=build_strategy("classify", label_smoothing=smoothing), **options)[0]

    go(state_path=tmp_path)
    capsys.readouterr()
    net = go(**change, state_path=tmp_path)
    said = capsys.readouterr().err
    assert message in said
    assert "starting over" in said
    assert weights_hash(net) == weights_hash(go(**change))


def test_a_damaged_state_is_an_error_that_names_the_remedy(run, tmp_path):
    run(state_path=tmp_path)
    weights = next(tmp_path.glob("epoch-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(RuntimeError, match=r"is damaged .*; delete this folder to start over"):
        run(state_path=tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(RuntimeError, match="is damaged"):
        run(state_path=tmp_path)


def test_a_strategy_is_stored_too_and_not_prepared_again(run, toy, tmp_path):
    from wsol.training import Strategy

    class Owner(Strategy):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("prepared", torch.zeros(()))

        def prepare(self, net, batches):
            self.prepared += 1

        def loss(self, net, batch, generator, epoch):
            return {
                "all": super().loss(net, batch, generator, epoch)["cross_entropy"]
                + (self.scale * torch.rand(3, generator=generator)).square().sum()
            }

    def stopped(epoch, generator):
        if epoch == 2:
            raise KeyboardInterrupt
        return toy.batches(epoch, generator)

    with pytest.raises(KeyboardInterrupt):
        run(strategy=Owner(), batches=stopped, state_path=tmp_path)
    resumed, whole = Owner(), Owner()
    run(strategy=resumed, state_path=tmp_path)
    run(strategy=whole)
    assert resumed.prepared.item() == whole.prepared.item() == 1
    assert torch.equal(resumed.scale, whole.scale)


def test_the_folder_holds_one_epoch_and_no_pickle(run, toy, tmp_path):
    run(epochs=3, validate=toy.validate, keep={"b-cl": CHECKPOINTS["b-cl"]}, state_path=tmp_path / "state")
    names = sorted(p.name for p in (tmp_path / "state").iterdir())
    assert names[0] == "epoch-00003.safetensors"
    assert names[1].startswith("kept-b-cl-")
    assert names[2:] == ["state.json"]
    (tmp_path / "state" / "notes.txt").write_text("mine")
    clear_state(tmp_path / "state")
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["notes.txt"]
    (tmp_path / "state" / "notes.txt").unlink()
    clear_state(tmp_path / "state")
    clear_state(tmp_path / "state")
    assert not (tmp_path / "state").exists()
