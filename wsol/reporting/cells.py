"""Numbers as the words, small print and little drawings of a table cell; percent wherever the files hold fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wsol.reporting.export import interval, percent
from wsol.reporting.table import Row, Value

Span = tuple[float, float]
FOLDED = 12
"""A table with more lines than this is folded until a reader opens it."""


@dataclass(frozen=True)
class Whisker:
    """A small line with a dot, a stretch and a tick: places in percent of its length, "" where there is none."""

    dot: str
    low: str
    width: str
    tick: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the small print below it, what it sorts by, and what it says when pointed at.

    `under` marks a number that is worse than nothing, and says why; `mark` is the class of a chip ("good", "bad", "careful").
    """

    text: str
    beside: str = ""
    sort: str = ""
    under: str = ""
    words: str = ""
    mark: str = ""
    whisker: Whisker | None = None


@dataclass(frozen=True)
class Column:
    """The head of a column, and what it means."""

    title: str
    words: str = ""
    number: bool = True


@dataclass(frozen=True)
class Line:
    """One line of a grid: what it is about (a method, and its model below), and its cells."""

    name: str
    model: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Grid:
    """A table of the page: all lines have a cell for each column; one with a title is folded under it."""

    columns: Sequence[Column]
    lines: Sequence[Line]
    caption: str
    first: str = "Map"
    title: str = ""

    @property
    def open(self) -> bool:
        """Whether it is short enough to be shown at once."""
        return len(self.lines) <= FOLDED


EMPTY = Cell("–")


def cell(value: Value, unit: str = "percent", words: str = "", whisker: Whisker | None = None) -> Cell:
    """A number with its interval or its deviation over runs; a dash where it is undefined.

    Args:
        value: a fraction, or what `unit` says.
        unit: ``percent``, ``points`` (signed percent), ``seconds``, ``count`` or ``plain`` (as it is).
        words: said when pointed at.
        whisker: drawn below.
    """
    if value.mean is None:
        return Cell("–", words=words)
    texts = {
        "percent": percent(value.mean),
        "points": signed(value.mean),
        "seconds": f"{value.mean:.3g}" if value.mean >= 0.001 else "<0.001",
        "count": f"{value.mean:,.0f}" if value.mean == round(value.mean) else f"{value.mean:,.1f}",
        "plain": f"{value.mean:.3f}",
    }
    beside = interval(value) if unit in ("percent", "points") else _plain_interval(value) if unit == "plain" else ""
    return Cell(texts[unit], beside, repr(value.mean), words=words, whisker=whisker)


def _plain_interval(value: Value) -> str:
    if value.spread is not None:
        return f"± {value.spread:.3f}"
    return "" if value.low is None or value.high is None else f"{value.low:.3f} to {value.high:.3f}"


def signed(value: float) -> str:
    """0.021 -> "+2.1", -0.004 -> "−0.4", and what rounds to nothing -> "0.0"."""
    text = percent(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def line(row: Row, cells: Sequence[Cell]) -> Line:
    """A line of a grid about a row of the leaderboard."""
    return Line(row.method, "floor" if row.floor else f"{row.model} · {row.checkpoint}", cells)


def whisker(dot: float, low: float, high: float, span: Span = (0.0, 1.0), tick: float | None = None) -> Whisker:
    """Where dot, stretch and tick lie on a line that goes from `span[0]` to `span[1]`."""

    def place(v: float) -> float:
        return min(1.0, max(0.0, (v - span[0]) / (span[1] - span[0])))

    return Whisker(
        percent(place(dot)), percent(place(low)), percent(place(high) - place(low)), "" if tick is None else percent(place(tick))
    )


def ends(value: Value) -> Span:
    """Interval, or mean and deviation, or the value itself; within [0, 1]."""
    mean, spread = value.mean or 0.0, value.spread or 0.0
    low = value.low if value.low is not None else max(0.0, mean - spread)
    return low, value.high if value.high is not None else min(1.0, mean + spread)


def span(values: Sequence[Value]) -> Span:
    """The stretch that the lines of a column show: all its intervals, in tenths."""
    found = [ends(v) for v in values if v.mean is not None]
    low, high = min((e[0] for e in found), default=0.0), max((e[1] for e in found), default=1.0)
    return math.floor(10 * low) / 10, max(math.ceil(10 * high) / 10, math.floor(10 * low) / 10 + 0.1)
