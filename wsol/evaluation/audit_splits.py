"""Checks of splits: who is on two sides of one, and what the split claims to keep apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wsol.evaluation.findings import CannotTell, Finding, counted, named
from wsol.evaluation.study import SIDES, Placed, Study

PAIRS = (("training", "test"), ("validation", "test"), ("training", "validation"))
_WHY = {
    ("training", "test"): "the test set was seen in training",
    ("validation", "test"): "validation has chosen checkpoint, scale and threshold on them",
    ("training", "validation"): "validation chooses checkpoint and threshold on what training has seen",
}


@dataclass(frozen=True)
class Overlap:
    """What two sides of a split share in the fold where it touches most samples.

    Attributes:
        sides: names of the two.
        shared: names of what they share.
        touched: samples of the second side that belong to it.
        total: samples of the second side.
        fold: the one that is counted.
        folds: all folds in which they share something.
    """

    sides: tuple[str, str]
    shared: list[str]
    touched: int
    total: int
    fold: int
    folds: list[int]

    @property
    def where(self) -> str:
        """The folds in words."""
        others = [fold for fold in self.folds if fold != self.fold]
        return f"fold {self.fold}" + (f"; fewer or as many in {named(others, 8)}" if others else "")

    def say(self, noun: str) -> str:
        """``2 patients (p1, p2) are in training and in test: 5 of 9 test samples``."""
        are = "is" if len(self.shared) == 1 else "are"
        first, second = self.sides
        return (
            f"{counted(len(self.shared), noun)} ({named(self.shared)}) {are} in {first} and in {second}: "
            f"{self.touched} of {self.total} {second} samples; {_WHY[self.sides]}"
        )


def overlaps(study: Study, of: Callable[[Placed], str]) -> list[Overlap]:
    """What the sides of a split share of `of` (its "" is nobody), one entry per pair of sides."""
    found = []
    for pair in PAIRS:
        best: Overlap | None = None
        folds = []
        for fold in study.folds:
            first, second = (study.side(fold, side).values() for side in pair)
            common = {of(s) for s in first} & {of(s) for s in second} - {""}
            if not common:
                continue
            folds.append(fold)
            touched = sum(of(s) in common for s in second)
            if best is None or touched > best.touched:
                best = Overlap(pair, sorted(common), touched, len(second), fold, folds)
        if best is not None:
            found.append(best)
    return found


def _slide(s: Placed) -> str:
    """The slide, where it says more than the sample's own name."""
    return "" if s.slide == s.sample else s.slide


def shared_samples(e: Study) -> list[Finding]:
    """A sample of the test set must be in no other role, and no validation sample in training."""
    remedy = "give each sample one role; train again, and discard the numbers that were made so"
    return [Finding("shared-samples", "error", o.say("sample"), remedy, o.where) for o in overlaps(e, lambda s: s.sample)]


def shared_files(e: Study) -> list[Finding]:
    """Two names for one file, or two files of the same content."""
    if not any(s.file or s.digest for s in e.samples):
        raise CannotTell("no paths of images are given")
    found: dict[frozenset[str], Finding] = {}
    remedy = "keep one of the names, or give both the same role; a copy of a training image in the test set is a training image"
    for what, of in (("path", lambda s: s.file), ("content", lambda s: s.digest)):
        groups: dict[str, list[Placed]] = {}
        for s in e.samples:
            groups.setdefault(of(s), []).append(s)
        twins = [g for value, g in groups.items() if value and len({s.sample for s in g}) > 1]
        for apart in (True, False):
            chosen = [g for g in twins if _apart(g) == apart]
            names = frozenset(s.sample for g in chosen for s in g)
            if chosen and names not in found:
                pairs = named([" = ".join(sorted({s.sample for s in g})) for g in chosen], 3)
                sides = "on different sides of a split" if apart else "on one side of the split, so they count twice"
                text = f"{counted(len(chosen), 'image')} under several names (same {what}), {sides}: {pairs}"
                found[names] = Finding("shared-files", "error" if apart else "warning", text, remedy)
    return list(found.values())


def _apart(group: list[Placed]) -> bool:
    """Whether different samples of a group stand on different sides of one fold."""
    side_of = {role: side for side, roles in SIDES.items() for role in roles}
    sides: dict[int, set[str]] = {}
    names: dict[int, set[str]] = {}
    for s in group:
        sides.setdefault(s.fold, set()).add(side_of[s.role])
        names.setdefault(s.fold, set()).add(s.sample)
    return any(len(sides[fold]) > 1 and len(names[fold]) > 1 for fold in sides)


