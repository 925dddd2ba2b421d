"""What each known defect of the published code does to a number: without it, with it, and the difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wsol.reporting.cells import Cell, Column, Grid, Line, cell, line, signed
from wsol.reporting.export import percent
from wsol.reporting.part import Part
from wsol.reporting.table import Row, Value

COLUMNS = (
    Column("Defect", "Of the published code, reproduced on purpose", number=False),
    Column("PxAP without", "Of the same model without the defect"),
    Column("PxAP with", "With the defect; below it the difference in points"),
    Column("Dice without", "At the chosen threshold"),
    Column("Dice with", "With the defect; below it the difference in points"),
    Column("Threshold without", "The chosen one, in percent of the score range"),
    Column("Threshold with", "With the defect: the threshold that would be reported"),
)


def section(part: Part) -> dict[str, Any] | None:
    """One table: models with a defect beside their twins without it, and what the evaluation's defects make of every map."""
    lines = [*_models(part), *(one for row in part.trained if not row.as_published for one in _evaluation(row))]
    if not lines:
        return None
    caption = (
        "Percent. One defect at a time. A model with a defect is called NAME+DEFECT and trained as NAME is, from one seed; a "
        "dash: there is no such model here. test-threshold takes the threshold from the scored masks; mirrored-threshold reports "
        "1.001 minus the chosen one, and its Dice is what somebody gets who uses that."
    )
    return {"grid": Grid(COLUMNS, lines, caption)}


def _models(part: Part) -> Iterator[Line]:
    """Rows that were made with a defect, each beside the same map of the same checkpoint without it."""
    clean = {(r.model, r.checkpoint, r.set, r.method): r for r in part.trained if not r.as_published}
    for row in part.trained:
        if row.as_published:
            twin = clean.get((row.model.removesuffix(f"+{row.as_published}"), row.checkpoint, row.set, row.method))
            numbers = [_pair(twin.value(n) if twin else Value(None), row.value(n)) for n in ("pxap", "dice", "threshold")]
            yield line(row, [_name(row.as_published), *(one for pair in numbers for one in pair)])


def _evaluation(row: Row) -> Iterator[Line]:
    """A row with what each defect of the evaluation makes of it; PxAP has no threshold and stays."""
    for name in dict.fromkeys(n for found in row.found("as_published") for n in found):
        refused = row.found("as_published", name, "refused")
        if refused:
            yield line(row, [_name(name, str(refused[0])), *[Cell("–", words=str(refused[0]))] * 6])
            continue
        dice, at = (row.fact("as_published", name, k) for k in ("dice", "threshold"))
        pxap = _pair(row.value("pxap"), row.value("pxap"))
        yield line(row, [_name(name), *pxap, *_pair(row.value("dice"), dice), *_pair(row.value("threshold"), at)])


def _name(defect: str, words: str = "") -> Cell:
    return Cell(f"as published: {defect}", words=words, mark="careful")


def _pair(without: Value, spoiled: Value) -> tuple[Cell, Cell]:
    """Both numbers, the second with the difference below it."""
    if spoiled.mean is None or without.mean is None:
        return cell(without), cell(spoiled)
    return cell(without), Cell(percent(spoiled.mean), signed(spoiled.mean - without.mean), repr(spoiled.mean))
