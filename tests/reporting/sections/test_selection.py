"""Regret of checkpoints, with answers worked out by hand."""

from __future__ import annotations

import copy

import pytest

from wsol.reporting import rows, write_report
from wsol.reporting.part import parts
from wsol.reporting.sections.selection import mean_over_runs, scores, section

PXAP = {  # (checkpoint, seed) -> PxAP of cam, of layer-cam
    ("b-cl", 0): (0.60, 0.50), ("b-cl", 1): (0.64, 0.50),
    ("masks-6", 0): (0.70, 0.48), ("masks-6", 1): (0.70, 0.50),
    ("label-free", 0): (0.65, 0.45), ("label-free", 1): (0.50, 0.52),
}  # fmt: skip
SOURCES = {"b-cl": "validation labels (B-CL)", "masks-6": "masks-6", "label-free": "label-free"}


@pytest.fixture
def study(make_study):
    """One model, three checkpoints, two seeds, two maps."""
    one = next(f for f in make_study(None) if f["key"]["model"] == "gap")
    files = []
    for (checkpoint, seed), values in PXAP.items():
        made = copy.deepcopy(one)
        made["key"] |= {"checkpoint": checkpoint, "seed": seed}
        made["methods"] = {m: made["methods"][m] for m in ("cam", "layer-cam")}
        for value, result in zip(values, made["methods"].values(), strict=True):
            result["groups"]["all"]["pxap"] = value
            result["badges"]["checkpoint"] = SOURCES[checkpoint]
        files.append(made)
    return files


def curves(seed: int) -> dict:
    rows = [
        {"epoch": e, "valcl_accuracy": 0.5 + 0.1 * e, "valpx6_pxap": 0.7 - 0.05 * e, "map_stability": 0.02 * e, "train_loss": 1.0}
        for e in (1, 2, 3, 4)
    ]
    kept = {"b-cl": 4, "masks-6": 1 + seed, "label-free": 3}
    return {"key": {"model": "gap", "fold": 0, "seed": seed}, "rows": rows, "kept": kept}


def part_of(files, histories=()):
    return parts(rows(files), histories=histories)[0]


def test_regret_is_what_lacks_to_the_best_of_the_same_run_and_map(study):
    found = {(s.checkpoint, s.method, s.run[1]): s.regret for s in scores(part_of(study))}
    assert found == pytest.approx(
        {
            ("b-cl", "cam", 0): 0.10, ("masks-6", "cam", 0): 0, ("label-free", "cam", 0): 0.05,
            ("b-cl", "layer-cam", 0): 0, ("masks-6", "layer-cam", 0): 0.02, ("label-free", "layer-cam", 0): 0.05,
            ("b-cl", "cam", 1): 0.06, ("masks-6", "cam", 1): 0, ("label-free", "cam", 1): 0.20,
            ("b-cl", "layer-cam", 1): 0.02, ("masks-6", "layer-cam", 1): 0.02, ("label-free", "layer-cam", 1): 0,
        }
    )  # fmt: skip


def test_maps_of_a_run_are_averaged_before_the_runs_are(study):
    some = [s for s in scores(part_of(study)) if s.checkpoint == "b-cl"]
    regret = mean_over_runs(some, "regret")
    assert regret.mean == pytest.approx(0.045)  # of 0.05 and 0.04
    assert regret.spread == pytest.approx(0.01 / 2**0.5)
    assert mean_over_runs(some, "pxap").mean == pytest.approx(0.56)


def test_the_table_says_source_epoch_and_how_often_it_is_best(study):
    made = section(part_of(study, [curves(0), curves(1)]))
    lines = {line.name: [c.text for c in line.cells] for line in made["grid"].lines}
    assert list(lines) == ["masks-6", "b-cl", "label-free"]
    assert lines == {
        "masks-6": ["masks-6", "1.5", "59.5", "1.0", "2 of 4"],
        "b-cl": ["validation labels (B-CL)", "4", "56.0", "4.5", "1 of 4"],
        "label-free": ["label-free", "3", "53.0", "7.5", "1 of 4"],
    }
    assert made["grid"].lines[0].cells[1].beside == "1–2"
    assert made["words"].endswith("masks-6 1.0, b-cl 4.5, label-free 7.5.")
    assert "oracle among those kept" in made["grid"].caption
    names = [c.title for c in made["maps"].columns]
    cells = {line.name: {n: (c.text, c.beside) for n, c in zip(names, line.cells, strict=True)} for line in made["maps"].lines}
    assert cells["cam"] == {"masks-6": ("70.0", "lost 0.0"), "b-cl": ("62.0", "lost 8.0"), "label-free": ("57.5", "lost 12.5")}


def test_where_nothing_was_chosen_nothing_is_said(study):
    one = [f for f in study if f["key"]["checkpoint"] == "b-cl"]
    assert section(part_of(one)) is None
    bare = {"key": {"model": "gap", "fold": 0, "seed": 0}, "rows": [{"epoch": 1, "valcl_accuracy": 0.5, "train_loss": 1.0}]}
    assert section(part_of(one, [bare])) is None
    two = [f for f in study if (f["key"]["checkpoint"], f["key"]["seed"]) in {("b-cl", 0), ("masks-6", 1)}]
    assert section(part_of(two)) is None  # two checkpoints, but of different runs
    assert scores(part_of([f for f in study if f["key"]["seed"] == 0]))[0].run == (0, 0)


def test_curves_stand_side_by_side_and_other_datasets_stay_out(study):
    made = section(part_of(study, [curves(0), curves(1)]))
    (figure,) = made["figures"]
    for words in ("Classification: accuracy", "PxAP on masks", "label-free scores", ">masks-6<"):
        assert words in figure["svg"]
    bare = {k: v for k, v in curves(0).items() if k != "kept"}
    assert ">masks-6<" not in section(part_of(study, [bare]))["figures"][0]["svg"]
    stranger = curves(0)
    stranger["key"]["dataset"] = "other"
    assert section(part_of(study, [stranger]))["figures"] == []


def test_the_page_holds_the_section(study, tmp_path, check_html):
    broken = curves(1)
    broken["rows"][1]["map_stability"] = float("nan")
    write_report(tmp_path / "p.html", study, histories=[curves(0), broken])
    text = (tmp_path / "p.html").read_text()
    assert 'id="s0-selection"' in text
    assert "What chose the epoch, and what did it cost?" in text
    check_html(text)