def shared_patients(e: Study) -> list[Finding]:
    """A patient on two sides of a split."""
    if not any(s.patient for s in e.samples):
        raise CannotTell("no patient is known")
    remedy = "split by patient: all samples of a patient get one role"
    if e.split_unit in ("image", "patch", "slide"):
        remedy += f"; the split unit {e.split_unit!r} says so openly, but the numbers hold for patients already seen"
    return [
        Finding("shared-patients", "error" if o.sides == ("training", "test") else "warning", o.say("patient"), remedy, o.where)
        for o in overlaps(e, lambda s: s.patient)
    ]


def shared_slides(e: Study) -> list[Finding]:
    """A slide on two sides of a split (survey: the CAMELYON16 folds put patches of one slide in training and validation)."""
    if not any(s.slide for s in e.samples):
        raise CannotTell("no slide is known")
    remedy = "split by slide or by patient before cutting patches"
    return [
        Finding("shared-slides", "error" if o.sides == ("training", "test") else "warning", o.say("slide"), remedy, o.where)
        for o in overlaps(e, _slide)
    ]


def known_patients(e: Study) -> list[Finding]:
    """Where patients are unknown, nobody can say that none is on both sides."""
    unknown = [s.sample for s in e.samples if not s.patient]
    if not unknown:
        return []
    number, total = len(set(unknown)), len(e.labels)
    text = f"{number} of {counted(total, 'sample')} have no patient ({named(unknown)}): shared patients cannot be ruled out"
    remedy = "fill in the column `patient`; intervals need it too"
    return [Finding("known-patients", "warning", text, remedy)]


def training_masks(e: Study) -> list[Finding]:
    """Validation masks must not be masks of training samples."""
    found = []
    for fold in e.folds:
        both = sorted(set(e.held(fold, "valpx")) & set(e.held(fold, "train")))
        if both:
            text = f"{counted(len(both), 'validation mask')} (valpx) of training samples: {named(both)}"
            remedy = "take valpx from validation samples; a threshold tuned on training maps is too sure of itself"
            found.append(Finding("training-masks", "error", text, remedy, f"fold {fold}"))
    return found


def validation_masks(e: Study) -> list[Finding]:
    """Valpx inside valcl is the usual state; it is said, since those samples choose checkpoint and threshold both."""
    inside = {fold: sorted(set(e.held(fold, "valpx")) & set(e.held(fold, "valcl"))) for fold in e.folds}
    folds = [fold for fold, names in inside.items() if names]
    if not folds:
        return []
    most = max((inside[fold] for fold in folds), key=len)
    text = (
        f"{counted(len(most), 'validation mask')} (valpx: {named(most)}) of samples that are in valcl too: the usual state; the "
        "same samples choose the checkpoint by label and the threshold by mask"
    )
    remedy = "nothing to do; to rule it out, set valpx apart from valcl"
    return [Finding("validation-masks", "note", text, remedy, f"fold{'' if len(folds) == 1 else 's'} {named(folds, 8)}")]


def split_unit(e: Study) -> list[Finding]:
    """What the split claims to keep apart, against what it keeps apart."""
    badges = {c.badges["split_unit"] for c in e.trained() if c.badges.get("split_unit")}
    claimed = sorted((badges | {e.split_unit}) - {"", "unknown"})
    if not claimed:
        raise CannotTell("the split claims no unit")
    found = []
    if len(claimed) > 1:
        text = f"the badges and the manifest name different split units: {', '.join(claimed)}"
        found.append(Finding("split-unit", "error", text, "evaluate again with the manifest that the maps were drawn from"))
    keeps = _keeps(e)
    for unit in claimed:
        remedy = f"split by {unit}, or declare the unit that is true"
        if keeps.get(unit) is False:
            text = f"the split claims to be by {unit}, but its sides share some {unit}"
            found.append(Finding("split-unit", "error", text, remedy))
        elif unit == "patient" and keeps["patient"] is None:
            text = "the split claims to be by patient, but not every patient is known"
            found.append(Finding("split-unit", "warning", text, remedy))
        elif unit != "patient" and keeps["patient"]:
            text = f"the split claims to be by {unit}, but it keeps patients apart: a better split than it says"
            found.append(Finding("split-unit", "note", text, "declare split unit patient"))
    return found


def _keeps(e: Study) -> dict[str, bool | None]:
    """Unit -> whether the split keeps it apart; None where that is not known."""
    known = all(s.patient for s in e.samples)
    shared = bool(overlaps(e, lambda s: s.patient))
    return {
        "patient": False if shared else True if known else None,
        "slide": not overlaps(e, lambda s: s.slide) if any(s.slide for s in e.samples) else None,
        "image": not overlaps(e, lambda s: s.sample),
        "patch": not overlaps(e, lambda s: s.sample),
    }
