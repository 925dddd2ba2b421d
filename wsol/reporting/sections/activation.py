"""Do maps mark too much or too little: activated against true area, image by image, and what is wrong on either side."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wsol.reporting.cells import Cell, Column, Grid, cell, line
from wsol.reporting.part import Part
from wsol.reporting.svg import INK, MARKS, MAX_LINES, MUTED, Palette, inline, panels, percent_axes, percent_ticks, style
from wsol.reporting.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 400
"""Images drawn in one panel; of more, every n-th by true area."""

LABELS = 4
"""Labels that get a mark of their own."""

COLUMNS = {
    "true_area": ("True area", "Median over images of the share that is foreground"),
    "activated_area": ("Activated area", "Median over images of the share that is flagged at the chosen threshold"),
    "false_positive_area": ("False positive area", "Median share of an image that is flagged and is no foreground"),
    "false_negative_area": ("False negative area", "Median share of an image that is foreground and is not flagged"),
    "over_activated": ("Over-activated", "Share of the images that are marked far too much"),
    "under_activated": ("Under-activated", "Share of the images that are marked far too little"),
}


def section(part: Part) -> dict[str, Any] | None:
    """A table, a scatter for the best map of each model, and the spread of both errors over images."""
    rows = [r for r in part.trained if r.found("activation")]
    scatter = scatter_figure([r for r in part.best if areas(r, "activated_area")], f"{part.id}-areas", part.palette)
    wrong = error_figure([r for r in part.trained if areas(r, "false_positive_area")], f"{part.id}-errors", part.palette)
    if not rows and not scatter:
        return None
    rules = dict.fromkeys(str(rule) for r in rows for rule in r.found("activation", "rule"))
    return {"grid": _grid(rows), "scatter": scatter, "errors": wrong, "rule": "; ".join(rules)}


def _grid(rows: Sequence[Row]) -> Grid | None:
    names = [n for n in COLUMNS if any(r.value(n).mean is not None for r in rows)]
    if not names:
        return None
    caption = (
        "Areas: medians over images in percent of an image, below them the quartiles over images (± deviation where there are "
    )
    caption += "several runs). Over- and under-activated: percent of the images. At the chosen threshold."
    return Grid([Column(*COLUMNS[n]) for n in names], [line(r, [_cell(r, n) for n in names]) for r in rows], caption)


def _cell(row: Row, name: str) -> Cell:
    if name.endswith("_area"):
        return cell(row.fact("activation", name, interval=("activation", "quartiles", name)))
    images = sum(row.found("activation", f"{name.removesuffix('_activated')}_samples"))
    return cell(row.value(name), words=f"of {images} images" if images else "")


def areas(row: Row, name: str) -> list[float]:
    """One area of all samples of a row that have it; runs one after the other."""
    return [float(v[name]) for samples in row.found("samples") for v in samples.values() if v.get(name) is not None]


def _points(row: Row) -> list[tuple[float, float, str]]:
    """(true area, activated area, label) of each image; spread evenly over the true areas where there are very many."""
    found = sorted(
        (float(v["true_area"]), float(v["activated_area"]), str(v.get("label", "")))
        for samples in row.found("samples")
        for v in samples.values()
        if v.get("true_area") is not None and v.get("activated_area") is not None
    )
    return found[:: -(-len(found) // POINTS)] if found else []


def scatter_figure(lines: Sequence[Row], name: str, palette: Palette) -> str:
    """Activated against true area, a panel for each row; on the diagonal both are the same. "" without rows.

    Args:
        lines: rows whose samples have areas.
        name: of the figure within the page.
        palette: colors by method.
    """
    if not lines:
        return ""
    labels = list(dict.fromkeys(p[2] for row in lines for p in _points(row)))
    with style():
        figure, axes = panels(len(lines), width=min(10.4, 3.6 * len(lines) + 1.2), height=3.7)
        for ax, row in zip(axes, lines, strict=True):
            color = palette.line(row)["color"]
            ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
            for i, label in enumerate(labels):
                points = [p for p in _points(row) if p[2] == label]
                mark, face = MARKS[min(i, LABELS)], color if i % 2 == 0 else "none"
                look: dict[str, Any] = {
                    "marker": mark,
                    "markerfacecolor": face,
                    "markersize": 5,
                    "linestyle": "none",
                    "alpha": 0.75,
                }
                ax.plot([p[0] for p in points], [p[1] for p in points], color=color, label=label or "image", **look)
            percent_axes(ax, "True area", "Activated area" if ax is axes[0] else "", row.method)
            ax.set_title(f"{row.method}\n{row.model} ({row.checkpoint})")
            if ax is not axes[0]:
                ax.set_ylabel("")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Activated against true area of {', '.join(r.name for r in lines)}")


def error_figure(lines: Sequence[Row], name: str, palette: Palette) -> str:
    """False positive and false negative area over images, the eight best maps. "" without rows.

    A line goes from the 5th to the 95th percentile, a bar from quartile to quartile; a dot is the median.

    Args:
        lines: rows whose samples have areas, best first.
        name: of the figure within the page.
        palette: colors by method.
    """
    lines = lines[:MAX_LINES]
    if not lines:
        return ""
    with style():
        figure, (left, right) = panels(2, height=0.36 * len(lines) + 1.1)
        for ax, area, title in (
            (left, "false_positive_area", "False positive area (%)"),
            (right, "false_negative_area", "False negative area (%)"),
        ):
            _boxes(ax, [areas(r, area) for r in lines], [palette.line(r)["color"] for r in lines])
            ax.set(title=title, ylim=(len(lines) - 0.4, -0.6))
            ax.set_yticks(range(len(lines)), [r.name for r in lines] if ax is left else [""] * len(lines))
            percent_ticks(ax.xaxis)
        return inline(figure, name, f"False positive and false negative area over images of {', '.join(r.name for r in lines)}")


def _boxes(ax: Axes, values: Sequence[Sequence[float]], colors: Sequence[str]) -> None:
    for y, (some, color) in enumerate(zip(values, colors, strict=True)):
        cuts = statistics.quantiles(some, n=20, method="inclusive") if len(some) > 1 else list(some) * 19
        ax.plot([cuts[0], cuts[18]], [y, y], color=color, linewidth=1.2)
        ax.plot([cuts[4], cuts[14]], [y, y], color=color, linewidth=7, alpha=0.45, solid_capstyle="butt")
        ax.plot([cuts[9]], [y], color=color, marker="o", markersize=5, linestyle="none")
    ax.set_xlim(left=0)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_color(MUTED)
