"""The workflow from the root Snakefile: the jobs it plans, what it refuses, and that a killed run goes on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile")]
ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def snakemake(folder, *words):
    command = [*SNAKEMAKE, "--directory", str(folder), "--cores", "2", *words]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, cwd=folder)


def planned(done):
    """Job counts of a dry run."""
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", text, re.MULTILINE)}


def write(folder, **study):
    base = {
        "prepare": {"name": "tiny", "source": "phantom", "options": {"slides": 6, "patients": 3, "size": 512}},
        "tile": {"mpp": 1.0, "tile_px": 64, "min_tissue": 0.05},
        "models": {"gap": {"output_stride": 32}},
        "maps": {"fast": ["cam"]},
        "train": {"epochs": 1, "batch_size": 2, "tiles_per_bag": 2},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**base, **study}))
    return str(path)


def test_the_demo_plans_every_job_from_the_root(tmp_path):
    jobs = planned(snakemake(tmp_path, "--dry-run"))
    expected = {
        "default": 1, "prepare": 1, "tile": 16, "train": 2, "fit_floors": 1, "localize": 2 * 8, "draw_floors": 8,
        "evaluate": 3, "probe": 2, "audit": 1, "heatmap": 2 * 4, "report": 1, "mlflow_init": 1, "log": 1, "faults": 1,
        "gather_tiles": 3, "gather_maps": 3 * 2, "gather_heatmaps": 2,
    }  # fmt: skip
    assert jobs == {**expected, "total": sum(expected.values())}


def test_the_default_profile_is_found_from_any_folder(tmp_path):
    """Without it a killed run wants `--rerun-incomplete`, and the first failure ends a study."""
    said = snakemake(tmp_path, "--dry-run", "--quiet", "all").stderr
    assert f"Using workflow specific profile {ROOT / 'profiles/default'}" in said
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert (profile["rerun-incomplete"], profile["keep-going"]) == (True, True)


def test_the_grid_multiplies_and_from_is_an_edge(tmp_path):
    study = write(
        tmp_path,
        models={"gap": {}, "child": {"from": "gap", "head": "lse"}},
        maps={"fast": ["cam"], "slow": ["grad-cam", "layer-cam"]},
        checkpoints=["b-cl", "last"],
        seeds=[0, 1],
    )
    done = snakemake(tmp_path, "--dry-run", "--configfile", study)
    jobs = planned(done)
    units = 2 + 2  # validation and test slides
    assert jobs["train"] == 2 * 2
    assert jobs["localize"] == 2 * 2 * 2 * 2 * units
    assert jobs["evaluate"] == 2 * 2 * 2 * 2 + 2
    shell = snakemake(tmp_path, "--dry-run", "--printshellcmds", "--configfile", study).stdout
    children = [line for line in shell.splitlines() if "wsol train" in line and '"name": "child"' in line]
    assert len(children) == 2
    assert all("--parent results/train/tiny/gap/fold0/seed" in line for line in children)


def test_processes_of_a_training_are_started_by_torchrun_and_share_its_threads(tmp_path):
    study = write(tmp_path, models={"gap": {}, "pair": {"train": {"processes": 2}}})
    shell = snakemake(tmp_path, "--dry-run", "--printshellcmds", "--configfile", study, "--set-threads", "train=2").stdout
    alone, pair = sorted(
        (line.split("command: ")[-1] for line in shell.splitlines() if "wsol train" in line), key=lambda line: "torchrun" in line
    )
    assert alone.startswith("wsol train")
    assert "--threads $(((2 + 1 - 1) / 1))" in alone
    assert pair.startswith("torchrun --standalone --nproc-per-node 2 --no-python wsol train")
    assert "--threads $(((2 + 2 - 1) / 2))" in pair


def test_a_probe_is_handed_the_checkpoint_of_its_shuffled_control(tmp_path):
    models = {"gap": {"output_stride": 32}, "noise": {"output_stride": 32, "shuffle_labels": True}}
    study = write(tmp_path, models=models, probe={"samples": 2, "shuffled": {"gap": "noise"}})
    done = snakemake(tmp_path, "--dry-run", "--printshellcmds", "--configfile", study)
    assert planned(done)["probe"] == 2
    probes = [line for line in done.stdout.splitlines() if "wsol probe" in line]
    assert ["--shuffled results/train/tiny/noise/fold0/seed0/b-cl.safetensors" in line for line in sorted(probes)] == [
        True,
        False,
    ]


@pytest.mark.parametrize(("slip", "says"), [({"trian": {}}, "did you mean 'train'"), ({"folds": [3]}, "have no samples")])
def test_a_slip_in_the_study_stops_before_any_job(tmp_path, slip, says):
    done = snakemake(tmp_path, "--dry-run", "--configfile", write(tmp_path, **slip))
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_second_call_has_nothing_to_do(tmp_path):
    study = write(tmp_path)
    command = [*SNAKEMAKE, "--directory", str(tmp_path), "--cores", "2", "--configfile", study]
    with open(tmp_path / "out", "w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, env=ENV, cwd=tmp_path, start_new_session=True)
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("results/tile/tiny/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.2)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    tiled = list(tmp_path.glob("results/tile/tiny/*.parquet"))
    assert tiled, (tmp_path / "out").read_text()
    assert not list(tmp_path.glob("results/report/**/*.html"))
    assert snakemake(tmp_path, "--unlock", "--configfile", study).returncode == 0
    done = snakemake(tmp_path, "--configfile", study)
    logs = "\n".join(p.read_text() for p in tmp_path.glob("logs/**/*.log"))
    assert done.returncode == 0, done.stderr + logs
    page = tmp_path / "results/report/tiny/index.html"
    assert "grad" in page.read_text() or "cam" in page.read_text()
    for table in tiled:  # drawn once: the second run had nothing to add
        assert table.stat().st_mtime < page.stat().st_mtime
    assert not [p for p in tmp_path.glob("results/**/*") if ".part" in p.name]
    again = snakemake(tmp_path, "--configfile", study)
    assert "Nothing to be done" in again.stdout + again.stderr
    shutil.rmtree(tmp_path / "results")
