"""Checks of what stands beside the numbers: floors, prevalence, supervision, the ledger, versions and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsol.evaluation.findings import CannotTell, Finding, counted, named
from wsol.evaluation.study import Claim, Study

FLOORS: dict[str, tuple[str, ...]] = {
    "all-ones": ("all-ones",),
    "random": ("random",),
    "a color filter (hematoxylin or blue-minus-red)": ("hematoxylin", "blue-minus-red"),
}
"""What every table needs below it -> the floors that count as it."""

LOOK = ("dataset", "model", "checkpoint", "fold", "seed", "set", "split")
"""Columns of the ledger that say which evaluation a row is."""


def trivial_baselines(e: Study) -> list[Finding]:
    """Every split that is scored has its floors beside it."""
    found: dict[str, list[str]] = {}
    for split, fold in sorted({(c.split, c.fold) for c in e.trained()}):
        drawn = {c.method for c in e.claims or () if c.floor and (c.split, c.fold) == (split, fold)}
        absent = [name for name, any_of in FLOORS.items() if not drawn & set(any_of)]
        if absent:
            found.setdefault(", ".join(absent), []).append(f"{split} of fold {fold}")
    remedy = "set evaluate.floors: true; a color filter beats many published maps, and all-ones shows the chance level"
    if e.foreign:
        remedy = "score all-ones, random and a color filter on the same masks, and print them below the table"
    return [
        Finding("trivial-baselines", "warning", f"not scored on {named(where)}: {absent}", remedy)
        for absent, where in found.items()
    ]


def prevalence(e: Study) -> list[Finding]:
    """The share of foreground is the chance level of PxAP; without it the number cannot be read."""
    claims = e.claims or ()
    bare = [c.name for c in claims if c.prevalence is None]
    found = []
    if bare and not e.foreign:
        text = f"{len(bare)} of {counted(len(claims), 'result')} without the prevalence beside it: {named(bare, 3)}"
        remedy = "print the share of foreground, which is the pixel average precision of an all-ones map"
        found.append(Finding("prevalence", "warning", text, remedy))
    known = {(c.split, c.fold): c.prevalence for c in claims if c.prevalence is not None}
    if e.foreign:
        if not known:
            raise CannotTell("not all test maps and masks could be read, so nobody here knows the share of foreground")
        shown = named(f"{share:.3f} on {split}" for (split, _), share in known.items())
        text = f"chance level of the pixel average precision (prevalence): {shown}"
        found.append(Finding("prevalence", "note", text, "print it beside every PxAP"))
    return found


def supervision(e: Study) -> list[Finding]:
    """What the badge says training saw, against what the record of training says."""
    known = [c for c in e.claims or () if c.trained and c.badges.get("supervision")]
    if not known:
        raise CannotTell("no record of training is beside the results")
    found: dict[tuple[str, str], list[str]] = {}
    for c in known:
        said, masks = c.badges["supervision"], int(c.trained.get("masks") or 0)
        weak = "masks" not in said
        if masks and weak and (not c.floor or c.method == "pixel-regression"):
            text = f"trained on {counted(masks, 'mask')} by its record, but the badge says {said!r}"
            found.setdefault(("error", text), []).append(c.name)
        elif not weak and c.source == "validation masks" and (c.floor or c.trained.get("train_on") == "valpx"):
            text = "fitted on the masks that chose its threshold too"
            found.setdefault(("note", text), []).append(c.name)
        elif not c.floor and weak and said != c.trained.get("supervision"):
            text = f"trained with {c.trained.get('supervision')!r} by its record, but the badge says {said!r}"
            found.setdefault(("error", text), []).append(c.name)
    remedy = "evaluate again with the record of the model that drew the maps"
    return [
        Finding("supervision", severity, f"{text}: {named(who, 3)}", remedy if severity == "error" else "read its Dice with care")
        for (severity, text), who in found.items()
    ]


def ledger(e: Study) -> list[Finding]:
    """Every look at a test set is a row; and how often it was looked at."""
    looks = e.looks or ()
    tested = {_row(c.key): c for c in e.claims or () if c.split == "test"}
    found = []
    absent = [c.run for row, c in tested.items() if row not in {_row(look) for look in looks}]
    if absent:
        text = f"{counted(len(absent), 'evaluation')} of the test split not in the ledger: {named(absent, 3)}"
        remedy = "set evaluate.ledger before the test set is scored; add the rows that are missing"
        found.append(Finding("ledger", "error", text, remedy))
    datasets = {str(c.key.get("dataset", "")) for c in tested.values()}
    mine = [look for look in looks if look.get("split") == "test" and look.get("dataset") in datasets]
    if mine:
        days, models = ({look.get(column, "") for look in mine} for column in ("date", "model"))
        trained = counted(len(models - {"floors"}), "trained model")
        text = f"{counted(len(mine), 'look')} at the test set on {counted(len(days), 'day')}, {trained}"
        remedy = "each look that a decision was taken on makes the test set a little more of a validation set"
        found.append(Finding("ledger", "note", text, remedy))
    return found


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(key.get(name, "")) for name in LOOK)


def code_versions(e: Study) -> list[Finding]:
    """Numbers side by side are of one version of the code, and that version can be had again."""
    versions = _versions(e)
    found = []
    if len(versions) > 1:
        text = f"numbers of {counted(len(versions), 'code version')}: {named(versions)}"
        found.append(Finding("code-versions", "warning", text, "evaluate all of them again with one version"))
    if dirty := [v for v in versions if v.endswith((".dirty", "+unknown"))]:
        text = f"numbers of code that no commit holds: {named(dirty)}"
        found.append(Finding("code-versions", "note", text, "commit, and run again before publishing"))
    return found


def _versions(e: Study) -> list[str]:
    versions = sorted({c.badges["code"] for c in e.claims or () if c.badges.get("code")})
    if not versions:
        raise CannotTell("no result names the version of its code")
    return versions


def mixed_inputs(e: Study) -> list[Finding]:
    """All numbers are of the same manifest and masks: of these here, and of those that the models were trained with."""
    claims = [c for c in e.claims or () if c.inputs]
    if not claims:
        raise CannotTell("no result names its input files")
    found = []
    for name in sorted({n for c in claims for n in c.inputs}):
        contents: dict[str, list[Claim]] = {}
        for c in claims:
            contents.setdefault(c.inputs.get(name, ""), []).append(c)
        here = e.inputs.get(name)
        if len(contents) > 1:
            shown = named((f"{digest[:8]}: {len(group)}" for digest, group in contents.items()), 4)
            text = f"results of {len(contents)} different files of {name} ({shown})"
            found.append(Finding("mixed-inputs", "error", text, "evaluate all of them again from one file"))
        elif here is not None and here not in contents:
            text = f"the file of {name} here is not the one that the results were made from"
            found.append(Finding("mixed-inputs", "error", text, "evaluate again, or audit with the file they were made from"))
    other = [c.name for c in claims if (was := c.trained.get("manifest")) and was != c.inputs.get("manifest")]
    if other:
        text = f"trained from another manifest than the one scored: {named(other, 3)}; a test sample may have been in training"
        found.append(Finding("mixed-inputs", "error", text, "train again from this manifest"))
    return found
