"""One process at a time in a folder: who comes second waits, whoever dies lets go, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from wsol.cli.turns import in_turn

HOLD = """
import sys, time
from pathlib import Path
from wsol.cli.turns import in_turn
with in_turn(Path(sys.argv[1]), lambda text: print(text, flush=True)):
    print("in", time.monotonic(), flush=True)
    time.sleep(float(sys.argv[2]))
    print("out", time.monotonic(), flush=True)
"""


def start(folder, seconds):
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True)


def test_the_second_waits_for_the_first(tmp_path):
    folder = tmp_path / "run"
    one = start(folder, 1.5)
    assert one.stdout.readline().startswith("in")
    others = [start(folder, 0.1), start(folder, 0.1)]
    left = float(one.communicate()[0].split()[-1])
    spans = []
    for other in others:
        said = other.communicate()[0].splitlines()
        assert f"process {one.pid} works in {folder}: waiting for its end" in said[0]
        spans.append([float(line.split()[1]) for line in said if line.startswith(("in", "out"))])
    (first_in, first_out), (second_in, _) = sorted(spans)
    assert left <= first_in < first_out <= second_in
    assert not folder.exists()  # nothing was written


def test_who_comes_after_a_change_of_holders_waits_for_the_new_one(tmp_path):
    (tmp_path / "kept").write_text("")
    one = start(tmp_path, 1.5)
    assert one.stdout.readline().startswith("in")
    two = start(tmp_path, 2.5)
    assert "waiting" in two.stdout.readline()
    assert two.stdout.readline().startswith("in")  # the first took its file away
    three = start(tmp_path, 0)
    said = three.communicate()[0].splitlines()
    assert f"process {two.pid} works" in said[0]
    assert float(two.communicate()[0].split()[-1]) <= float(said[1].split()[1])
    one.communicate()


def test_who_is_killed_lets_go(tmp_path):
    one = start(tmp_path, 60)
    assert one.stdout.readline().startswith("in")
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    one.stdout.close()
    assert (tmp_path / ".lock").is_file()
    (tmp_path / "kept").write_text("")
    started, told = time.monotonic(), []
    with in_turn(tmp_path, told.append):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert time.monotonic() - started < 5
    assert told == []
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
