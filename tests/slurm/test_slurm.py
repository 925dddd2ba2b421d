"""A study through a real Slurm of one node: what it asks for, more memory after too little, and kills that a second call mends.

Runs where Slurm's daemons are installed, as root, in an environment with the extra `cluster` (.ci/run makes one).
"""

from __future__ import annotations

import importlib.util
import os
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
LAB = Path(__file__).with_name("lab.sh")
MISSING = [
    name
    for name in ("munged", "slurmctld", "slurmd", "sbatch")
    if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install slurmctld slurmd slurm-client munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may start Slurm's daemons"),
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None, reason="the extra `cluster` is not installed here"
    ),
]

STUDY = {
    "prepare": {"name": "tiny", "source": "phantom", "options": {"slides": 6, "patients": 3, "size": 512}},
    "tile": {"mpp": 1.0, "tile_px": 64, "min_tissue": 0.05},
    "models": {"gap": {"output_stride": 32}},
    "maps": {"fast": ["cam"]},
    "train": {"epochs": 1, "batch_size": 2, "tiles_per_bag": 2},
}
QUICK = [
    *("--workflow-profile", str(ROOT / "workflow/profiles/slurm"), "--default-resources", "slurm_partition=lab", "runtime=10"),
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"),
    *("--set-threads", "prepare=1"),
]


@pytest.fixture(scope="module")
def slurm():
    """The lab, up; its daemons end with the tests."""
    subprocess.run([LAB, "up"], check=True)
    yield
    subprocess.run(["scancel", "--user", "root"], check=False)
    subprocess.run([LAB, "down"], check=True)


def command(folder, *words):
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    started = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return [*started, "--configfile", str(folder / "study.yaml"), *words]


def environment():
    """With `wsol`, which stands beside the Python below this one, on the path."""
    places = [str(Path(sys.executable).parent), str(Path(shutil.which("wsol") or ROOT / ".venv/bin/wsol").parent)]
    return {**os.environ, "PATH": ":".join([*places, os.environ["PATH"]])}


def run(folder, *words):
    done = subprocess.run(command(folder, *words), capture_output=True, text=True, cwd=folder, env=environment(), timeout=1500)
    return done.returncode, done.stdout + done.stderr


def jobs():
    """What Slurm knows of all jobs: (id, state, cpus, MB, GPUs, comment), in the order of their submission."""
    fields = "jobarrayid:30|,state:30|,numcpus:10|,minmemory:20|,tres-per-job:60|,comment:400"
    asked = ["squeue", "--states=all", "--noheader", "--array", "--sort=i", "-O", fields]
    told = subprocess.run(asked, capture_output=True, text=True, check=True)
    rows = [[cell.strip() for cell in line.split("|")] for line in told.stdout.splitlines()]
    return [(i, state, int(cpus), int(mb.rstrip("M")), gpu, comment) for i, state, cpus, mb, gpu, comment in rows]


def of(rule, *states):
    return [job for job in jobs() if job[5].startswith(f"rule_{rule}") and (not states or job[1] in states)]


def wait(for_what, seconds=600):
    end = time.monotonic() + seconds
    while not for_what():
        assert time.monotonic() < end, f"waited {seconds} s in vain; Slurm has {jobs()}"
        time.sleep(0.5)


def test_a_study_goes_through_slurm_is_killed_and_equals_the_local_run(slurm, tmp_path):
    sameness = SimpleNamespace(**run_path(str(ROOT / "tests/workflow/sameness.py")))

    local, cluster = tmp_path / "local", tmp_path / "cluster"
    local.mkdir()
    cluster.mkdir()
    code, said = run(local, "--cores", "2")
    assert code == 0, said

    # Too little for training at first: 400 MB, then 1600.
    few = ["--set-resources", "train:mem_mb=400*attempt*attempt", "evaluate:gpu=1"]
    with open(cluster / "out", "w") as out:
        first = subprocess.Popen(command(cluster, *QUICK, *few), stdout=out, stderr=out, cwd=cluster, env=environment())
        try:
            wait(lambda: of("tiles", "RUNNING"))
            canceled = of("tiles", "RUNNING")[0][0]
            subprocess.run(["scancel", canceled], check=True)
            wait(lambda: of("train", "FAILED", "OUT_OF_MEMORY") and of("train", "RUNNING"))
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    assert next(job[1] for job in jobs() if job[0] == canceled) in ("CANCELLED", "FAILED", "COMPLETING")
    assert [job[3] for job in of("train")] == [400, 1600]  # killed over its memory, and sent again with more
    wait(lambda: not of("", "RUNNING", "PENDING", "COMPLETING"))  # Slurm's jobs outlive who sent them

    assert run(cluster, "--unlock")[0] == 0
    code, said = run(cluster, *QUICK, *few[:1], *few[2:])
    logs = "\n".join(path.read_text() for path in cluster.glob("logs/**/*.log"))
    assert code == 0, said + logs
    assert sameness.facts(cluster / "results") == sameness.facts(local / "results")
    assert sameness.orphans(cluster) == []

    # Six slides in one allocation, four side by side; canceled, it came back with twice the memory.
    assert [job[2:4] for job in of("tiles_tile")] == [(4, 8000), (4, 16000)]
    assert [job[2] for job in of("floors_draw_floors")] == [4]  # four slides side by side in one allocation
    assert len(of("page")) == 1  # the auditor and the page in another
    assert {job[4] for job in of("evaluate")} == {"gres:gpu:1"}
    assert not [job for rule in ("mlflow_init", "log", "faults", "gather") for job in of(rule)]  # local rules
