"""A study that is killed again and again ends with the files of one that was not.

Three moments, one of each kind; `WSOL_INTERRUPTIONS=20 .venv/bin/pytest -p no:xdist tests/workflow/test_interruptions.py` takes
20, and 0 none.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SNAKEMAKE = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile")]
ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
KINDS = ("job", "main", "disk")
MOMENTS = int(os.environ.get("WSOL_INTERRUPTIONS", "3"))
STUDY = {
    "prepare": {"name": "tiny", "source": "phantom", "options": {"slides": 6, "patients": 3, "size": 512}},
    "tile": {"mpp": 1.0, "tile_px": 64, "min_tissue": 0.05},
    "models": {"gap": {"output_stride": 32}},
    "maps": {"fast": ["cam"]},
    "train": {"epochs": 2, "batch_size": 2, "tiles_per_bag": 2},
}
sameness = SimpleNamespace(**run_path(str(Path(__file__).with_name("sameness.py"))))


def command(folder, *words):
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return [*SNAKEMAKE, "--directory", str(folder), "--cores", "2", "--configfile", str(folder / "study.yaml"), *words]


def run(folder, *words):
    done = subprocess.run(command(folder, *words), capture_output=True, text=True, env=ENV, cwd=folder)
    return done.returncode, done.stdout + done.stderr


def working(main):
    """Processes below `main` that do a job's work."""
    found, parents = [], {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            status = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = (int(status[1]), (place / "cmdline").read_bytes())
        except OSError:  # it is gone
            continue
    for pid, (_, line) in parents.items():
        above = pid
        while above in parents and above != main:
            above = parents[above][0]
        if above == main and pid != main and b"bin/wsol" in line:
            found.append(pid)
    return found


def fill(folder):
    """The rest of the disk, in one file."""
    with open(folder / "filler", "wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(1 << 20))
            except OSError:
                return


def interrupt(folder, kind, chance, out):
    """Starts the study, waits for up to twelve jobs and three seconds more, and interrupts; whether it was done before that."""
    with open(out, "w") as said:
        main = subprocess.Popen(command(folder), stdout=said, stderr=said, env=ENV, cwd=folder, start_new_session=True)
    jobs, pause = chance.randint(0, 12), chance.uniform(0, 3)
    while main.poll() is None and (out.read_text().count(" done\n") < jobs or not working(main.pid)):
        time.sleep(0.05)
    time.sleep(pause)
    if main.poll() is not None:
        return main.returncode == 0
    if kind == "disk":
        fill(folder)
        time.sleep(5)
        (folder / "filler").unlink()
    elif kind == "job":
        for pid in working(main.pid)[:1]:
            os.kill(pid, signal.SIGKILL)
    else:
        main.kill()  # its jobs run on
        main.wait()
        return False
    return main.wait() == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 400 MB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", place], capture_output=True).returncode == 0
    yield place, mounted
    if mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
@pytest.mark.skipif(MOMENTS == 0, reason="WSOL_INTERRUPTIONS says how many times a study is interrupted, and it says 0")
def test_an_interrupted_study_ends_as_one_that_was_not(tmp_path, small_disk):
    straight = tmp_path / "straight"
    straight.mkdir()
    code, said = run(straight)
    assert code == 0, said

    folder, mounted = small_disk
    chance = random.Random(0)
    kinds = [KINDS[i % 3] for i in range(MOMENTS)]
    for number, kind in enumerate(kind for kind in kinds if mounted or kind != "disk"):
        out = tmp_path / f"out{number}"
        ended = interrupt(folder, kind, chance, out)
        if kind == "main":  # the one case for which the README asks for it
            code, said = run(folder, "--unlock")
            assert code == 0, said
        if ended:  # moments are left: begin anew (Snakemake does not miss what only lies between others)
            shutil.rmtree(folder / "results")
    code, said = run(folder)
    logs = "\n".join(path.read_text() for path in folder.glob("logs/**/*.log"))
    assert code == 0, said + logs
    assert sameness.facts(folder / "results") == sameness.facts(straight / "results")
    assert sameness.orphans(folder) == []
    assert "Nothing to be done" in run(folder)[1]
