"""The little arithmetic behind the sections, with answers worked out by hand."""

from __future__ import annotations

import copy
import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsol.reporting import Row, rows, write_csv, write_report
from wsol.reporting.cautions import cautions, lead
from wsol.reporting.cells import cell, signed, span, whisker
from wsol.reporting.part import parts
from wsol.reporting.sections.activation import areas, scatter_figure
from wsol.reporting.sections.audit import section as audit_section
from wsol.reporting.sections.classification import classifiers, confusion, pooled
from wsol.reporting.sections.differences import verdict
from wsol.reporting.sections.faithfulness import section as faithfulness_section
from wsol.reporting.sections.regions import by_size, size_words
from wsol.reporting.sections.regions import section as regions_section
from wsol.reporting.sections.scales import moves
from wsol.reporting.sections.scales import section as scales_section
from wsol.reporting.svg import Palette
from wsol.reporting.table import Value


@pytest.fixture
def part_of():
    """The only part of score files, with what is handed over beside them."""

    def made(files, **beside):
        return parts(rows(files), **beside)[0]

    return made


def test_cells_say_units_and_what_lies_beside():
    assert [cell(Value(0.1234, 0.1, 0.15)).text, cell(Value(0.1234, 0.1, 0.15)).beside] == ["12.3", "10.0–15.0"]
    assert (cell(Value(0.0123), "points").text, cell(Value(-0.0123), "points").text) == ("+1.2", "−1.2")
    assert cell(Value(1234.0), "count").text == "1,234"
    assert cell(Value(12.5), "count").text == "12.5"
    assert (cell(Value(0.4321, spread=0.01), "plain").text, cell(Value(0.4321, spread=0.01), "plain").beside) == (
        "0.432",
        "± 0.010",
    )
    assert (cell(Value(None)).text, cell(Value(None)).sort) == ("–", "")


@pytest.mark.parametrize(("value", "text"), [(0.021, "+2.1"), (-0.004, "−0.4"), (0.0004, "0.0"), (-0.0004, "0.0"), (0.0, "0.0")])
def test_what_rounds_to_nothing_has_no_sign(value, text):
    assert signed(value) == text


@given(st.tuples(*[st.floats(0, 1)] * 3).map(sorted), st.floats(0, 0.4), st.floats(0.5, 1))
def test_a_whisker_stays_on_its_line(values, low, high):
    low_end, dot, high_end = values
    drawn = whisker(dot, low_end, high_end, (low, high))
    assert 0 <= float(drawn.low) <= float(drawn.dot) + 0.1 <= 100.2
    assert float(drawn.low) + float(drawn.width) <= 100.1


def test_a_whisker_is_a_share_of_its_line():
    drawn = whisker(0.6, 0.5, 0.65, (0.4, 0.8), tick=0.7)
    assert [float(v) for v in (drawn.dot, drawn.low, drawn.width, drawn.tick)] == pytest.approx([50, 25, 37.5, 75])
    assert span([Value(0.5, 0.42, 0.58), Value(0.71, spread=0.05), Value(None)]) == pytest.approx((0.4, 0.8))


@pytest.mark.parametrize(
    ("mean", "low", "high", "adjusted", "corrected", "words", "mark"),
    [
        (-0.02, -0.05, 0.01, 0.001, "Holm", "not distinguishable", "unsure"),
        (0.02, 0.0, 0.04, 0.001, "Holm", "not distinguishable", "unsure"),
        (-0.02, -0.05, -0.01, 0.05, "Holm", "lower, but not after Holm", "careful"),
        (-0.02, -0.05, -0.01, 0.049, "Holm", "lower, p 0.049 after Holm", "loses"),
        (0.02, 0.01, 0.05, 0.0004, "Holm", "higher, p below 0.001 after Holm", "good"),
        (0.02, 0.01, 0.05, 0.0004, "", "higher, but not corrected for many comparisons", "careful"),
        (0.02, 0.01, 0.05, None, "Holm", "higher, but not corrected for many comparisons", "careful"),
        (0.02, None, None, None, "Holm", "no interval: too few patients", "careful"),
    ],
)
def test_a_difference_is_named_only_where_interval_and_corrected_p_say_so(mean, low, high, adjusted, corrected, words, mark):
    row = {"mean": mean, "low": low, "high": high, "p": 0.0001, "p_adjusted": adjusted}
    assert verdict(row, corrected) == (words, mark)


def test_moves_are_against_the_scale_that_was_used():
    ranks = {"fitted": {"a": 1, "b": 2, "c": 3}, "per-image": {"a": 3, "b": 1, "c": 2}, "none": {"a": 1, "b": 2}}
    found = [(m.scale, m.name, m.before, m.after) for m in moves(ranks, "fitted")]
    assert found == [("per-image", "a", 1, 3), ("per-image", "b", 2, 1), ("per-image", "c", 3, 2)]
    assert moves({"fitted": {"a": 1}}, "fitted") == []


