"""Tracking comes last: nothing that is computed waits for a server, and the step that talks to one waits for all the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wsol.cli.config import ConfigError, parse
from wsol.cli.schema import Log

ROOT = Path(__file__).parents[2]
COMPUTED = {
    "prepare",
    "tile",
    "train",
    "fit_floors",
    "localize",
    "draw_floors",
    "evaluate",
    "audit",
    "heatmap",
    "report",
    "probe",
}


def edges(folder):
    """(rule, rule that waits for it) of the demo."""
    command = [
        str(Path(sys.executable).with_name("snakemake")),
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
    ]
    done = subprocess.run([*command, "--rulegraph"], capture_output=True, text=True, env=os.environ, cwd=folder)
    assert done.returncode == 0, done.stderr
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', done.stdout, flags=re.MULTILINE))
    return {(names[a], names[b]) for a, b in re.findall(r"^\s*(\d+) -> (\d+)", done.stdout, flags=re.MULTILINE)}


def test_no_computation_waits_for_a_server_and_tracking_waits_for_the_page(tmp_path):
    found = edges(tmp_path)
    assert {after for before, after in found if before in ("mlflow_init", "log")} <= {"log", "faults", "all", "default"}
    assert ("log", "faults") in found  # the verdict on slides that gave nothing is the last word, and computes nothing
    assert ("report", "mlflow_init") in found
    assert ("mlflow_init", "log") in found
    assert {name for edge in found for name in edge} >= COMPUTED


def test_a_study_with_a_secret_in_its_tracking_uri_is_refused_before_it_is_printed_anywhere():
    with pytest.raises(ConfigError, match=r"log\.tracking_uri|MLFLOW_TRACKING_TOKEN") as error:
        parse(Log, {"tracking_uri": "https://me:hunter2@example.org"}, "study.yaml")
    assert "hunter2" not in str(error.value)
    assert parse(Log, {"tracking_uri": "https://example.org"}, "study.yaml").tracking_uri == "https://example.org"


@pytest.mark.parametrize("uri", ["htp:/mlflow", "mlflow.example.org", "sqlite://data/mlflow.db"])
def test_a_study_whose_tracking_uri_can_never_work_is_refused_before_anything_is_computed(uri):
    with pytest.raises(ConfigError, match=r"study\.yaml: tracking_uri: .*can never work") as error:
        parse(Log, {"tracking_uri": uri}, "study.yaml")
    assert uri in str(error.value)
    assert parse(Log, {"tracking_uri": ""}, "study.yaml").tracking_uri == ""  # SQLite beside the results
