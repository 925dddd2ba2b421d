"""Sins of thresholds, scales and checkpoints: each study commits one, and the audit finds exactly that one."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

clean = SimpleNamespace(**run_path(str(Path(__file__).with_name("clean_study.py"))))
but, claim, SAMPLES, CLEAN, found, checks_of = attrgetter("but", "claim", "SAMPLES", "CLEAN", "found", "checks_of")(clean)

SINS = [
    (
        "threshold-source",
        "error",
        r"test oracle\): cam \(gap",
        but(claims=claim({"threshold": "test oracle"}, source="test oracle")),
        set(),
    ),
    ("threshold-source", "warning", "threshold of unknown source: cam", but(claims=claim(source="")), set()),
    ("threshold-source", "warning", "9 different thresholds from 'validation masks'", but(claims=claim(values=9)), set()),
    (
        "oracle-threshold",
        "warning",
        r"1 of 1 result: the threshold claims validation and is the best .*at 0.300",
        but(claims=claim(threshold=0.3)),
        set(),
    ),
    ("mirrored-threshold", "warning", "at 0.701, best 0.300", but(claims=claim(threshold=0.701)), set()),
    (
        "fitted-on-scored",
        "warning",
        "1 result on valcl, the split that chose the checkpoint, the scale, the threshold",
        but(claims=[dataclasses.replace(c, split="valcl", scored={}) for c in CLEAN.claims]),
        set(),
    ),
    (
        "validation-counts",
        "error",
        r"checkpoint and scale chosen on validation, but fold 0 has none",
        but(samples=[s for s in SAMPLES if s.role in ("train", "test")], claims=claim({"threshold": "fixed"}, source="fixed")),
        {"validation-counts"},
    ),
    (
        "validation-counts",
        "error",
        r"threshold chosen on 6 masks, but there were 2 to open",
        but(claims=claim({"threshold": "validation masks (6)"})),
        set(),
    ),
    ("validation-counts", "error", r"threshold chosen on 2 masks, but there were 0 to open", but(claims=claim(opened=0)), set()),
    (
        "validation-counts",
        "error",
        r"checkpoint chosen on 10 masks, but there were 2 to open",
        but(claims=claim({"checkpoint": "masks-10"})),
        set(),
    ),
    ("checkpoint-source", "warning", "checkpoint chosen by 'unknown'", but(claims=claim({"checkpoint": "unknown"})), set()),
    (
        "checkpoint-source",
        "error",
        "checkpoint chosen by 'best on test'",
        but(claims=claim({"checkpoint": "best on test"})),
        set(),
    ),
]
"""Check, severity, words of the finding, the study, and the other checks that fail with it."""


@pytest.mark.parametrize("sin", SINS, ids=[f"{sin[0]}-{i}" for i, sin in enumerate(SINS)])
def test_each_sin_is_found_and_no_other(sin):
    assert found(*sin)


def test_every_check_has_a_sin():
    assert {sin[0] for sin in SINS} == checks_of("thresholds")
