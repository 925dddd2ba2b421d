"""A clean study, changes to it, and what an audit of it must say."""

from __future__ import annotations

import dataclasses
import re

from wsol.evaluation import CHECKS, Claim, MapFacts, MaskFacts, Placed, Study, examine

ROLES = {"a": "train", "b": "train", "c": "train", "d": "train", "e": "valcl", "f": "valcl", "g": "test", "h": "test",
         "i": "test", "j": "test"}  # fmt: skip
LABELS = {name: "tumor" if i % 2 else "normal" for i, name in enumerate(ROLES)}
KEY = {"dataset": "tiny", "model": "gap", "checkpoint": "b-cl", "fold": 0, "seed": 0, "set": "fast", "split": "test"}
RUN = "gap, b-cl, fast, fold 0, seed 0"
BADGES = {
    "supervision": "image label", "checkpoint": "validation labels (B-CL)", "threshold": "validation masks (2)",
    "map_class": "declared positive", "scale": "fitted on validation", "split_unit": "patient", "drawn": "whole image",
    "code": "0.1.0+gabc",
}  # fmt: skip


def placed(sample, role, **other):
    facts = {"label": LABELS[sample], "patient": f"p{sample}", "slide": f"s{sample}", "file": f"/{sample}.png"}
    return Placed(sample, role, **(facts | other))


SAMPLES = [*(placed(s, role) for s, role in ROLES.items()), placed("e", "valpx"), placed("f", "valpx")]
SCORED = {"g": 0.0, "h": 0.3, "i": 0.0, "j": 0.2}
INPUTS = {"manifest": "1" * 16, "masks": "2" * 16}
CLAIM = Claim(
    run=RUN, method="cam", split="test", key=KEY, badges=BADGES, threshold=0.4, source="validation masks", oracle=((0.3, 0.3),),
    prevalence=0.125, scored=SCORED, opened=2, inputs=INPUTS,
    trained={"supervision": "image label", "masks": 0, "manifest": "1" * 16},
)  # fmt: skip
FLOOR_KEY = KEY | {"model": "floors", "checkpoint": "none", "set": "floors"}
FLOORS = [
    dataclasses.replace(
        CLAIM, run="floors", method=name, floor=True, key=FLOOR_KEY, trained={"supervision": "none", "masks": 2},
        badges=BADGES | {"supervision": "none", "map_class": "none", "checkpoint": "none"},
    )
    for name in ("all-ones", "random", "blue-minus-red")
]  # fmt: skip
MAPS = [  # the model mistakes one normal
    MapFacts(RUN, "cam", "test", s, "tumor", "tumor" if s != "i" else "normal", -1.0 - i, 2.0 + i, f"d{s}")
    for i, s in enumerate(SCORED)
] + [MapFacts("floors", "all-ones", "test", s, None, None, 1.0, 1.0, "one", floor=True) for s in SCORED]
MASKS = {s: MaskFacts(s, ids=(0, 255), share=0.2) if LABELS[s] == "tumor" else MaskFacts(s, kind="empty") for s in "efghij"}
LOOKS = [{k: str(v) for k, v in key.items()} | {"date": "2026-11-23"} for key in (KEY, FLOOR_KEY)]
CLEAN = Study(
    SAMPLES, split_unit="patient", positive=frozenset({"tumor"}), mask_means="class", claims=[CLAIM, *FLOORS], maps=MAPS,
    masks=MASKS, looks=LOOKS, inputs=INPUTS,
)  # fmt: skip


def but(study=CLEAN, **changes):
    return dataclasses.replace(study, **changes)


def sample(name, **changes):
    """The clean samples with one changed in all its roles."""
    return [dataclasses.replace(s, **changes) if s.sample == name else s for s in SAMPLES]


def claim(badges=None, **changes):
    """The clean claims with the trained one changed."""
    return [dataclasses.replace(CLAIM, badges=BADGES | (badges or {}), **changes), *FLOORS]


def maps(change):
    """The clean maps with `change(facts)` applied to the trained ones."""
    return [m if m.floor else dataclasses.replace(m, **change(m)) for m in MAPS]


def mask(name, **changes):
    return MASKS | {name: dataclasses.replace(MaskFacts(name, ids=(0, 255), share=0.2), **changes)}


IMAGES = [dataclasses.replace(s, patient="") for s in SAMPLES]
TRUTH = maps(lambda m: {"target": LABELS[m.sample], "predicted": "tumor"})
STRETCHED = maps(lambda m: {"low": 0.0, "high": 1.0})
AGAIN = [*MAPS, *(dataclasses.replace(m, method="grad-cam") for m in MAPS if not m.floor)]
OTHER_SEED = [*MAPS, *(dataclasses.replace(m, run="gap, last, fast, fold 0, seed 0") for m in MAPS if not m.floor)]


def loud(audit):
    return {f.check for f in audit if f.severity != "note"}


def found(check, severity, words, study, besides=()):
    """The audit finds this, and no other error or warning but those of the checks `besides`."""
    audit = examine(study)
    assert any(re.search(words, f.text) for f in audit if (f.check, f.severity) == (check, severity)), [f.text for f in audit]
    assert loud(audit) == {check, *besides}
    assert all(f.remedy for f in audit)
    assert check not in audit.passed
    return True


def checks_of(part):
    """Names of the checks that live in one module of the auditor."""
    return {name for name, check in CHECKS.items() if check.find.__module__ == f"wsol.evaluation.audit_{part}"}