def test_a_scale_that_turns_the_order_is_said_so(make_full, part_of):
    files = make_full()
    files[0]["methods"]["cam"]["scales"]["per-image min-max"]["pxap"] = 0.99
    table = rows(files)
    before = [r.name for r in table if not r.floor].index("cam of gap (b-cl)") + 1
    words = scales_section(part_of(files))["words"]
    assert words.startswith(
        f"Against fitted, the scale of this study: per-image min-max moves cam of gap (b-cl) from rank {before} to 1;"
    )
    assert words.endswith("more moves in the table.")


def ranking(ranks, changes=3):
    return {
        "dataset": "glas",
        "split": "test",
        "fold": 0,
        "seed": 0,
        "threshold": [0, 0.25, 0.5, 0.75],
        "ranks": ranks,
        "changes": changes,
    }


def test_the_lead_is_the_share_of_thresholds_where_the_best_by_pxap_is_first(make_study):
    table = rows(make_study(None))
    best, other = table[0].name, table[1].name
    assert lead(table, ranking({best: [1, 2, 1.5, None], other: [2, 1, 1.5, 1]})).share == pytest.approx(2 / 3)
    assert lead(table, ranking({best: [None] * 4, other: [1] * 4})) is None
    assert lead(table, ranking({"nobody": [1] * 4})) is None


def test_an_order_that_hangs_on_the_threshold_is_a_finding(make_study, part_of):
    files = make_study(None)
    best, other = (r.name for r in rows(files)[:2])
    loose = ranking({best: [1, 2, 2, 2], other: [2, 1, 1, 1]})
    firm = ranking({best: [1, 1, 2, 2], other: [2, 2, 1, 1]})
    (found,) = cautions(part_of(files, rankings=[loose]))
    assert found.kind == "careful"
    assert f"{best} is first at 25 % of the thresholds only." in found.text
    assert cautions(part_of(files, rankings=[firm])) == []


def test_a_control_that_passes_makes_the_check_blind(make_study, part_of, beside):
    probe = copy.deepcopy(beside["probes"][0])
    probe["methods"].pop("layer-cam")
    assert cautions(part_of(make_study(None), probes=[probe])) == []
    probe["controls"]["edges"]["cascading"]["verdict"] = "passes"
    (found,) = cautions(part_of(make_study(None), probes=[probe]))
    assert (found.kind, found.text.split(": ")[-1]) == ("careful", "edges at gap (b-cl).")
    (made,) = faithfulness_section(part_of(make_study(None), probes=[probe]))["probes"]
    marks = {v["name"]: [c["mark"] for c in v["chips"]] for v in made["verdicts"]}
    assert marks["control: edges"][0] == "careful"
    assert marks["control: eigen-cam"] == ["", ""]


def test_a_verdict_that_cannot_be_given_is_neither_good_nor_bad(make_study, part_of, beside):
    probe = copy.deepcopy(beside["probes"][0])
    probe["methods"]["cam"]["sanity"]["cascading"] |= {"verdict": "undefined", "spearman": [None] * 5}
    part = part_of(make_study(None), probes=[probe])
    (made,) = faithfulness_section(part)["probes"]
    chip = next(v["chips"][0] for v in made["verdicts"] if v["name"] == "cam")
    assert (chip["value"], chip["mark"], chip["words"]) == (
        "undefined",
        "careful",
        "no step can be compared: the maps are constant",
    )
    assert "cam of gap (b-cl)" not in cautions(part)[0].text.replace("layer-cam of gap (b-cl)", "")


def test_a_map_that_labels_do_not_change_fails(make_study, part_of, beside):
    probe = copy.deepcopy(beside["probes"][0])
    probe["methods"] = {"cam": {"sanity": {"labels": {"spearman": 0.9, "ssim": 0.9, "hog": 0.9, "verdict": "fails"}}}}
    (found,) = cautions(part_of(make_study(None), probes=[probe]))
    assert (found.kind, found.text.split(": ")[-1]) == ("bad", "cam of gap (b-cl) (labels).")


def test_a_probe_of_a_split_that_was_not_scored_is_shown_with_the_first(make_study, beside):
    both = parts(rows(make_study(None, splits=("test", "valpx"))), probes=beside["probes"])
    assert [(p.split, len(p.probes)) for p in both] == [("test", 2), ("valpx", 0)]
    with pytest.raises(ValueError, match="a probe is about elsewhere, split valcl"):
        parts(
            rows(make_study(None)), probes=[{**beside["probes"][0], "key": beside["probes"][0]["key"] | {"dataset": "elsewhere"}}]
        )


def test_a_comparison_without_scores_is_refused(tmp_path, make_study, beside):
    with pytest.raises(ValueError, match="a comparison is about glas, split test; there are scores of"):
        write_report(tmp_path / "x.html", make_study(None, splits=("valcl",)), differences=beside["differences"])


