"""Checks of what chose threshold, scale and checkpoint: test masks must have chosen nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from wsol.evaluation.findings import CannotTell, Finding, counted, named
from wsol.evaluation.study import Claim, Study

if TYPE_CHECKING:
    from wsol.evaluation.counts import PixelCounts

SAME = 5e-4
"""Thresholds this close are one: half a bin of 1000."""

NARROW = 0.02
"""A range of best thresholds wider than this is hit by chance, and says nothing."""

MIRROR = 1.001
"""The survey's code reports `MIRROR - t` for the threshold t: its counts run from high to low, its list of thresholds from low to
high."""

PER_IMAGE = ("otsu", "per-image otsu", "label-free", "test oracle")
"""Sources that may give every image a threshold of its own."""


def threshold_source(e: Study) -> list[Finding]:
    """A result's threshold must not come from the masks that are scored, and its source must be known."""
    claims = e.claims or ()
    found = []
    oracles = [c for c in claims if c.source == "test oracle" or c.badges.get("threshold") == "test oracle"]
    if oracles:
        text = f"threshold chosen on the masks that are scored (test oracle): {_names(oracles)}"
        remedy = "take it from validation masks, or without masks (otsu, fixed, conformal); an oracle is a bound, not a result"
        found.append(Finding("threshold-source", "error", text, remedy))
    unknown = [c for c in claims if c.threshold is not None and c.source in ("", "unknown")]
    if unknown:
        text = f"threshold of unknown source: {_names(unknown)}"
        found.append(Finding("threshold-source", "warning", text, "find out what chose it; assume the test masks until then"))
    loose = [c for c in claims if c.values > 1 and c.source not in PER_IMAGE]
    if loose:
        text = f"{loose[0].values} different thresholds from {loose[0].source!r}, as if every image had its own: {_names(loose)}"
        remedy = "only a label-free rule can choose per image; anything else has seen the mask of that image"
        found.append(Finding("threshold-source", "warning", text, remedy))
    return found


def oracle_threshold(e: Study) -> list[Finding]:
    """A threshold that claims validation and is exactly the best one of the test masks."""
    known = _with_oracle(e)
    same = [(c, value) for c, value in known if c.source.startswith("validation") and c.split == "test" and _hits(c, value)]
    if not same:
        return []
    shown = named((f"{c.name} at {value:.3f}" for c, value in same), 3)
    text = (
        f"{len(same)} of {counted(len(known), 'result')}: the threshold claims validation and is the best of the scored masks "
        f"({shown}); one may agree by chance, many do not"
    )
    return [Finding("oracle-threshold", "warning", text, "check that validation and test maps are different files")]


def mirrored_threshold(e: Study) -> list[Finding]:
    """A threshold that is 1.001 minus the best one, as the survey's code reports it."""
    mirrored = [(c, value) for c, value in _with_oracle(e) if _hits(c, MIRROR - value) and abs(MIRROR - 2 * value) > NARROW]
    if not mirrored:
        return []
    shown = named((f"{c.name} at {value:.3f}, best {MIRROR - value:.3f}" for c, value in mirrored), 3)
    text = f"threshold equal to 1.001 minus the best one of the scored masks: {shown}; it seems to be mirrored"
    remedy = "read the list of thresholds in the order of the counts: true = 1.001 - reported; and it was chosen on test masks"
    return [Finding("mirrored-threshold", "warning", text, remedy)]


def best_ranges(counts: PixelCounts) -> tuple[tuple[float, float], ...]:
    """Where the threshold that is best on some masks may lie: the ranges of edges at which Dice, and mean IoU of foreground and
    background, are largest. () without foreground.
    """
    curve = counts.curve()
    if curve.tp[0] == 0:
        return ()
    background = curve.tn / np.maximum(curve.tn + curve.fp + curve.fn, 1)
    found = []
    for measure in (curve.dice, (curve.iou + background) / 2):
        best = np.flatnonzero(measure >= np.nanmax(measure) - 1e-12)
        found.append((float(curve.threshold[best[0]]), float(curve.threshold[best[-1]])))
    return tuple(found)


