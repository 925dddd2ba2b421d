"""Sins of maps: each study commits one, and the audit finds exactly that one."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from wsol.evaluation import MaskFacts

clean = SimpleNamespace(**run_path(str(Path(__file__).with_name("clean_study.py"))))
but, sample, claim, maps, LABELS, MASKS, CLAIM, SCORED, TRUTH, STRETCHED, AGAIN, found, checks_of = attrgetter(
    "but", "sample", "claim", "maps", "LABELS", "MASKS", "CLAIM", "SCORED", "TRUTH", "STRETCHED", "AGAIN", "found", "checks_of"
)(clean)

SINS = [
    (
        "map-class",
        "error",
        "every map shows the true class although the model decides otherwise in 2 of 4 samples; the badge claims 'predicted'",
        but(maps=TRUTH, claims=claim({"map_class": "predicted"})),
        {"normal-class-maps"},
    ),
    ("map-class", "error", "every map shows the true class although", but(maps=TRUTH), {"normal-class-maps"}),
    (
        "map-class",
        "error",
        "2 of 4 maps show another class than the declared positive, each that of its label",
        but(maps=maps(lambda m: {"target": LABELS[m.sample], "predicted": LABELS[m.sample]})),
        {"normal-class-maps"},
    ),
    ("map-class", "error", "1 of 4 maps do not show the predicted class", but(claims=claim({"map_class": "predicted"})), set()),
    (
        "map-class",
        "warning",
        "nobody has at test time; the badge says so",
        but(maps=TRUTH, claims=claim({"map_class": "ground truth"})),
        {"normal-class-maps"},
    ),
    (
        "map-class",
        "warning",
        "no prediction tells",
        but(
            mask_means="any-foreground",
            claims=[dataclasses.replace(c, scored=dict.fromkeys(SCORED, 0.3)) for c in claim({"map_class": "unknown"})],
            masks={s: MaskFacts(s, ids=(0, 1), share=0.3) for s in MASKS},
            maps=maps(lambda m: {"target": LABELS[m.sample], "predicted": None}),
        ),
        set(),
    ),
    ("normal-class-maps", "error", r"cam on test \(gap.*: 2 of 2 negatives", but(maps=TRUTH), {"map-class"}),
    (
        "normal-class-maps",
        "warning",
        ": 1 of 2 negatives",
        but(maps=maps(lambda m: {"target": m.predicted}), claims=claim({"map_class": "predicted"})),
        set(),
    ),
    (
        "broken-maps",
        "error",
        "1 map cannot be scored: cam, h: 3 of 9 values are NaN",
        but(maps=maps(lambda m: {"problem": "3 of 9 values are NaN"} if m.sample == "h" else {})),
        set(),
    ),
    (
        "constant-maps",
        "warning",
        r"cam on test .*: 1 of 4 \(g\)",
        but(maps=maps(lambda m: {"low": 0.0, "high": 0.0} if m.sample == "g" else {})),
        set(),
    ),
    ("constant-maps", "error", "all maps are constant: cam on test", but(maps=maps(lambda m: {"low": 0.0, "high": 0.0})), set()),
    ("per-image-range", "warning", r"spans exactly 0 to 1.*: 4 maps, 2 negatives among them", but(maps=STRETCHED), set()),
    (
        "per-image-range",
        "warning",
        "scores stretched to .* in every image",
        but(claims=claim({"scale": "per-image min-max"})),
        set(),
    ),
    (
        "identical-maps",
        "warning",
        "under 2 names: cam on test .* grad-cam on test",
        but(maps=AGAIN, claims=[*claim(), dataclasses.replace(CLAIM, method="grad-cam")]),
        set(),
    ),
    ("identical-maps", "error", "one and the same map for all samples: cam", but(maps=maps(lambda m: {"digest": "same"})), set()),
]
"""Check, severity, words of the finding, the study, and the other checks that fail with it."""


@pytest.mark.parametrize("sin", SINS, ids=[f"{sin[0]}-{i}" for i, sin in enumerate(SINS)])
def test_each_sin_is_found_and_no_other(sin):
    assert found(*sin)


def test_every_check_has_a_sin():
    assert {sin[0] for sin in SINS} == checks_of("maps")
