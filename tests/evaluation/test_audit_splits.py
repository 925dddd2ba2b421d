"""Sins of splits: each study commits one, and the audit finds exactly that one."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

clean = SimpleNamespace(**run_path(str(Path(__file__).with_name("clean_study.py"))))
but, sample, claim, mask, placed, SAMPLES, IMAGES, found, checks_of = attrgetter(
    "but", "sample", "claim", "mask", "placed", "SAMPLES", "IMAGES", "found", "checks_of"
)(clean)

SINS = [
    (
        "shared-samples",
        "error",
        r"1 sample \(a\) is in training and in test: 1 of 5 test",
        but(samples=[*SAMPLES, placed("a", "test", patient="", slide="")]),
        {"known-patients", "unscored-samples", "split-unit"},
    ),
    (
        "shared-samples",
        "error",
        r"1 sample \(h\) is in validation and in test",
        but(samples=[*SAMPLES, placed("h", "valcl")]),
        {"shared-patients", "shared-slides", "split-unit"},
    ),
    (
        "shared-files",
        "error",
        r"1 image under several names \(same path\), on different sides.*: a = g",
        but(samples=sample("g", file="/a.png")),
        set(),
    ),
    (
        "shared-files",
        "error",
        r"1 image under several names \(same content\).*: a = g",
        but(samples=[dataclasses.replace(s, digest="x" if s.sample in "ag" else "") for s in SAMPLES]),
        set(),
    ),
    (
        "shared-files",
        "warning",
        r"same path\), on one side of the split.*: a = b",
        but(samples=sample("b", file="/a.png")),
        set(),
    ),
    (
        "shared-patients",
        "error",
        r"1 patient \(pa\) is in training and in test: 1 of 4 test samples",
        but(samples=sample("g", patient="pa")),
        {"split-unit"},
    ),
    (
        "shared-patients",
        "warning",
        r"1 patient \(pe\) is in validation and in test",
        but(samples=sample("g", patient="pe")),
        {"split-unit"},
    ),
    (
        "shared-patients",
        "warning",
        r"1 patient \(pa\) is in training and in validation: 1 of 2 validation",
        but(samples=sample("e", patient="pa")),
        {"split-unit"},
    ),
    (
        "shared-slides",
        "error",
        r"1 slide \(sa\) is in training and in test",
        but(samples=sample("g", slide="sa"), split_unit=""),
        set(),
    ),
    ("shared-slides", "warning", r"1 slide \(sa\) is in training and in validation", but(samples=sample("f", slide="sa")), set()),
    (
        "known-patients",
        "warning",
        r"2 of 10 samples have no patient \(a, g\)",
        but(
            samples=[dataclasses.replace(s, patient="" if s.sample in "ag" else s.patient) for s in SAMPLES],
            split_unit="image",
            claims=claim({"split_unit": "image"}),
        ),
        set(),
    ),
    (
        "training-masks",
        "error",
        r"1 validation mask \(valpx\) of training samples: b",
        but(samples=[*SAMPLES, placed("b", "valpx", patient="", slide="")]),
        {"shared-samples", "known-patients", "split-unit"},
    ),
    (
        "split-unit",
        "error",
        "claims to be by patient, but its sides share some patient",
        but(samples=sample("g", patient="pa")),
        {"shared-patients"},
    ),
    (
        "split-unit",
        "error",
        "claims to be by slide, but its sides share some slide",
        but(
            samples=[dataclasses.replace(s, slide="sa") if s.sample in "ag" else s for s in IMAGES],
            split_unit="slide",
            claims=claim({"split_unit": "slide"}),
        ),
        {"shared-slides", "known-patients"},
    ),
    ("split-unit", "error", "different split units: image, patient", but(claims=claim({"split_unit": "image"})), set()),
    ("split-unit", "warning", "by patient, but not every patient is known", but(samples=IMAGES), {"known-patients"}),
]
"""Check, severity, words of the finding, the study, and the other checks that fail with it."""


@pytest.mark.parametrize("sin", SINS, ids=[f"{sin[0]}-{i}" for i, sin in enumerate(SINS)])
def test_each_sin_is_found_and_no_other(sin):
    assert found(*sin)


def test_every_check_has_a_sin():
    assert {sin[0] for sin in SINS} == checks_of("splits") - {"validation-masks"}