def test_the_auditor_s_severities_are_known(beside):
    found = audit_section(beside["audit"])
    assert [f["severity"] for f in found["loud"]] == ["error", "warning"]
    assert found["passed"] == ["valpx in training", "constant maps"]
    with pytest.raises(ValueError, match="an error, a warning or a note, got fatal"):
        audit_section({"checked": [], "findings": [{"check": "x", "severity": "fatal", "text": "", "remedy": "", "where": ""}]})
    assert audit_section({"checked": ["x"], "findings": []})["summary"] == "nothing found; 1 of 1 checks passed"
    assert audit_section(None) is None


def test_reliability_of_runs_is_weighed_by_samples(make_full):
    files = make_full(folds=2)
    tables = [f["classification"] for f in files if f["key"]["model"] == "gap"]
    tables[0]["reliability"] = {"confidence": [0.4, 0.8], "accuracy": [0.5, 1.0], "count": [2, 6]}
    tables[1]["reliability"] = {"confidence": [None, 0.6], "accuracy": [None, 0.5], "count": [0, 2]}
    (gap,) = [m for m in classifiers(rows(files)) if m.model == "gap"]
    first, second = pooled(gap)
    assert first == pytest.approx((0.4, 0.5, 2))
    assert second == pytest.approx(((0.8 * 6 + 0.6 * 2) / 8, (6 + 1) / 8, 8))


def test_confusions_of_runs_add_up(make_full):
    (gap,) = [m for m in classifiers(rows(make_full(folds=2))) if m.model == "gap"]
    found = confusion(gap, ["benign", "malignant"])
    assert [[c["n"] for c in r["cells"]] for r in found["rows"]] == [[10, 2], [0, 12]]
    assert found["rows"][0]["cells"][1]["share"] == pytest.approx(2 / 12)
    assert confusion(gap, ["a", "b", "c"]) is None


def test_recall_by_size_adds_lesions_of_runs(make_full, part_of):
    files = make_full(folds=2)
    for one in files:
        for result in one["methods"].values():
            lesions, hit = ((3, 1.0), (1, 0.0))[one["key"]["fold"]]
            result["regions"]["by_size"] = [{"low": 0, "high": 9, "lesions": lesions, "hit": hit, "covered": 0.5}]
    (merged,) = by_size(part_of(files).trained[0])
    assert (merged["lesions"], merged["hit"]) == (4, 0.75)
    section = regions_section(part_of(files))
    assert "4 lesions" in section["sizes"]
    assert ">cam of gap (b-cl)<" in section["sizes"]
    files[0]["methods"]["cam"]["regions"]["by_size"][0]["high"] = 10  # other bins than the second fold: this map is not drawn
    assert ">cam of gap (b-cl)<" not in regions_section(part_of(files))["sizes"]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0, 1000, "below 1,000 px"),
        (None, 5, "below 5 px"),
        (5, 10, "5–10 px"),
        (10, None, "from 10 px"),
        (10, float("inf"), "from 10 px"),
    ],
)
def test_sizes_in_words(low, high, text):
    assert size_words(low, high, "px") == text


def test_areas_of_very_many_images_are_thinned(make_study):
    files = make_study(None)
    samples = {str(i): {"true_area": i / 1000, "activated_area": 0.5, "label": "x", "dice": 0.5} for i in range(1000)}
    files[0]["methods"]["cam"]["samples"] = samples
    row = next(r for r in rows(files) if r.model == "gap" and r.method == "cam")
    assert len(areas(row, "true_area")) == 1000
    svg = scatter_figure([row], "x", Palette.of([row]))
    assert 300 < svg.count("<use") < 400  # 334 images and some ticks
    assert scatter_figure([], "x", Palette.of([row])) == ""


def test_facts_are_put_together_over_runs(make_full):
    files = make_full(folds=2)
    gaps = [0.01, 0.05]
    for one in files:
        one["methods"]["cam" if one["key"]["model"] != "floors" else "random"]["transfer"]["gap"] = gaps[one["key"]["fold"]]
    row = next(r for r in rows(files) if r.model == "gap" and r.method == "cam")
    assert row.value("threshold_gap").mean == pytest.approx(0.03)
    assert row.value("threshold_gap").spread == pytest.approx(0.02 * 2**0.5)
    assert row.value("patient_dice").runs == 2
    assert row.found("scale", "kind") == ["fitted", "fitted"]
    assert row.fact("no", "such").mean is None


def test_the_csv_has_the_new_numbers_as_fractions(make_full, tmp_path):
    table = rows(make_full())
    write_csv(tmp_path / "x.csv", table)
    with (tmp_path / "x.csv").open() as file:
        lines = list(csv.DictReader(file))
    for name in ("patient_pxap", "auc", "lesions_hit", "froc", "max_box_acc_v2", "threshold_gap", "over_activated"):
        assert [float(line[name]) for line in lines] == [r.value(name).mean for r in table]


def test_the_best_of_many_methods_have_colors_of_their_own():
    many = [Row("d", "test", "m", "last", "s", f"method-{i}") for i in range(10, 0, -1)]
    palette = Palette.of(many)
    assert len({palette.place(r) for r in many[:8]}) == 8
    assert Palette.of(many[:3]).methods == ("method-10", "method-8", "method-9")
