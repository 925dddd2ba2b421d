"""What a table says, in sentences: which map is best, what does not beat a color filter, and what to be careful about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wsol.reporting.export import interval, percent
from wsol.reporting.table import Row

STAINS = ("hematoxylin", "blue-minus-red")
MASKED = "pixel-regression"


@dataclass(frozen=True)
class Sentence:
    """A finding: `kind` is ``best``, ``bad``, ``careful`` or ``note``."""

    kind: str
    text: str


def best_stain(table: Sequence[Row]) -> Row | None:
    """The better of the stain maps among the floors of one split, by pooled PxAP."""
    stains = [r for r in table if r.floor and r.method in STAINS and r.value("pxap").mean is not None]
    return max(stains, key=lambda r: r.value("pxap").mean or 0.0, default=None)


def standing(row: Row, stain: Row | None) -> str:
    """How a trained map stands to the best stain map, by pooled PxAP.

    Returns:
        ``loses`` (not above it), ``unclear`` (above, but its interval or its spread over runs reaches down to it), ``beats``, or
        an empty string where one of them is undefined or the row is a floor itself.
    """
    value, floor = row.value("pxap"), stain.value("pxap").mean if stain else None
    if row.floor or value.mean is None or floor is None:
        return ""
    if value.mean <= floor:
        return "loses"
    return "unclear" if value.lower is not None and value.lower <= floor else "beats"


def sentences(table: Sequence[Row]) -> list[Sentence]:
    """The findings of one split of one dataset.

    Raises:
        ValueError: rows of several splits or datasets.
    """
    if len({(r.dataset, r.split) for r in table}) > 1:
        raise ValueError("findings are about one split of one dataset; hand over its rows only")
    trained = [r for r in table if not r.floor and not r.as_published and r.value("pxap").mean is not None]
    stain = best_stain(table)
    if not trained:
        return []
    tuned = "Thresholds, scales and checkpoints were chosen on this split: its numbers are for choosing, not for quoting."
    warning = [Sentence("careful", tuned)] if table[0].split in ("valcl", "valpx", "train") else []
    return [
        *warning,
        _best(trained, stain),
        *_people(trained),
        *_stains(trained, stain),
        *_masked(trained, table),
        *_prevalence(trained),
        *_thresholds(trained),
    ]


def _number(row: Row, name: str = "pxap") -> str:
    beside = interval(row.value(name))
    people = f"; {row.patients} patients" if row.patients > 1 else ""
    runs = f" over {row.runs} runs" if row.value(name).spread is not None else ""
    return percent(row.value(name).mean) + (f" ({beside}{runs}{people})" if beside else "")


def _best(trained: Sequence[Row], stain: Row | None) -> Sentence:
    best = max(trained, key=lambda r: r.value("pxap").mean or 0.0)
    text = f"Best map by PxAP: {best.name}, {_number(best)}"
    if stain:
        gain = 100 * ((best.value("pxap").mean or 0.0) - (stain.value("pxap").mean or 0.0))
        where = f"{abs(gain):.1f} points {'above' if gain > 0 else 'below'}"
        text += f", {where} the best stain map ({stain.method}, {percent(stain.value('pxap').mean)})"
    return Sentence("best" if standing(best, stain) in ("beats", "") else "careful", text + ".")


def _people(trained: Sequence[Row]) -> list[Sentence]:
    """Without two patients nothing is known about the next one."""
    if any(r.value("pxap").lower is not None for r in trained):
        return []
    known = {0: "no patient is named", 1: "there is one patient only"}.get(max(r.patients for r in trained), "none was computed")
    return [Sentence("careful", f"No interval can be given: {known}. The order of the rows may be chance.")]


def _stains(trained: Sequence[Row], stain: Row | None) -> list[Sentence]:
    if stain is None:
        return [
            Sentence("note", "There is no stain floor in this table, so nothing says whether a color filter would do as well.")
        ]
    found = []
    limit = percent(stain.value("pxap").mean)
    losers = [r for r in trained if standing(r, stain) == "loses"]
    unclear = [r for r in trained if standing(r, stain) == "unclear"]
    if losers:
        names = ", ".join(f"{r.name} ({percent(r.value('pxap').mean)})" for r in losers)
        share = "All" if len(losers) == len(trained) else f"{len(losers)} of {len(trained)}"
        found.append(
            Sentence(
                "bad", f"{share} trained maps lose to the stain map {stain.method} ({limit}), which needs no training: {names}."
            )
        )
    if unclear:
        names = "; ".join(f"{r.name}, {percent(r.value('pxap').mean)} ({interval(r.value('pxap'))})" for r in unclear)
        found.append(Sentence("careful", f"Not clearly above the stain map {stain.method} ({limit}): {names}."))
    return found


def _masked(trained: Sequence[Row], table: Sequence[Row]) -> list[Sentence]:
    few = next((r for r in table if r.floor and r.method == MASKED and r.value("pxap").mean is not None), None)
    if few is None:
        return []
    limit = few.value("pxap").mean or 0.0
    below = sum((r.value("pxap").mean or 0.0) <= limit for r in trained)
    if not below:
        return []
    share = "all" if below == len(trained) else f"{below} of {len(trained)}"
    seen = re.sub(r"masks \((\d+)\)", _counted, " / ".join(few.badges.get("supervision", ["a few masks"])))
    return [
        Sentence(
            "note",
            f"A pixel-wise color regression trained with {seen} reaches {percent(limit)}: {share} trained maps stay below it.",
        )
    ]


def _prevalence(trained: Sequence[Row]) -> list[Sentence]:
    found = []
    for c in trained[0].classes:
        under = [r for r in trained if _below(r, c)]
        if under:
            names = ", ".join(f"{r.name} ({percent(r.value(f'pxap:{c}').mean)})" for r in under)
            chance = percent(under[0].value(f"prevalence:{c}").mean)
            found.append(
                Sentence("careful", f"On {c} samples, below what a random map gets (the prevalence, {chance}): {names}.")
            )
    return found


def _below(row: Row, group: str) -> bool:
    score, chance = row.value(f"pxap:{group}").mean, row.value(f"prevalence:{group}").mean
    return score is not None and chance is not None and score < chance


def _thresholds(trained: Sequence[Row]) -> list[Sentence]:
    """A warning about maps whose threshold does not carry over: 5 points of Dice or more are lost to it."""
    lost = {
        r.name: (r.value("oracle_dice").mean or 0.0) - (r.value("dice").mean or 0.0)
        for r in trained
        if r.value("dice").mean is not None
    }
    far = {name: loss for name, loss in lost.items() if loss >= 0.05}
    if not far:
        return []
    names = ", ".join(f"{name} ({100 * loss:.1f})" for name, loss in far.items())
    return [Sentence("careful", f"The threshold does not carry over; points of Dice lost against the oracle: {names}.")]


def _counted(badge: re.Match[str]) -> str:
    """The badge `masks (6)` as `6 masks`."""
    return f"{badge[1]} mask{'s' * (badge[1] != '1')}"
