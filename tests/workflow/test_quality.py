"""What the workflow owes its readers: a log and a benchmark per rule, lint, a report, reruns of what a change reaches only."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SNAKEMAKE = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile")]
ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
STUDY = {
    "prepare": {"name": "tiny", "source": "phantom", "options": {"slides": 6, "patients": 3, "size": 512}},
    "models": {"gap": {"output_stride": 32}, "lse": {"head": "lse"}, "child": {"from": "gap"}},
    "maps": {"fast": ["cam"]},
}


def snakemake(folder, study, *words, env=ENV):
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [*SNAKEMAKE, "--directory", str(folder), "--cores", "2", "--configfile", "study.yaml", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules():
    """Name -> text of every rule."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    found = re.findall(r"^( *)(?:rule|use rule \w+ as) (\w+)(?: with)?:\n((?:\1 +.*\n|\n)+)", text, re.MULTILINE)
    return {name: body for _, name, body in found}


def test_every_rule_has_a_log_a_benchmark_and_a_place_to_run():
    assert {"prepare", "tile", "train", "localize", "draw_floors", "evaluate", "heatmap", "report", "log"} <= set(rules())
    for name, body in rules().items():
        if name == "train_on_valpx":  # inherits
            continue
        assert re.search(r"^ +log:", body, re.MULTILINE), name
        assert re.search(r"^ +benchmark:", body, re.MULTILINE), name
        local = re.search(r"^ +localrule: True", body, re.MULTILINE)
        asked = re.search(r"mem_mb=.*\n +runtime=growing\(", body)
        assert bool(local) != bool(asked), f"{name} is either local or says what it needs of a cluster"
        assert "retries:" not in body, name  # a rule's own are tried inside the allocation that was too small


STAND_IN = """#!/bin/sh
# `wsol` without its work: makes the files that a verb is asked for.
verb=$1; keep=; out=
while [ $# -gt 0 ]; do
    case "$verb $1" in
        "prepare --manifest" | "prepare --masks" | "evaluate --scores" | "evaluate --curves") touch "$2" ;;
        *" --keep") keep=$2 ;;
        *" --out") out=$2 ;;
    esac
    shift
done
case $verb in
    tile) touch "$out" "${out%.parquet}.json" "${out%.parquet}.png" ;;
    train)
        mkdir -p "$out"
        touch "$out/history.csv" "$out/run.json"
        for kept in $(echo $keep | tr , ' '); do touch "$out/$kept.safetensors" "$out/$kept.json"; done ;;
    report) for name in index.html leaderboard.csv differences.csv; do echo , > "${out%/*}/$name"; done ;;
    prepare | evaluate) ;;
    *) echo '{}' > "$out" ;;
esac
"""


@pytest.fixture(scope="module")
def touched(tmp_path_factory):
    """A study that was run, with empty files for results."""
    folder = tmp_path_factory.mktemp("touched")
    (folder / "bin").mkdir()
    (folder / "bin/wsol").write_text(STAND_IN)
    (folder / "bin/wsol").chmod(0o755)
    env = {**ENV, "PATH": f"{folder / 'bin'}:{ENV['PATH']}"}
    snakemake(folder, STUDY, "--quiet", "all", env=env)
    assert "Nothing to be done" in snakemake(folder, STUDY, "--dry-run")
    return folder


def rerun(folder, **change):
    """Rule -> wildcards of the jobs that a changed study runs again."""
    study = copy.deepcopy(STUDY)
    for section, values in change.items():
        study.setdefault(section, {}).update(values)
    said = snakemake(folder, study, "--dry-run", "--printshellcmds")
    found: dict[str, set[str]] = {}
    for name, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", said, re.MULTILINE):
        model = re.search(r"\bmodel=([\w-]+)", body)
        found.setdefault(name, set()).add(model.group(1) if model else "")
    return {name: models for name, models in found.items() if name != "default"}


LAST = {"audit", "report", "log", "faults"}
DRAWN = {"localize", "gather_maps", "evaluate", "heatmap", "gather_heatmaps"}


def test_a_changed_option_of_localize_reruns_localize_onward(touched):
    again = rerun(touched, localize={"map_class": "predicted"})
    assert set(again) == LAST | DRAWN
    assert again["localize"] == {"gap", "lse", "child"}  # and no floors


def test_an_edited_model_reruns_it_and_its_children(touched):
    again = rerun(touched, models={"gap": {"output_stride": 16}})
    assert set(again) == LAST | DRAWN | {"train"}
    assert again["train"] == again["localize"] == again["evaluate"] == {"gap", "child"}


def test_a_new_map_set_reruns_nothing_else(touched):
    again = rerun(touched, maps={"slow": ["grad-cam"]})
    assert set(again) == LAST | DRAWN | {"mlflow_init"}  # which waits for the pictures of one set more
    jobs = snakemake(touched, {**STUDY, "maps": {**STUDY["maps"], "slow": ["grad-cam"]}}, "--dry-run")
    sets = re.findall(r"^rule (?:localize|evaluate|heatmap):\n(?:    .*\n)*?.*\bset=(\w+)", jobs, re.MULTILINE)
    assert sets
    assert set(sets) == {"slow"}


def test_a_changed_title_reruns_the_report_only(touched):
    assert set(rerun(touched, report={"title": "Another"})) == {"report"}


def test_snakemakes_own_report_holds_the_page_and_the_tables(touched):
    snakemake(touched, STUDY, "--report", "report.html")
    text = (touched / "report.html").read_text()
    for name in ("leaderboard.csv", "differences.csv", "index.html", "audit.json", "scores.json"):
        assert name in text
    assert "the auditor found" in text  # a caption


def test_snakemakes_linter_finds_nothing():
    done = subprocess.run([*SNAKEMAKE, "--lint"], capture_output=True, text=True, env=ENV, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_catalog_of_workflows_finds_what_it_looks_for():
    said = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(said) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert (ROOT / "config/README.md").is_file()
    assert "report:" in (ROOT / "workflow/Snakefile").read_text()
    made = yaml.safe_load((ROOT / "workflow/envs/wsol.yaml").read_text())["dependencies"]
    ours = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert made == [one for one in ours if isinstance(one, str)]
