"""The check for defects of the published code that were reproduced on purpose."""

from __future__ import annotations

from wsol.evaluation.findings import Finding, counted, named
from wsol.evaluation.study import Claim, Study


def as_published(e: Study) -> list[Finding]:
    """A result that was made with a known defect is told from the others; numbers beside a result are a note."""
    made: dict[str, list[Claim]] = {}
    beside: dict[str, list[Claim]] = {}
    for c in e.claims or ():
        if said := c.badges.get("as_published"):
            made.setdefault(said, []).append(c)
        for name in c.beside:
            beside.setdefault(name, []).append(c)
    found = []
    for said, claims in made.items():
        text = f"made with a known defect on purpose (as published: {said}): {named((c.name for c in claims), 3)}"
        remedy = "read it beside the same model without the defect; it is no result of its own"
        found.append(Finding("as-published", "warning", text, remedy))
    for name, claims in beside.items():
        text = f"{counted(len(claims), 'result')} with the number beside it that the defect {name!r} would give"
        found.append(Finding("as-published", "note", text, "report the number without the defect"))
    return found
