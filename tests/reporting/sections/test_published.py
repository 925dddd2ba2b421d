"""Numbers with and without a defect of the published code, side by side, and never in one ranking."""

from __future__ import annotations

import copy

import pytest

from wsol.reporting import rows, write_report
from wsol.reporting.export import markdown
from wsol.reporting.part import parts
from wsol.reporting.sections.published import section
from wsol.reporting.verdict import sentences


@pytest.fixture
def study(make_study):
    """One map of a model, of its twin with the wrong row, which is better by chance, and the floors."""
    files = [f for f in make_study(None) if f["key"]["model"] in ("gap", "floors")]
    plain = next(f for f in files if f["key"]["model"] == "gap")
    plain["methods"] = {"cam": plain["methods"]["cam"]}
    plain["methods"]["cam"]["groups"]["all"] |= {"pxap": 0.6, "dice": 0.5}
    plain["methods"]["cam"]["threshold"]["value"] = 0.42
    twin = copy.deepcopy(plain)
    twin["key"]["model"] = "gap+weight-row"
    twin["methods"]["cam"]["badges"]["as_published"] = "weight-row"
    twin["methods"]["cam"]["groups"]["all"] |= {"pxap": 0.95, "dice": 0.45}
    plain["methods"]["cam"]["as_published"] = {
        "test-threshold": {"badge": "as published: test-threshold", "threshold": 0.3, "dice": 0.56},
        "mirrored-threshold": {"refused": "every image has its own"},
    }
    return [*files, twin]


def test_the_table_says_what_each_defect_does(study):
    grid = section(parts(rows(study))[0])["grid"]
    said = {(one.model, one.cells[0].text): [(c.text, c.beside) for c in one.cells[1:]] for one in grid.lines}
    row = said["gap+weight-row · b-cl", "as published: weight-row"]
    assert [text for text, _ in row] == ["60.0", "95.0", "50.0", "45.0", "42.0", "42.0"]
    assert [row[i][1] for i in (1, 3, 5)] == ["+35.0", "−5.0", "0.0"]
    test = said["gap · b-cl", "as published: test-threshold"]
    assert [text for text, _ in test] == ["60.0", "60.0", "50.0", "56.0", "42.0", "30.0"]
    assert (test[3][1], test[5][1]) == ("+6.0", "−12.0")
    assert {text for text, _ in said["gap · b-cl", "as published: mirrored-threshold"]} == {"–"}


def test_a_defect_is_never_the_best_of_a_table(study, tmp_path, check_html):
    table = rows(study)
    trained = [r for r in table if not r.floor]
    assert [(r.model, r.value("pxap").mean) for r in trained] == [("gap", 0.6), ("gap+weight-row", 0.95)]
    assert table.index(trained[1]) == 1  # above the floors
    assert "weight-row" not in " ".join(s.text for s in sentences(table))
    assert sentences(table)[0].text.startswith("Best map by PxAP: cam of gap (b-cl), 60.0")
    assert "| gap+weight-row (b-cl) *as published: weight-row* | cam |" in markdown(study)
    write_report(tmp_path / "page.html", study)
    page = (tmp_path / "page.html").read_text()
    check_html(page)
    assert 'class="chip careful" title="A known defect of the published code' in page
    assert "What do the defects of the published code do to these numbers?" in page


def test_a_clean_study_has_no_such_table(make_study):
    assert section(parts(rows(make_study(None)))[0]) is None


def test_a_badge_that_half_of_the_rows_share_stays_at_its_rows(study):
    from wsol.reporting.badges import common

    assert "as_published" not in common([r for r in rows(study) if r.as_published])
