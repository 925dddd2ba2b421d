"""Every map against the one of the highest PxAP, on the same samples: difference, interval by patient, corrected p value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsol.reporting.cells import EMPTY, Cell, Column, Grid, Line, signed, whisker
from wsol.reporting.part import Part

METRICS = {"pxap": "PxAP", "dice": "Dice", "iou": "IoU"}
CORRECTIONS = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}
LEVEL = 0.05
NAMED = 8
"""Maps that a sentence names; the table has all."""

COLUMNS = (
    Column("Difference", "Points above (+) or below (−) the reference; on the line 95 % interval by patient, the tick is 0"),
    Column("p", "Permutation test, signs of whole patients exchanged; not corrected"),
    Column("p corrected", "Corrected for the number of comparisons of this table"),
    Column("Patients won", "Patients whose own value is higher than with the reference, of all that have one"),
    Column("In words", "Only differences that survive the correction are called a difference", number=False),
)


def section(part: Part) -> dict[str, Any] | None:
    """One table for each comparison; folds and seeds are not mixed."""
    tables = [_table(one) for one in part.differences if one["rows"]]
    return {"tables": tables} if tables else None


def _table(one: Mapping[str, Any]) -> dict[str, Any]:
    corrected = CORRECTIONS.get(one.get("correction", ""), "")
    metric = METRICS.get(one["metric"], str(one["metric"]))
    reach = _reach(one["rows"])
    how = f"p values corrected after {corrected}" if corrected else "p values not corrected"
    caption = (
        f"{metric}, points against {one['reference']}; {how}. The reference was picked on these very samples, which flatters it."
    )
    return {
        "name": f"{metric} against {one['reference']}",
        "words": _words(one, corrected),
        "place": f"fold {one['fold']}, seed {one['seed']}",
        "grid": Grid(COLUMNS, [_line(row, reach, corrected) for row in one["rows"]], caption),
    }


def _words(one: Mapping[str, Any], corrected: str) -> str:
    """Which maps cannot be told from the reference, in words."""
    near = [str(row["name"]) for row in one["rows"] if verdict(row, corrected)[1] == "unsure"]
    if not near:
        return ""
    rest = f" and {len(near) - NAMED} more" if len(near) > NAMED else ""
    share = f"{len(near)} of {len(one['rows'])} maps are"
    return f"{share} not distinguishable from {one['reference']} (the interval covers 0): {', '.join(near[:NAMED])}{rest}."


def _reach(rows: Sequence[Mapping[str, Any]]) -> float:
    """How far the lines of a table go to either side of 0."""
    return max((abs(v) for row in rows for k in ("mean", "low", "high") if (v := row.get(k)) is not None), default=0.0) or 1.0


def _line(row: Mapping[str, Any], reach: float, corrected: str) -> Line:
    mean, low, high = (row.get(k) for k in ("mean", "low", "high"))
    name, _, model = str(row["name"]).partition(" of ")
    if mean is None:
        return Line(name, model or "floor", [EMPTY] * 4 + [Cell("undefined")])
    drawn, beside = None, ""
    if low is not None and high is not None:
        drawn, beside = whisker(mean, low, high, (-reach, reach), 0.0), f"{signed(low)} to {signed(high)}"
    word, mark = verdict(row, corrected)
    cells = [
        Cell(signed(mean), beside, repr(mean), whisker=drawn),
        _p(row.get("p")),
        _p(row.get("p_adjusted")) if corrected else EMPTY,
        Cell(f"{row.get('wins', '–')} of {row.get('patients', '–')}", sort=str(row.get("wins", ""))),
        Cell(word, mark=mark),
    ]
    return Line(name, model or "floor", cells)


def _p(value: float | None) -> Cell:
    return EMPTY if value is None else Cell("<0.001" if value < 0.001 else f"{value:.3f}", sort=repr(value))


def verdict(row: Mapping[str, Any], corrected: str) -> tuple[str, str]:
    """(words, mark) for one comparison: a difference is named only where interval and corrected p value both say so.

    Args:
        row: ``mean``, ``low``, ``high``, ``p``, ``p_adjusted``; None where undefined.
        corrected: name of the correction, "" for none.
    """
    mean, low, high, adjusted = (row.get(k) for k in ("mean", "low", "high", "p_adjusted"))
    if mean is None or low is None or high is None:
        return "no interval: too few patients", "careful"
    if low <= 0 <= high:
        return "not distinguishable", "unsure"
    side = "higher" if mean > 0 else "lower"
    if not corrected or adjusted is None:
        return f"{side}, but not corrected for many comparisons", "careful"
    if (p := row.get("p")) is not None and p >= LEVEL:
        return f"{side}, but not by the permutation test (few patients cannot reach {LEVEL})", "careful"
    if adjusted >= LEVEL:
        return f"{side}, but not after {corrected}", "careful"
    return (
        f"{side}, p {'below 0.001' if adjusted < 0.001 else f'{adjusted:.3f}'} after {corrected}",
        "good" if mean > 0 else "loses",
    )
