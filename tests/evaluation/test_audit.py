"""The auditor on a clean study, and what it owes its reader; the sins are in `test_audit_*`."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wsol.evaluation import CHECKS, Audit, Finding, PixelCounts, Placed, Study, best_ranges, best_threshold, count_pixels, examine
from wsol.evaluation.findings import counted, named

clean = SimpleNamespace(**run_path(str(Path(__file__).with_name("clean_study.py"))))
but, sample, claim, maps, CLEAN, FLOORS, IMAGES, OTHER_SEED, loud = attrgetter(
    "but", "sample", "claim", "maps", "CLEAN", "FLOORS", "IMAGES", "OTHER_SEED", "loud"
)(clean)


def test_a_clean_study_has_no_error_and_no_warning():
    audit = examine(CLEAN)
    assert [f for f in audit if f.severity != "note"] == []
    assert set(audit.checked) == set(CHECKS)
    assert audit.passed == list(CHECKS)
    assert audit.unchecked == {}


def note(study, check):
    (found,) = [f for f in examine(study) if f.check == check]
    assert found.severity == "note"
    return found.text


def test_the_usual_state_is_said_aloud():
    assert "2 validation masks (valpx: e, f)" in note(CLEAN, "validation-masks")
    assert "2 looks at the test set on 1 day, 1 trained model" in note(CLEAN, "ledger")
    better = but(
        split_unit="image", claims=[dataclasses.replace(c, badges=c.badges | {"split_unit": "image"}) for c in CLEAN.claims]
    )
    assert "keeps patients apart" in note(better, "split-unit")
    assert "code that no commit holds" in note(
        but(claims=[dataclasses.replace(c, badges=c.badges | {"code": "0.1.0+gabc.dirty"}) for c in CLEAN.claims]),
        "code-versions",
    )
    assert "2 validation masks (B-LOC)" in note(but(claims=claim({"checkpoint": "masks-2"})), "checkpoint-source")
    assert "under 2 names" in note(but(maps=OTHER_SEED), "identical-maps")
    regression = dataclasses.replace(FLOORS[0], method="pixel-regression", badges=FLOORS[0].badges | {"supervision": "masks (2)"})
    assert "fitted on the masks that chose its threshold" in note(but(claims=[*CLEAN.claims, regression]), "supervision")


def test_what_was_not_given_is_neither_passed_nor_failed():
    audit = examine(Study(IMAGES))
    assert audit.unchecked["shared-patients"] == "no patient is known"
    assert audit.unchecked["ledger"] == "no scores are given"
    assert audit.unchecked["map-class"] == "no maps are given"
    assert {"shared-samples", "shared-files", "known-patients"} <= set(audit.checked)
    assert not set(audit.checked) & set(audit.unchecked)
    assert set(audit.checked) | set(audit.unchecked) == set(CHECKS)
    assert "known-patients" not in audit.passed
    with pytest.raises(ValueError, match="needs samples with their roles"):
        examine(Study([]))


def test_the_worst_fold_is_counted_and_all_are_named():
    patients = {0: "abca", 1: "abab", 2: "abcc"}  # two in training, two in test
    samples = [
        Placed(f"x{i}", "train" if i < 2 else "test", fold, "tumor", p)
        for fold, four in patients.items()
        for i, p in enumerate(four)
    ]
    (found,) = [f for f in examine(Study(samples)) if f.check == "shared-patients"]
    assert found.text.startswith("2 patients (a, b) are in training and in test: 2 of 2 test samples")
    assert found.where == "fold 1; fewer or as many in 0"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["train", "valcl", "test"])), min_size=1, max_size=20))
def test_shared_patients_are_those_of_a_slow_count(rows):
    samples = [Placed(f"x{i}", role, 0, "", f"p{patient}") for i, (patient, role) in enumerate(rows)]
    both = {p for p, role in rows if role == "train"} & {p for p, role in rows if role == "test"}
    touched = sum(role == "test" and p in both for p, role in rows)
    found = [f for f in examine(Study(samples)) if f.check == "shared-patients" and f.severity == "error"]
    assert len(found) == (1 if both else 0)
    if both:
        assert f"{counted(len(both), 'patient')} (" in found[0].text
        assert f": {touched} of {sum(role == 'test' for _, role in rows)} test samples" in found[0].text


def test_the_best_range_holds_the_best_threshold_and_all_equal_ones():
    score = np.array([[0.1, 0.2, 0.6, 0.8]], np.float32)
    counts = count_pixels(score, score > 0.5)
    dice, miou = best_ranges(counts)
    assert dice == miou == (0.201, 0.6)  # every edge above the bin of 0.2 and not above 0.6 parts them
    assert dice[0] <= best_threshold(counts, source="test oracle").value <= dice[1]
    assert best_ranges(PixelCounts.empty()) == ()


@given(st.integers(0, 2**32 - 1))
def test_the_best_ranges_are_those_of_every_threshold_tried(seed):
    generator = np.random.default_rng(seed)
    mask = generator.random((6, 7)) < 0.4
    mask[0, 0] = True
    score = np.clip(0.3 * mask + 0.7 * generator.random((6, 7)), 0, 1).astype(np.float32)
    counts = count_pixels(score, mask, bins=50)
    tried = {"dice": [], "miou": []}
    for i in range(51):
        here = counts.at(counts.curve().threshold[i])
        iou = [here.tp / (here.tp + here.fp + here.fn), here.tn / max(here.tn + here.fp + here.fn, 1)]
        tried["dice"].append(2 * here.tp / (2 * here.tp + here.fp + here.fn))
        tried["miou"].append(sum(iou) / 2)
    for (low, high), values in zip(best_ranges(counts), tried.values(), strict=True):
        best = [i / 50 for i, v in enumerate(values) if v > max(values) - 1e-9]
        assert (low, high) == pytest.approx((best[0], best[-1]))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_mirrored_threshold_is_found_on_the_whole_grid(best, used):
    study = but(claims=claim(threshold=used / 1000, oracle=((best / 1000, best / 1000),)))
    found = {f.check for f in examine(study)}
    slack = 0 if used % 10 else 5  # a threshold of two decimals may have been rounded to them
    assume(slack not in (abs(best - used), abs(best + used - 1001)) or slack == 0)  # the edge itself is a matter of rounding
    assert ("oracle-threshold" in found) == (abs(best - used) <= slack)
    assert ("mirrored-threshold" in found) == (abs(best + used - 1001) <= slack and abs(1001 - 2 * used) > 20)


def test_a_wide_range_of_best_thresholds_accuses_nobody():
    assert "oracle-threshold" not in loud(examine(but(claims=claim(oracle=((0.1, 0.9),)))))


def test_what_is_right_is_not_accused():
    # On validation the threshold of validation masks is the best by construction; maps from 0 on are not stretched.
    there = [dataclasses.replace(c, split="valcl", scored={}) for c in claim(threshold=0.3)]
    assert "oracle-threshold" not in loud(examine(but(claims=there)))
    for low, high in ((0.0, 2.0), (-1.0, 1.0)):
        assert loud(examine(but(maps=[dataclasses.replace(m, low=low, high=high) for m in CLEAN.maps]))) == set()


def test_findings_are_checked_and_sorted():
    with pytest.raises(ValueError, match="did you mean 'error'"):
        Finding("x", "eror", "text", "remedy")
    with pytest.raises(ValueError, match="says what was found"):
        Finding("x", "error", "", "remedy")
    audit = examine(but(samples=sample("g", patient="pa"), claims=claim(prevalence=None)))
    assert isinstance(audit, Audit)
    assert [f.severity for f in audit] == sorted((f.severity for f in audit), key=["error", "warning", "note"].index)
    plain = audit.to_dict()
    assert (plain["errors"], plain["warnings"]) == (2, 1)
    assert plain["findings"][0] == audit[0].to_dict()
    assert len(audit.passed) == len(CHECKS) - 3


def test_names_in_words():
    assert named("aabcde", 3) == "a, b, c and 2 more"
    assert named([]) == ""
    assert (counted(1, "map"), counted(2, "map")) == ("1 map", "2 maps")
