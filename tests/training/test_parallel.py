"""Two processes with gloo on the CPU, started as torchrun starts them, against one."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsol.training.parallel import Ranks

SCRIPT = Path(__file__).with_name("pair.py")


@pytest.fixture(scope="module")
def pair(toy):
    sys.modules["toy"] = toy  # as the script finds it beside itself
    spec = importlib.util.spec_from_file_location("training_pair", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["toy"]


def together(out, fault="", count=2):
    """(exit code, what was said) of each process."""
    out.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, out, fault], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=600)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def ends(out, rank=0):
    return torch.load(out / f"{rank}.pt")


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    done = together(out)
    assert [code for code, _ in done] == [0, 0], done
    return out, done


def test_two_processes_are_one_to_rounding(two, pair, tmp_path):
    out, done = two
    pair.train(tmp_path, "", Ranks(), progress=False)
    alone, first, second = ends(tmp_path), ends(out, 0), ends(out, 1)
    assert [row["lr"] for row in first["rows"]] == [row["lr"] for row in alone["rows"]]
    for name in ("train_loss", "valcl_loss", "valcl_accuracy"):
        assert [row[name] for row in first["rows"]] == pytest.approx([row[name] for row in alone["rows"]], rel=1e-4), name
    for name, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-3, atol=1e-4)
    assert first["hash"] == second["hash"]  # to the bit
    assert without_time(first["rows"]) == without_time(second["rows"])
    assert (first["saved"], second["saved"]) == (["last"], [])
    assert [len(text.splitlines()) for _, text in done] == [3, 0]  # the first speaks


def test_one_killed_stops_both_and_both_go_on_to_the_same_bits(two, tmp_path):
    out = tmp_path / "run"
    killed = together(out, "kill")
    assert killed[1][0] == -signal.SIGKILL
    assert killed[0][0] == 1
    assert "process 0 of 2 stops, since another one did: look for its message" in killed[0][1]
    assert not list(out.glob("*.pt"))
    again = together(out)
    assert [code for code, _ in again] == [0, 0], again
    assert [text.count("continuing after epoch 1/3") for _, text in again] == [1, 0]
    assert ends(out)["hash"] == ends(two[0])["hash"]
    assert without_time(ends(out)["rows"]) == without_time(ends(two[0])["rows"])


def test_what_is_not_finite_in_one_stops_both_and_names_its_samples(tmp_path):
    (code, text), (other, message) = together(tmp_path, "nan")
    assert code == other == 1
    assert "the loss is not finite (cross_entropy nan) at epoch 2/3, step 2/3, samples e2b1n1, e2b1n3:" in message
    assert "since another one did" in text


def test_a_state_of_another_number_of_processes_is_not_used(two, pair, capsys):
    pair.train(two[0], "", Ranks(), progress=False)
    assert "processes: 2 -> 1" in capsys.readouterr().err


def test_processes_that_differ_say_in_what(monkeypatch):
    ranks = Ranks(1, 2)
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [3, value])
    ranks.require_same("the epoch", 3)
    with pytest.raises(RuntimeError, match=r"the 2 processes differ in the epoch \(3, 4\): all need the same command"):
        ranks.require_same("the epoch", 4)


def test_a_process_alone_needs_no_connection(toy):
    ranks, net = Ranks(), toy.Net()
    assert ranks.first
    assert ranks.add_gradients(list(net.parameters()), 3.0) == 3.0
    assert all(p.grad is None for p in net.parameters())
    assert ranks.gather("a") == ["a"]
    assert ranks.of_first("a") == "a"
    ranks.follow_first(net)
    assert ranks.stream("loss") == "loss" != Ranks(1, 2).stream("loss")
