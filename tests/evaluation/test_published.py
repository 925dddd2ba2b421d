"""Defects of the published code: each is what the code that has it would report."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from wsol.evaluation import Badges, PixelCounts, Threshold, as_published, count_pixels, examine, miou_threshold, mirrored

clean = SimpleNamespace(**run_path(str(Path(__file__).with_name("clean_study.py"))))


def pixels(seed):
    """Scores (n,) that overlap, and their mask."""
    generator = np.random.default_rng(seed)
    mask = generator.random((40, 50)) < 0.3
    return np.clip(generator.normal(0.25 + 0.2 * mask, 0.12), 0, 0.9).astype(np.float32), mask


def reported_by_the_survey(score, mask):
    """(reported threshold, Dice, mean IoU) as its code has them: counts from high to low, thresholds from low to high."""
    true = [*(i / 1000 for i in range(1000)), 1.0, 2.0]
    rows = []
    for t in reversed(true):
        flagged = score >= np.float32(t)
        tp, fp = (flagged & mask).sum(), (flagged & ~mask).sum()
        fn, tn = mask.sum() - tp, (~mask).sum() - fp
        rows.append((2 * tp / (2 * tp + fp + fn), (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2))
    best = int(np.argmax([miou for _, miou in rows]))
    return (np.arange(1002) / 1000)[best], *rows[best]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_defects_together_are_what_the_survey_s_code_reports(seed):
    score, mask = pixels(seed)
    counts = count_pixels(score, mask)
    tau, dice, miou = reported_by_the_survey(score, mask)
    best = miou_threshold(counts)
    found = as_published(["test-threshold", "mirrored-threshold"], counts, best)
    assert (best.source, found["test-threshold"]["threshold"]) == ("test oracle", best.value)
    assert found["test-threshold"]["dice"] == pytest.approx(dice, abs=1e-12)
    assert found["test-threshold"]["miou"] == pytest.approx(miou, abs=1e-12)
    assert found["mirrored-threshold"]["threshold"] == pytest.approx(tau, abs=1e-12)
    again = score >= np.float32(tau)  # what somebody gets who uses the reported threshold
    assert found["mirrored-threshold"]["dice"] == pytest.approx(2 * (again & mask).sum() / (again.sum() + mask.sum()), abs=1e-12)
    assert found["mirrored-threshold"]["dice"] < dice


def test_the_mirror_is_at_1_001():
    assert mirrored(0.15) == 0.851
    assert mirrored(1.0) == 0.001
    assert all(mirrored(mirrored(t)) == t for t in (0.001, 0.5, 0.7, 1.0))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1.001"):
        mirrored(mirrored(0.0))


def test_the_mirror_of_zero_flags_nothing():
    counts = count_pixels(*pixels(0))
    found = as_published(["mirrored-threshold"], counts, Threshold(0.0, "fixed"))["mirrored-threshold"]
    assert (found["threshold"], found["dice"], found["recall"], found["precision"]) == (1.001, 0.0, 0.0, None)
    assert found["miou"] == pytest.approx(counts.negatives.sum() / counts.pixels / 2)


def test_of_equal_thresholds_the_highest_is_taken():
    score, mask = np.float32([[0.2, 0.2, 0.8, 0.8]]), np.array([[False, False, True, True]])
    assert miou_threshold(count_pixels(score, mask)).value == 0.8


def test_what_cannot_be_reproduced_says_why():
    counts = count_pixels(*pixels(0))
    several = Threshold.per_sample({"a": 0.2, "b": 0.3}, "per-image otsu")
    assert "every image has its own" in as_published(["mirrored-threshold"], counts, several)["mirrored-threshold"]["refused"]
    blank = PixelCounts(np.zeros(1001, np.int64), counts.histogram)
    found = as_published(["test-threshold"], blank, Threshold(0.5, "fixed"))["test-threshold"]
    assert found["refused"] == "the scored masks hold only one kind of pixel: no threshold is best on them"
    with pytest.raises(ValueError, match=r"unknown defect of the evaluation 'test-treshold'; did you mean 'test-threshold'"):
        as_published(["test-treshold"], counts, several)


GOOD = {**clean.BADGES, "threshold": "fixed"}


def test_a_badge_names_the_defects_and_a_clean_number_has_none():
    made = Badges(**GOOD, as_published="weight-row, wildcat-min")
    assert made.sentence().startswith("AS PUBLISHED, with a known defect: weight-row, wildcat-min; trained on image labels;")
    assert Badges.from_dict(made.to_dict()) == made
    assert Badges(**GOOD).to_dict() == Badges.from_dict(GOOD).to_dict() == GOOD
    with pytest.raises(ValueError, match="unknown as_published badge 'weight-rows'; did you mean 'weight-row'"):
        Badges(**GOOD, as_published="weight-rows")


def test_the_audit_warns_of_a_result_and_notes_what_stands_beside():
    assert clean.found(
        "as-published", "warning", r"on purpose \(as published: weight-row\): cam \(gap, b-cl",
        clean.but(claims=clean.claim({"as_published": "weight-row"})),
    )  # fmt: skip
    audit = examine(clean.but(claims=clean.claim(beside=("test-threshold", "mirrored-threshold"))))
    said = [(f.severity, f.text) for f in audit if f.check == "as-published"]
    assert ("note", "1 result with the number beside it that the defect 'test-threshold' would give") in said
    assert {severity for severity, _ in said} == {"note"}
    assert len(said) == 2
