"""The sentences a reader must not have to find out alone."""

from __future__ import annotations

import pytest

from wsol.reporting import rows, sentences
from wsol.reporting.badges import careful, chips, common
from wsol.reporting.verdict import best_stain, standing


def set_pxap(files, model, method, value, interval=None):
    for one in files:
        if one["key"]["model"] == model:
            group = one["methods"][method]["groups"]["all"]
            group["pxap"], group["pxap_interval"] = value, interval or [value - 0.01, value + 0.01]


@pytest.fixture
def plain(make_study):
    """All trained maps at 80, stains at 60 and 65, pixel regression at 70."""
    files = make_study(None)
    for one in files:
        for method in one["methods"]:
            set_pxap([one], one["key"]["model"], method, 0.8)
    for method, value in {
        "hematoxylin": 0.6,
        "blue-minus-red": 0.65,
        "pixel-regression": 0.7,
        "random": 0.5,
        "all-ones": 0.5,
    }.items():
        set_pxap(files, "floors", method, value)
    return files


def said(files, kind):
    return [s.text for s in sentences(rows(files)) if s.kind == kind]


def test_a_map_below_the_stain_map_is_said_so(plain):
    set_pxap(plain, "gap", "cam", 0.612)
    assert said(plain, "bad") == [
        "1 of 8 trained maps lose to the stain map blue-minus-red (65.0), which needs no training: cam of gap (b-cl) (61.2)."
    ]


def test_equal_is_not_better(plain):
    set_pxap(plain, "gap", "cam", 0.65)
    assert len(said(plain, "bad")) == 1


def test_an_interval_that_reaches_the_stain_map_is_said_so(plain):
    set_pxap(plain, "gap", "cam", 0.68, [0.64, 0.72])
    assert said(plain, "bad") == []
    assert any(
        "Not clearly above the stain map blue-minus-red (65.0): cam of gap (b-cl), 68.0 (64.0–72.0)" in t
        for t in said(plain, "careful")
    )


def test_when_nothing_loses_nothing_is_said(plain):
    assert said(plain, "bad") == []
    assert "15.0 points above the best stain map (blue-minus-red, 65.0)" in said(plain, "best")[0]


def test_all_losing_makes_the_best_one_no_good_news(plain):
    for method in ("cam", "grad-cam", "hirescam", "layer-cam"):
        for model in ("gap", "lse"):
            set_pxap(plain, model, method, 0.5)
    assert said(plain, "bad")[0].startswith("All trained maps lose")
    assert said(plain, "best") == []
    assert "15.0 points below" in said(plain, "careful")[0]


def test_six_masks_that_do_better_are_named(plain):
    assert said(plain, "note") == []
    set_pxap(plain, "floors", "pixel-regression", 0.9)
    assert said(plain, "note") == [
        "A pixel-wise color regression trained with 6 masks reaches 90.0: all trained maps stay below it."
    ]


def test_a_class_below_its_prevalence_is_named(plain):
    plain[0]["methods"]["cam"]["groups"]["benign"] |= {"pxap": 0.41, "prevalence": 0.5}
    assert any("On benign samples" in t and "50.0): cam of gap (b-cl) (41.0)" in t for t in said(plain, "careful"))


def test_a_validation_table_warns(make_study):
    table = rows(make_study(None, splits=("valcl",)))
    assert "chosen on this split" in sentences(table)[0].text


def test_one_patient_gives_no_interval_and_is_said_so(plain):
    assert not any("No interval" in t for t in said(plain, "careful"))
    for one in plain:
        for result in one["methods"].values():
            result["groups"]["all"]["pxap_interval"] = [None, None]
            for values in result["samples"].values():
                values["patient"] = "p1"
    assert any(t.startswith("No interval can be given: there is one patient only") for t in said(plain, "careful"))


def test_no_floor_is_a_finding(plain):
    assert "no stain floor" in said([f for f in plain if f["key"]["model"] != "floors"], "note")[0]


def test_sentences_are_about_one_split(make_study):
    with pytest.raises(ValueError, match="one split"):
        sentences(rows(make_study(None, splits=("test", "valcl"))))


def test_standing_over_runs_uses_the_deviation(make_study):
    files = make_study(None, folds=2)
    for one in files:
        set_pxap([one], "floors", "blue-minus-red", 0.65) if one["key"]["model"] == "floors" else None
        if one["key"]["model"] == "gap":
            set_pxap([one], "gap", "cam", 0.6 + 0.2 * one["key"]["fold"])  # 70 +- 14
    table = rows(files)
    row = next(r for r in table if r.model == "gap" and r.method == "cam")
    assert standing(row, best_stain(table)) == "unclear"


def test_rows_show_only_what_differs_from_the_shared_badges(make_study):
    files = make_study(None)
    files[0]["methods"]["cam"]["badges"]["threshold"] = "test oracle"
    table = rows(files)
    shared = common(table)
    assert shared["threshold"] == "validation masks (6)"
    assert shared["supervision"] == "image label"
    odd = {r.name: [(c["title"], c["mark"]) for c in chips(r, shared)] for r in table if not r.floor}
    assert odd.pop("cam of gap (b-cl)") == [("threshold", "careful")]
    assert all(c == [] for c in odd.values())
    floor = next(r for r in table if r.method == "pixel-regression")
    assert [(c["title"], c["value"]) for c in chips(floor, shared)] == [("training", "masks (6)")]


def test_a_badge_that_changes_between_folds_is_said_so(make_study):
    files = make_study(None, folds=2)
    files[0]["methods"]["cam"]["badges"]["threshold"] = "label-free (otsu)"
    table = rows(files)
    row = next(r for r in table if r.model == "gap" and r.method == "cam")
    assert [(c["value"], c["mark"]) for c in chips(row, common(table))] == [
        ("label-free (otsu) / validation masks (6)", "careful")
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", "test oracle"),
        ("threshold", "label-free (per-image otsu)"),
        ("threshold", "prevalence-matched (6 masks)"),
        ("threshold", "conformal (59 negative patients)"),
        ("map_class", "ground truth"),
        ("map_class", "unknown"),
        ("scale", "per-image min-max"),
        ("scale", "per slide"),
        ("supervision", "shuffled image label"),
        ("supervision", "unknown"),
        ("checkpoint", "masks-6"),
        ("split_unit", "unknown"),
        ("drawn", "unknown"),
        ("code", "0.1.0+gabc.dirty"),
    ],
)
def test_badges_that_ask_for_care(name, value):
    assert careful(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", "validation masks (6)"),
        ("threshold", "label-free (otsu)"),
        ("threshold", "fixed"),
        ("supervision", "masks (6)"),
        ("scale", "temperature on validation labels"),
        ("scale", "none"),
        ("checkpoint", "validation labels (B-CL)"),
        ("code", "0.1.0+gabc"),
    ],
)
def test_badges_that_do_not(name, value):
    assert not careful(name, value)
