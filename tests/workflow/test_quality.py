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
LISTED = {
    **STUDY,
    "prepare": {
        "name": "tiny",
        "source": "slides",
        "options": {"sheet": "sheet.csv", "classes": ["normal", "tumor"], "folds": 3},
    },
    "models": {"gap": {"output_stride": 32}},
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
    return run_empty(tmp_path_factory.mktemp("touched"), STUDY)


def run_empty(folder, study):
    (folder / "bin").mkdir()
    (folder / "bin/wsol").write_text(STAND_IN)
    (folder / "bin/wsol").chmod(0o755)
    env = {**ENV, "PATH": f"{folder / 'bin'}:{ENV['PATH']}"}
    snakemake(folder, study, "--quiet", "all", env=env)
    assert "Nothing to be done" in snakemake(folder, study, "--dry-run")
    return folder


def rerun(folder, base=STUDY, **change):
    """Rule -> wildcards of the jobs that a changed study runs again."""
    study = copy.deepcopy(base)
    for section, values in change.items():
        study.setdefault(section, {}).update(values)
    said = snakemake(folder, study, "--dry-run", "--printshellcmds")
    found: dict[str, set[str]] = {}
    for name, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", said, re.MULTILINE):
        model = re.search(r"\bmodel=([\w-]+)", body)
        found.setdefault(name, set()).add(model.group(1) if model else "")
    return {name: models for name, models in found.items() if name != "default"}


TOLD = {"report", "mlflow_init", "log", "faults"}
LAST = TOLD | {"audit"}
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
    assert set(again) == LAST | DRAWN
    jobs = snakemake(touched, {**STUDY, "maps": {**STUDY["maps"], "slow": ["grad-cam"]}}, "--dry-run")
    sets = re.findall(r"^rule (?:localize|evaluate|heatmap):\n(?:    .*\n)*?.*\bset=(\w+)", jobs, re.MULTILINE)
    assert sets
    assert set(sets) == {"slow"}


def test_a_changed_title_reruns_the_report_and_what_follows_it(touched):
    assert set(rerun(touched, report={"title": "Another"})) == TOLD


def test_a_changed_experiment_is_logged_also_where_the_report_changed(touched):
    assert set(rerun(touched, log={"experiment": "Another"})) == {"mlflow_init", "log", "faults"}
    assert set(rerun(touched, report={"title": "Another"}, log={"experiment": "Another"})) == TOLD


@pytest.fixture
def listed(tmp_path):
    """A study of slides in a sample sheet, run with empty files for results; the slides are empty, too."""
    names = [f"s{i}" for i in range(8)]
    rows = [f"{n},{n}.tiff,{['normal', 'tumor'][i % 2]},p{i // 2},{n}.png" for i, n in enumerate(names)]
    (tmp_path / "sheet.csv").write_text("\n".join(["sample,path,label,patient,mask", *rows]))
    for name in names:
        for ending in ("tiff", "png"):
            (tmp_path / f"{name}.{ending}").write_text("")
    return run_empty(tmp_path, LISTED)


def test_a_changed_sheet_reruns_all_that_was_made_of_it(listed):
    sheet = listed / "sheet.csv"
    assert rerun(listed, base=LISTED) == {}
    sheet.write_text(sheet.read_text().replace("s7.tiff,tumor", "s7.tiff,normal").replace("s6.tiff,normal", "s6.tiff,tumor"))
    again = set(rerun(listed, base=LISTED))
    assert {"prepare", "tile", "train", "localize", "evaluate", "report", "log"} <= again


def test_a_changed_mask_reruns_who_reads_masks(listed):
    (listed / "s3.png").write_text("another")
    again = set(rerun(listed, base=LISTED))
    assert {"fit_floors", "evaluate", "heatmap", "report"} <= again
    assert not again & {"prepare", "tile", "train", "localize"}


def test_a_changed_slide_is_cut_again_alone(listed):
    (listed / "s3.tiff").write_text("mended")
    said = snakemake(listed, LISTED, "--dry-run")
    assert set(re.findall(r"\blot=(\w+)", "".join(re.findall(r"^rule tile:\n(?:    .*\n)+", said, re.MULTILINE)))) == {"s3"}
    assert "rule prepare" not in said


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
