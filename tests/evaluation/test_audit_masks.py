"""Sins of masks: each study commits one, and the audit finds exactly that one."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from wsol.evaluation import MaskFacts

clean = SimpleNamespace(**run_path(str(Path(__file__).with_name("clean_study.py"))))
but, sample, claim, mask, MASKS, CLEAN, SCORED, found, checks_of = attrgetter(
    "but", "sample", "claim", "mask", "MASKS", "CLEAN", "SCORED", "found", "checks_of"
)(clean)

SINS = [
    (
        "mask-files",
        "error",
        r"1 mask cannot be read: h \(no file /m.png\)",
        but(masks=mask("h", problem="no file /m.png", ids=(), share=None)),
        set(),
    ),
    (
        "mask-files",
        "error",
        "1 sample scored without a mask: i; a missing mask was read as an empty one",
        but(masks={s: m for s, m in MASKS.items() if s != "i"}),
        set(),
    ),
    ("empty-masks", "error", "1 sample with something to find but an empty mask: h", but(masks=mask("h", share=0.0)), set()),
    (
        "empty-masks",
        "error",
        r"1 sample .*empty mask: h \(1 of them without any file, declared empty\)",
        but(masks=MASKS | {"h": MaskFacts("h", kind="empty")}),
        set(),
    ),
    ("empty-masks", "error", "empty mask: j", but(claims=claim(scored=SCORED | {"j": 0.0})), set()),
    (
        "empty-masks",
        "warning",
        "empty mask: g",
        but(
            mask_means="any-foreground",
            masks={s: MaskFacts(s, ids=(0, 1), share=0.2 if s != "g" else 0.0) for s in MASKS},
            claims=claim(scored=dict.fromkeys(SCORED, 0.2)),
        ),
        set(),
    ),
    ("negative-masks", "warning", "1 sample of a negative class with foreground in the mask: g", but(masks=mask("g")), set()),
    (
        "mask-ids",
        "error",
        "1 mask read as empty: h; ids 0, 1 in the file, but only 255 is read",
        but(masks=mask("h", ids=(0, 1), foreground=(255,), share=None)),
        {"mask-ids"},
    ),
    (
        "mask-ids",
        "warning",
        r"1 mask with ids 0 and 1 \(h\) beside 2 with 0 and 255 \(f, j\)",
        but(masks=mask("h", ids=(0, 1))),
        set(),
    ),
    ("mask-ids", "warning", r"1 mask with 255 beside other ids \(h\)", but(masks=mask("h", ids=(0, 1, 255))), set()),
    (
        "gray-levels",
        "warning",
        "3 of 3 masks hold ids 0 and 1: f, h, j",
        but(foreign=True, masks={s: dataclasses.replace(m, ids=(0, 1) if m.ids else ()) for s, m in MASKS.items()}),
        set(),
    ),
    ("full-masks", "warning", "1 of 3 masks are foreground everywhere: h", but(masks=mask("h", ids=(255,), share=1.0)), set()),
    (
        "full-masks",
        "error",
        "1 mask of several ids and no background: h; the ids 1, 2",
        but(masks=mask("h", ids=(1, 2), share=1.0)),
        set(),
    ),
    (
        "unscored-samples",
        "warning",
        "1 of 4 test samples not scored: g",
        but(claims=[dataclasses.replace(c, scored={s: v for s, v in SCORED.items() if s != "g"}) for c in CLEAN.claims]),
        set(),
    ),
]
"""Check, severity, words of the finding, the study, and the other checks that fail with it."""


@pytest.mark.parametrize("sin", SINS, ids=[f"{sin[0]}-{i}" for i, sin in enumerate(SINS)])
def test_each_sin_is_found_and_no_other(sin):
    assert found(*sin)


def test_every_check_has_a_sin():
    assert {sin[0] for sin in SINS} == checks_of("masks")
