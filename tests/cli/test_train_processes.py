"""`wsol train` as a process: killed in the middle, started by torchrun."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from wsol.cli.config import ConfigError, Prepare, Train, parse
from wsol.cli.prepare import prepare
from wsol.cli.train import train

BIN = Path(sys.executable).parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
MODEL = {"weights": None, "output_stride": 16, "name": "gap"}
TRAIN = {"epochs": 3, "repeats": 4, "batch_size": 5, "crop": 64, "bf16": False, "ema": 0.9}


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """Twelve images of 72 x 80 px, a dark square on those of one class; eight train, two validate."""
    root = tmp_path_factory.mktemp("sheet")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(12):
        image = generator.integers(180, 255, (72, 80, 3), dtype=np.uint8)
        if i % 2:
            image[20:50, 20:60] = 90
        Image.fromarray(image).save(root / f"i{i}.png")
        rows.append(
            [f"i{i}", f"i{i}.png", ("normal", "tumor")[i % 2], f"p{i // 2}", ("train" if i < 8 else "val" if i < 10 else "test")]
        )
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    return root


def here(sheet, out, **changes):
    """In this process."""
    train(
        {**MODEL, "train": {**TRAIN, **changes}}, manifest=sheet / "m.parquet", out=out, fold=0, seed=0, tiles=None, parents=[],
        keep=["b-cl", "last"], threads=1,
    )  # fmt: skip


def command(sheet, out, **changes):
    settings = json.dumps({**MODEL, "train": {**TRAIN, **changes}})
    return [BIN / "wsol", "train", "--manifest", sheet / "m.parquet", "--settings", settings, "--keep", "b-cl,last", "--out", out]


def history(out):
    with open(out / "history.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(sheet, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    here(sheet, out)
    return out


def test_killed_in_the_middle_of_an_epoch_the_same_command_ends_with_the_same_bits(sheet, undisturbed, tmp_path, capsys):
    process = subprocess.Popen(command(sheet, tmp_path), env=ENV, stderr=subprocess.DEVNULL)
    state = tmp_path / ".state/state.json"
    for _ in range(6000):
        if state.is_file() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)  # within the second epoch: the first has just been stored
    assert process.wait() == -signal.SIGKILL
    done = json.loads(state.read_text())["epoch"]
    assert 1 <= done < TRAIN["epochs"]
    assert not list(tmp_path.glob("*.safetensors"))
    here(sheet, tmp_path)
    assert f"continuing after epoch {done}/3" in capsys.readouterr().err
    for name in ("b-cl", "last"):
        ours, theirs = (load_file(out / f"{name}.safetensors") for out in (tmp_path, undisturbed))
        assert all(torch.equal(ours[key], value) for key, value in theirs.items()), name
    assert history(tmp_path) == history(undisturbed)
    assert not (tmp_path / ".state").exists()


def test_torchrun_with_two_processes_has_the_curve_of_one(sheet, undisturbed, tmp_path):
    torchrun = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*torchrun, *command(sheet, tmp_path, processes=2)], env=ENV, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = history(tmp_path), history(undisturbed)
    assert [row["lr"] for row in ours] == [row["lr"] for row in theirs]
    # An untrained net of fifty layers: rounding grows from step to step.
    assert ours[0]["train_loss"] == pytest.approx(theirs[0]["train_loss"], rel=1e-3)
    assert [row["train_loss"] for row in ours] == pytest.approx([row["train_loss"] for row in theirs], rel=2e-2)
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["train"]["processes"] == 2
    assert done.stderr.count("epoch 3/3") == 1
    assert {"b-cl.safetensors", "last.safetensors", "batch.png"} <= {path.name for path in tmp_path.iterdir()}


def test_half_the_batch_accumulated_twice_has_the_curve_of_the_whole(sheet, tmp_path):
    here(sheet, tmp_path / "whole", batch_size=8, epochs=1)
    here(sheet, tmp_path / "halves", batch_size=4, accumulate=2, epochs=1)
    (whole,), (halves,) = history(tmp_path / "whole"), history(tmp_path / "halves")
    assert halves["lr"] == whole["lr"]
    assert halves["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-3)


def test_processes_must_be_those_of_the_settings(sheet, tmp_path):
    with pytest.raises(
        ValueError, match=r"processes is 2, but 1 run; start `torchrun --standalone --nproc-per-node 2 --no-python"
    ):
        here(sheet, tmp_path, processes=2)
    with pytest.raises(ConfigError, match="processes: 3 processes share each batch, and batch_size is 2"):
        parse(Train, {"processes": 3, "batch_size": 2}, "train")
