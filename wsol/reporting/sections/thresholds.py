"""How much the threshold matters: whole curves, how far the chosen one carries, what other sources would have given."""

from __future__ import annotations

from typing import Any

from wsol.reporting.badges import careful
from wsol.reporting.cells import Cell, Column, Grid, cell, line, whisker
from wsol.reporting.export import percent
from wsol.reporting.figures import threshold_figure
from wsol.reporting.part import Part
from wsol.reporting.sections.ranking import rankings
from wsol.reporting.svg import MAX_LINES
from wsol.reporting.table import Row, Value

CARRIES = (
    Column("Chosen", "The chosen threshold in percent of the score range, and where it comes from"),
    Column("Plateau", "Thresholds whose Dice on the scored masks is within 95 % of the best, and how wide that range is"),
    Column("Dice lost to the oracle", "Points of Dice between the best threshold for all scored samples and the chosen one"),
    Column(
        "Best threshold of single images",
        "Median of the best thresholds of single images; below it their quartiles. On the line: dot and stretch are these, the "
        "tick is the chosen threshold",
    ),
    Column(
        "Dice lost to per-image oracles", "Points of Dice that one threshold for all costs against the best one of each image"
    ),
)


def section(part: Part) -> dict[str, Any] | None:
    """Figures by model, two tables, and ranks over thresholds."""
    found = {
        "figures": _figures(part),
        "carries": _carries(part),
        "sources": _sources(part),
        "rankings": rankings(part),
    }
    return found if any(found.values()) else None


def _figures(part: Part) -> list[dict[str, Any]]:
    by_model: dict[tuple[str, str], list[Row]] = {}
    for row in part.trained:
        by_model.setdefault((row.model, row.checkpoint), []).append(row)
    drawn = [
        (f"{model} ({checkpoint})", len(some), threshold_figure(some, f"{part.id}-curves-{i}", part.palette, part.stain))
        for i, ((model, checkpoint), some) in enumerate(by_model.items())
    ]
    return [{"name": name, "svg": svg, "left_out": max(0, n - MAX_LINES)} for name, n, svg in drawn if svg]


def _carries(part: Part) -> Grid | None:
    """What the chosen threshold loses, map by map."""
    rows = [r for r in part.trained if r.found("transfer")]
    if not rows:
        return None
    caption = (
        "Percent of the score range, and points of Dice. All but the chosen threshold is read off the scored masks: a bound."
    )
    return Grid(CARRIES, [line(r, _carried(r)) for r in rows], caption)


def _carried(row: Row) -> list[Cell]:
    chosen = row.value("threshold")
    source = " / ".join(row.badges.get("threshold", []))
    ranges = row.found("transfer", "plateau")
    low, high = (sum(r[i] for r in ranges) / len(ranges) for i in (0, 1)) if ranges else (None, None)
    width = row.fact("transfer", "plateau_width")
    plateau = (
        Cell("–") if low is None else Cell(f"{percent(low)}–{percent(high)}", f"width {percent(width.mean)}", repr(width.mean))
    )
    return [
        Cell(percent(chosen.mean), source, "" if chosen.mean is None else repr(chosen.mean)),
        plateau,
        cell(row.value("threshold_gap"), "points"),
        _spread(row, chosen),
        cell(row.value("lost_per_image"), "points"),
    ]


def _spread(row: Row, chosen: Value) -> Cell:
    median, low, high = (row.fact("transfer", "oracle_spread", k).mean for k in ("median", "low_quartile", "high_quartile"))
    if median is None or low is None or high is None:
        return Cell("–")
    drawn = whisker(median, low, high, tick=chosen.mean)
    return Cell(percent(median), f"{percent(low)}–{percent(high)}", repr(median), whisker=drawn)


def _sources(part: Part) -> Grid | None:
    """What each source of a threshold would give: a column for each, Dice and below it the flagged area of negatives."""
    rows = [r for r in part.trained if r.found("thresholds")]
    names = list(dict.fromkeys(name for r in rows for entry in r.found("thresholds") for name in entry))
    if not names:
        return None
    negatives = any(r.fact("thresholds", n, "flagged_area").mean is not None for r in rows for n in names)
    small = " Small print: share of the area flagged on samples without foreground." if negatives else ""
    columns = [Column((n[:1].upper() + n[1:]).replace("otsu", "Otsu"), _source_words(rows, n)) for n in names]
    caption = (
        f"Dice in percent.{small} A dash: the source refused, point at it to read why. The test oracle is a bound, not a result."
    )
    return Grid(columns, [line(r, [_source(r, n) for n in names]) for r in rows], caption)


def _source_words(rows: list[Row], name: str) -> str:
    badges = list(dict.fromkeys(str(b) for r in rows for b in r.found("thresholds", name, "badge")))
    care = any(careful("threshold", b) for b in badges)
    return " / ".join(badges) + (": to be read with care" if care else "")


def _source(row: Row, name: str) -> Cell:
    dice = row.fact("thresholds", name, "dice")
    refused = [str(why) for why in row.found("thresholds", name, "refused")]
    if dice.mean is None:
        return Cell("–", words=refused[0] if refused else "nothing to score it on")
    at, gap = row.fact("thresholds", name, "value"), row.fact("thresholds", name, "gap")
    flagged = row.fact("thresholds", name, "flagged_area").mean
    rates = [f"{k} {percent(row.fact('thresholds', name, k).mean)}" for k in ("precision", "recall")]
    words = ", ".join([f"threshold {percent(at.mean)}", *rates, f"lost to the oracle {percent(gap.mean)}", *refused])
    return Cell(percent(dice.mean), "" if flagged is None else f"flags {percent(flagged)}", repr(dice.mean), words=words)
