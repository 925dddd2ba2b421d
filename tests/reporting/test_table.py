"""Rows, their aggregation over folds and seeds, and the files made of them."""

from __future__ import annotations

import csv
import statistics
from copy import deepcopy

import pytest

from wsol.reporting import lines, markdown, rows, write_csv
from wsol.reporting.table import plateau


def test_rows_are_ordered_best_first_and_floors_last(scores):
    table = rows(scores)
    trained = [r for r in table if not r.floor]
    assert len(trained) == 8
    assert [r.floor for r in table] == [False] * 8 + [True] * 5
    pxap = [r.value("pxap").mean for r in trained]
    assert pxap == sorted(pxap, reverse=True)


def test_one_run_keeps_its_interval(scores):
    row = next(r for r in rows(scores) if r.model == "lse" and r.method == "cam")
    source = scores[1]["methods"]["cam"]["groups"]["all"]
    value = row.value("pxap")
    assert (value.mean, value.low, value.high, value.spread) == (source["pxap"], *source["pxap_interval"], None)
    assert row.value("pxap:benign").mean == scores[1]["methods"]["cam"]["groups"]["benign"]["pxap"]
    assert (row.samples, row.patients) == (12, 6)


def test_several_runs_have_mean_and_deviation_and_all_their_patients(make_study):
    files = make_study(None, folds=2, seeds=2)
    row = next(r for r in rows(files) if r.model == "gap" and r.method == "cam")
    numbers = [f["methods"]["cam"]["groups"]["all"]["pxap"] for f in files if f["key"]["model"] == "gap"]
    value = row.value("pxap")
    assert value.mean == pytest.approx(statistics.fmean(numbers))
    assert value.spread == pytest.approx(statistics.stdev(numbers))
    assert (value.low, value.high, value.runs, row.runs) == (None, None, 4, 4)
    assert (row.folds, row.seeds, row.samples, row.patients) == ([0, 1], [0, 1], 24, 12)


def test_curves_are_averaged_at_each_threshold(make_study):
    files = [f for f in make_study(None, folds=2) if f["key"]["model"] == "gap"]
    files[0]["methods"]["cam"]["curve"]["precision"][100] = None
    row = next(r for r in rows(files) if r.method == "cam")
    first, second = (f["methods"]["cam"]["curve"] for f in files)
    assert row.curves["dice"][42] == pytest.approx((first["dice"][42] + second["dice"][42]) / 2)
    assert row.curves["precision"][100] == second["precision"][100]


def test_the_plateau_of_the_table_is_that_of_the_evaluation(scores):
    one = deepcopy(scores[0])
    for result in one["methods"].values():
        result["transfer"] = {"plateau_width": 0.149}
    assert {row.value("plateau").mean for row in rows([one])} == {0.149}
    assert plateau({"dice": [0.0, 0.77, 0.8, 0.75, 0.2]}) == [False, True, True, False, False]


def test_the_same_run_twice_is_refused(scores):
    with pytest.raises(ValueError, match="two score files are about cam of gap"):
        rows([scores[0], scores[0]])


def test_what_is_no_score_file_is_refused(scores):
    with pytest.raises(ValueError, match="its key lacks"):
        rows([{"key": {"dataset": "x"}, "methods": {}}])
    with pytest.raises(ValueError, match="no methods"):
        rows([{"key": scores[0]["key"]}])


def test_an_undefined_number_is_empty_not_zero(make_study, tmp_path):
    files = make_study(None)
    files[0]["methods"]["cam"]["groups"]["benign"] |= {"pxap": None, "pxap_interval": [None, None], "ap": float("nan")}
    table = rows(files)
    row = next(r for r in table if r.model == "gap" and r.method == "cam")
    assert row.value("pxap:benign").mean is None
    assert row.value("ap:benign").mean is None
    write_csv(tmp_path / "board.csv", table)
    with (tmp_path / "board.csv").open() as file:
        line = next(r for r in csv.DictReader(file) if r["model"] == "gap" and r["method"] == "cam")
    assert line["pxap_benign"] == ""


def test_csv_holds_fractions_in_full(scores, tmp_path):
    table = rows(scores)
    write_csv(tmp_path / "a" / "board.csv", table)
    with (tmp_path / "a" / "board.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["pxap"]) for line in lines] == [r.value("pxap").mean for r in table]
    assert [float(line["pxap_low"]) for line in lines] == [r.value("pxap").low for r in table]
    assert {line["badge_split_unit"] for line in lines} == {"image"}
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["board.csv"]


def test_lines_are_the_csv_with_none_for_empty_cells(scores, tmp_path):
    write_csv(tmp_path / "board.csv", rows(scores))
    with open(tmp_path / "board.csv", newline="") as file:
        written = list(csv.DictReader(file))
    found = lines(scores)
    assert len(found) == len(written) == 13
    for line, row in zip(found, written, strict=True):
        assert {name: "" if value is None else str(value) for name, value in line.items()} == {n: row[n] for n in line}
        assert not any(row[name] for name in row.keys() - line.keys())
    assert any(value is None for line in found for value in line.values())
    with pytest.raises(ValueError, match="no scores of split 'valpx'"):
        lines(scores, "valpx")


def test_markdown_says_percent_and_floors(scores):
    text = markdown(scores)
    best = rows(scores)[0]
    assert f"{100 * best.value('pxap').mean:.1f} ({100 * best.value('pxap').low:.1f}–{100 * best.value('pxap').high:.1f})" in text
    assert "| *floor* | blue-minus-red |" in text
    assert scores[0]["note"] in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    with pytest.raises(ValueError, match="no scores of split 'valpx'"):
        markdown(scores, "valpx")