def _with_oracle(e: Study) -> list[tuple[Claim, float]]:
    """Trained results whose best threshold is known, with the threshold that they used."""
    known = [(c, c.threshold) for c in e.trained() if c.threshold is not None and c.oracle and c.source != "test oracle"]
    if not known:
        raise CannotTell("no result has both a threshold and a best one to compare it with")
    return known


def _hits(c: Claim, value: float) -> bool:
    """Whether a value is one of the best thresholds, to as many decimals as the result's threshold was given with (2 or 3)."""
    slack = SAME if c.threshold is None or round(c.threshold, 2) != c.threshold else 10 * SAME
    return any(low - slack <= value <= high + slack for low, high in c.oracle if high - low <= NARROW)


def fitted_on_scored(e: Study) -> list[Finding]:
    """Numbers on the validation split, which has chosen checkpoint, scale and threshold."""
    claims = [c for c in e.trained() if c.split in ("valcl", "valpx", "train")]
    if not claims:
        return []
    chosen = sorted({said for c in claims for said in _fitted(c)})
    if not chosen:
        return []
    text = (
        f"{counted(len(claims), 'result')} on {named({c.split for c in claims})}, the split that chose "
        f"{named(chosen, 6)}: {_names(claims)}"
    )
    remedy = "good for development; report the test split, or choose on other folds"
    return [Finding("fitted-on-scored", "warning", text, remedy)]


def _fitted(c: Claim) -> list[str]:
    """What validation chose for one result, in words."""
    sources = ("validation masks", "prevalence-matched", "conformal", "otsu")
    return [
        said
        for said, is_so in (
            ("the threshold", c.source in sources),
            ("the scale", "validation" in c.badges.get("scale", "")),
            ("the checkpoint", re.match("validation|masks", c.badges.get("checkpoint", "")) is not None),
        )
        if is_so
    ]


def validation_counts(e: Study) -> list[Finding]:
    """What was fitted on validation needs validation samples, and as many masks as it says."""
    found: dict[str, list[Claim]] = {}
    for c in e.claims or ():
        labels, masks = len(e.held(c.fold, "valcl")), len(e.held(c.fold, "valpx"))
        said = [b for b in ("checkpoint", "scale") if "validation" in c.badges.get(b, "")]
        if said and not labels:
            found.setdefault(f"{' and '.join(said)} chosen on validation, but fold {c.fold} has none", []).append(c)
        for name in ("threshold", "checkpoint"):
            number = _masks(c.badges.get(name, ""))
            have = masks if c.opened is None or name == "checkpoint" else min(masks, c.opened)
            if number > have:
                text = f"{name} chosen on {counted(number, 'mask')}, but there were {have} to open in validation (fold {c.fold})"
                found.setdefault(text, []).append(c)
    remedy = "something else than validation has chosen; check the roles, and evaluate again with this manifest"
    return [Finding("validation-counts", "error", f"{text}: {_names(claims)}", remedy) for text, claims in found.items()]


def _masks(badge: str) -> int:
    """The number of masks that a badge names, 0 if none."""
    match = re.search(r"validation masks \((\d+)\)|masks-(\d+)|\((\d+) masks\)", badge)
    return int(next(g for g in match.groups() if g)) if match else 0


def checkpoint_source(e: Study) -> list[Finding]:
    """What chose the checkpoint: masks are told, and what is not known is no pass."""
    badges: dict[str, list[Claim]] = {}
    for c in e.trained():
        if said := c.badges.get("checkpoint", ""):
            badges.setdefault(said, []).append(c)
    if not badges:
        raise CannotTell("no result says what chose its checkpoint")
    found = []
    for said, claims in badges.items():
        if _masks(said):
            text = f"checkpoint chosen on {counted(_masks(said), 'validation mask')} (B-LOC): {_names(claims)}"
            remedy = "not weak supervision: set it beside training on those masks, and beside B-CL"
            found.append(Finding("checkpoint-source", "note", text, remedy))
        elif said == "unknown" or "test" in said:
            text = f"checkpoint chosen by {said!r}: {_names(claims)}"
            remedy = "find out what chose it; the best epoch on the test set is the test set's own choice"
            found.append(Finding("checkpoint-source", "error" if "test" in said else "warning", text, remedy))
    return found


def _names(claims: list[Claim]) -> str:
    return named((c.name for c in claims), 3)
