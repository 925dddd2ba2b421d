"""What the workflow hands to `wsol train` for the checkpoints of a study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile")]
ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def trainings(folder, checkpoints, **more):
    """The `wsol train` commands of a dry run."""
    study = {
        "prepare": {"name": "tiny", "source": "phantom", "options": {"slides": 6, "patients": 3, "size": 512}},
        "models": {"gap": {}},
        "maps": {"fast": ["cam"]},
        "checkpoints": checkpoints,
        **more,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [*SNAKEMAKE, "--directory", str(folder), "--cores", "1", "--dry-run", "--printshellcmds"]
    done = subprocess.run([*command, "--configfile", "study.yaml"], capture_output=True, text=True, env=ENV, cwd=folder)
    return [line for line in done.stdout.splitlines() if "wsol train " in line], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("checkpoints", "opened", "looked"),
    [(["b-cl", "last"], False, False), (["b-cl", "masks-2"], True, True), (["seed-agreement"], False, True)],
)
def test_masks_go_only_to_trainings_that_choose_on_them(tmp_path, checkpoints, opened, looked):
    (line,), _ = trainings(tmp_path, checkpoints, localize={"map_class": "predicted"})
    assert ("--masks results/prepare/tiny/masks.parquet" in line) == opened
    assert ("--map-class predicted" in line) == looked
    assert f"--keep {','.join(checkpoints)} " in line


def test_an_unknown_checkpoint_is_refused_before_anything_runs(tmp_path):
    found, said = trainings(tmp_path, ["mask-6"])
    assert not found
    assert "unknown checkpoint 'mask-6'; did you mean 'masks-6'" in said


def test_a_model_trained_on_the_validation_masks_is_not_chosen_on_them(tmp_path):
    found, said = trainings(tmp_path, ["b-cl", "masks-2"], models={"gap": {}, "few": {"train_on": "valpx"}})
    assert sorted(line.split("--keep ")[1].split()[0] for line in found) == ["b-cl", "b-cl,masks-2"], said
    assert sum("few/fold0/seed0/masks-2" in line for line in said.splitlines()) == 0
