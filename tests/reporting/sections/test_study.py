"""What is said of the whole study: quality of the slides, cost of the rules, failures, commands."""

from __future__ import annotations

import html

import numpy as np
import pytest
from PIL import Image

from wsol.reporting import rows, write_report
from wsol.reporting.provenance import provenance
from wsol.reporting.sections import failures, quality, runtime


def status(i, **changed):
    return {
        "slide": f"s{i:04d}", "status": "ok", "reason": "20 of 100 tiles hold enough tissue", "tiles": 20, "positions": 100,
        "tissue_fraction": 0.315, "pen_fraction": 0.012, "flagged": {"blur": 2, "pen": 0, "fold": 1}, "dropped": 4, **changed,
    }  # fmt: skip


def texts(line):
    return [cell.text for cell in line.cells]


def test_a_slide_has_all_its_numbers_and_those_of_concern_come_first():
    slides = [status(1, flagged={"blur": 0}), status(2), status(3, status="empty", tiles=0)]
    slides.append({"slide": "s9", "status": "failed", "reason": "truncated", "verb": "tile", "file": "s9.svs"})
    made = quality.section(slides, {})
    assert [line.name for line in made["grid"].lines] == ["s9", "s0003", "s0002", "s0001"]
    assert texts(made["grid"].lines[2]) == ["ok", "20", "31.5", "1.2", "3", "4", "20 of 100 tiles hold enough tissue"]
    assert made["grid"].lines[2].cells[4].beside == "blur 2, fold 1"
    assert texts(made["grid"].lines[0]) == ["failed", *["–"] * 5, "truncated"]
    assert made["words"].startswith("4 slides: 2 ok, 1 empty, 1 failed; 40 tiles, 20 of a slide in the median; 2 with flagged")


def test_pictures_of_slides_are_limited_the_worst_among_them(tmp_path):
    slides = [status(i, flagged={"blur": i % 20}) for i in range(100)]
    path = tmp_path / "p.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    made = quality.section(slides, {s["slide"]: path for s in slides})
    shown = [p["slide"] for p in made["pictures"]]
    assert len(shown) == len(set(shown)) == 24
    assert {"s0019", "s0039", "s0059", "s0079", "s0099"} <= set(shown)
    assert "Pictures of 24 of them" in made["words"]
    assert not made["grid"].open


def test_no_slides_no_section():
    assert quality.section([], {}) is None
    assert runtime.section([]) is None
    assert failures.section([], []) is None


def job(rule, name, seconds, cpu=None, mb=None):
    return {"rule": rule, "job": name, "seconds": seconds, "cpu": cpu, "memory": mb}


def test_time_and_memory_of_each_rule_the_most_expensive_first():
    jobs = [job("tile", "a", 1.0, 0.5, 100.0), job("tile", "b", 3.0, 2.5, 300.0), job("train", "gap", 36.0, 70.0, 2048.0)]
    made = runtime.section([*jobs, job("tile", "c", 0.4)])
    train, tile = made["grid"].lines
    assert (train.name, tile.name) == ("train", "tile")
    assert texts(train) == ["1", "36 s", "89.1", "36 s", "36 s", "70 s", "2.0 GB"]
    assert texts(tile) == ["3", "4.4 s", "10.9", "1.0 s", "3.0 s", "3.0 s", "300 MB"]
    assert (tile.cells[4].beside, tile.cells[6].beside) == ("b", "b")
    assert made["words"] == "4 jobs, 40 s of wall time one after the other, at most 2.0 GB of memory"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (75, "75 s"), (600, "10 min"), (7100, "118 min"), (11100, "3 h 05 min"), (3.6e6, "1,000 h 00 min")],
)
def test_durations_in_words(seconds, words):
    assert runtime.duration(seconds) == words


def test_what_was_not_measured_is_a_dash():
    (line,) = runtime.section([job("tile", "a", 0.2)])["grid"].lines
    assert texts(line)[5:] == ["–", "–"]


def test_slides_that_gave_nothing_say_what_found_it_and_missed_samples_which_maps_miss_them(make_study):
    files = make_study(None)
    for one in files[:2]:
        one["methods"]["cam"]["samples"]["testA_0"]["dice"] = 0.0
    files[0]["methods"]["cam"]["samples"]["testB_1"]["dice"] = 0.0
    best = [r for r in rows(files) if r.method == "cam" and not r.floor]
    lost = [{"slide": "x", "status": "failed", "reason": "truncated", "verb": "localize"}, {"slide": "y", "status": "empty"}]
    made = failures.section(best, [*lost, status(1)])
    assert [(x["slide"], x["verb"], x["why"]) for x in made["lost"]] == [
        ("x", "wsol localize", "truncated"),
        ("y", "wsol tile", ""),
    ]
    assert [(x["sample"], len(x["maps"])) for x in made["missed"]] == [("testA_0", 2), ("testB_1", 1)]
    assert made["said"] == "1 slide could not be read, 1 slide without tissue, 2 samples missed"


def test_many_missed_samples_are_cut_openly(tmp_path, make_study):
    files = make_study(None)
    for result in files[0]["methods"].values():
        result["samples"] = {f"i{i:04d}": {"dice": 0.0, "label": "benign", "patient": ""} for i in range(300)}
    write_report(tmp_path / "x.html", files)
    text = (tmp_path / "x.html").read_text()
    assert "The first 200 of 300; the others stand in the score files." in text
    assert ">i0199<" in text
    assert ">i0200<" not in text


def test_commands_are_shown_whole_and_cut_openly(tmp_path, make_study):
    calls = [(f"train m{i}", f"wsol train --settings '{{\"lr\": {i}}}'") for i in range(45)]
    made = provenance(make_study(None), calls)
    assert (len(made["commands"]), made["more"]) == (40, 5)
    write_report(tmp_path / "x.html", make_study(None), commands=calls, packages={"Python": "3.11.9"})
    text = html.unescape((tmp_path / "x.html").read_text())
    assert "wsol train --settings '{\"lr\": 39}'" in text
    assert "5 more" in text
    assert "Python 3.11.9" in text


def test_the_whole_page_is_sound_with_all_of_it(tmp_path, make_study, check_html):
    path = tmp_path / "p.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    slides = [status(i) for i in range(30)]
    jobs = [job("tile", s["slide"], 1.5, 1.0, 90.0) for s in slides]
    write_report(
        tmp_path / "x.html", make_study(None), statuses=[*slides, status(99, status="failed")], jobs=jobs,
        thumbnails={s["slide"]: path for s in slides}, commands=[("study", "snakemake --cores 2")],
    )  # fmt: skip
    text = (tmp_path / "x.html").read_text()
    check_html(text)
    for name in ("quality", "runtime", "failures"):
        assert f'<a href="#{name}">' in text
