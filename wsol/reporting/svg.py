"""Figures as inline SVG that takes its colors from the page, so that it is readable on light and on dark.

matplotlib draws with stand-in colors, which are then replaced by CSS variables (``--c1`` ... ``--c8``) and ``currentColor``; all
references to the network that matplotlib writes into its files are removed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsol.reporting.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, MUTED = "#0a0b0c", "#0a0b0d"
SERIES = tuple(f"#0a0b1{i}" for i in range(8))
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
MAX_LINES = len(SERIES)
"""More lines than this in one panel cannot be told apart; the rest stays in the table."""

PIXELS = 119
"""CSS pixels of an inch of a figure: the page is as wide as the default figure."""


@dataclass(frozen=True)
class Palette:
    """Who has which color, mark and dash, so that all figures of a split agree: methods have colors, models have dashes."""

    methods: tuple[str, ...]
    models: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, table: Sequence[Row]) -> Palette:
        """The palette of the trained rows of a table, best first.

        Methods take colors by name, so that splits agree; of more than eight the best come first, so that those that are drawn
        differ.
        """
        trained = [r for r in table if not r.floor]
        methods = list(dict.fromkeys(r.method for r in trained))
        order = methods if len(methods) > MAX_LINES else sorted(methods)
        return cls(tuple(order), tuple(dict.fromkeys((r.model, r.checkpoint) for r in trained)))

    def place(self, row: Row) -> int:
        """Which of the eight colors and marks is that of a row's method."""
        return (self.methods.index(row.method) if row.method in self.methods else len(self.methods)) % MAX_LINES

    def line(self, row: Row) -> dict[str, Any]:
        """Color and dash of a line; floors are drawn in ink."""
        if row.floor:
            return {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.1}
        model = (row.model, row.checkpoint)
        dash = self.models.index(model) if model in self.models else 0
        return {"color": SERIES[self.place(row)], "linestyle": DASHES[dash % len(DASHES)], "linewidth": 1.6}


@contextmanager
def style() -> Iterator[None]:
    """Settings of matplotlib inside which all figures are drawn."""
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "wsol", "font.size": 9.5, "text.color": INK,
        "axes.edgecolor": MUTED, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.5, "axes.titlelocation": "left",
        "axes.grid": True, "grid.color": MUTED, "grid.alpha": 0.25, "grid.linewidth": 0.6, "legend.frameon": False,
    }  # fmt: skip
    with mpl.rc_context(settings):
        yield


def panels(columns: int, width: float = 10.4, height: float = 3.5) -> tuple[Figure, list[Axes]]:
    """A figure (inches) with panels side by side, transparent; not known to pyplot."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def inline(figure: Figure, name: str, label: str) -> str:
    """A figure as one ``<svg>`` element for a page: ids start with `name`, `label` is read aloud instead of it."""
    import html

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    text = re.sub(r"font: [\d.]+px [^;\"]*", lambda m: re.sub(r"px .*", "px inherit", m[0]), text).replace(
        "font: ", "font-size: "
    )
    text = text.replace("px inherit", "px")
    for i, color in enumerate(SERIES):
        text = text.replace(color, f"var(--c{i + 1})")
    text = text.replace(INK, "currentColor").replace(MUTED, "var(--muted)")
    width = round(PIXELS * figure.get_figwidth())  # letters of all figures have one size where the page is wide enough
    size = f"max-width:{width}px;min-width:{min(width, 720)}px"
    head = f'<svg role="img" aria-label="{html.escape(label, quote=True)}" style="{size}" '
    return re.sub(r"<svg ", head, text, count=1)


def percent_axes(ax: Axes, x: str, y: str, title: str) -> None:
    """Both axes from 0 to 100 %."""
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=f"{x} (%)", ylabel=f"{y} (%)", title=title, xticks=ticks, yticks=ticks)
    percent_ticks(ax.xaxis, ax.yaxis)


def percent_ticks(*axes: Axis) -> None:
    """Ticks of fractions as percent."""
    for axis in axes:
        axis.set_major_formatter(lambda v, _: f"{100 * v:.4g}")
