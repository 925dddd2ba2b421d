"""Sins of what stands beside the numbers: each study commits one, and the audit finds exactly that one."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from wsol.evaluation import examine

clean = SimpleNamespace(**run_path(str(Path(__file__).with_name("clean_study.py"))))
but, claim, CLEAN, CLAIM, INPUTS, LOOKS, found, checks_of = attrgetter(
    "but", "claim", "CLEAN", "CLAIM", "INPUTS", "LOOKS", "found", "checks_of"
)(clean)

SINS = [
    (
        "trivial-baselines",
        "warning",
        "not scored on test of fold 0: all-ones, random, a color filter",
        but(claims=claim()[:1]),
        set(),
    ),
    (
        "trivial-baselines",
        "warning",
        "not scored on test of fold 0: random$",
        but(claims=[c for c in CLEAN.claims if c.method != "random"]),
        set(),
    ),
    ("prevalence", "warning", "1 of 4 results without the prevalence beside it: cam", but(claims=claim(prevalence=None)), set()),
    (
        "supervision",
        "error",
        "trained on 5 masks by its record, but the badge says 'image label'",
        but(claims=claim(trained=CLAIM.trained | {"masks": 5})),
        set(),
    ),
    (
        "supervision",
        "error",
        "trained with 'tile label from annotation' by its record",
        but(claims=claim(trained=CLAIM.trained | {"supervision": "tile label from annotation"})),
        set(),
    ),
    ("ledger", "error", "1 evaluation of the test split not in the ledger: gap, b-cl", but(looks=LOOKS[1:]), set()),
    ("code-versions", "warning", r"numbers of 2 code versions: 0.1.0\+gabc, 0.2.0", but(claims=claim({"code": "0.2.0"})), set()),
    (
        "mixed-inputs",
        "error",
        "results of 2 different files of manifest",
        but(claims=claim(inputs=INPUTS | {"manifest": "9" * 16})),
        set(),
    ),
    (
        "mixed-inputs",
        "error",
        "the file of masks here is not the one that the results were made from",
        but(inputs=INPUTS | {"masks": "8" * 16}),
        set(),
    ),
    (
        "mixed-inputs",
        "error",
        "trained from another manifest than the one scored: cam",
        but(claims=claim(trained=CLAIM.trained | {"manifest": "7" * 16})),
        set(),
    ),
]
"""Check, severity, words of the finding, the study, and the other checks that fail with it."""


@pytest.mark.parametrize("sin", SINS, ids=[f"{sin[0]}-{i}" for i, sin in enumerate(SINS)])
def test_each_sin_is_found_and_no_other(sin):
    assert found(*sin)


def test_every_check_has_a_sin():
    assert {sin[0] for sin in SINS} == checks_of("records")


@pytest.mark.parametrize(("role", "said"), [("valpx", True), ("train", False)])
def test_a_model_trained_on_the_masks_of_its_threshold_is_told_apart(role, said):
    trained = {"supervision": "masks (2)", "masks": 2, "train_on": role, "manifest": "1" * 16}
    audit = examine(but(claims=claim({"supervision": "masks (2)"}, trained=trained)))
    texts = [f.text for f in audit if f.check == "supervision"]
    assert texts == (["fitted on the masks that chose its threshold too: cam (gap, b-cl, fast, fold 0, seed 0)"] if said else [])
