"""The two figures that every study has: how much the threshold matters, and how training went."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsol.reporting.svg import INK, MARKS, MAX_LINES, SERIES, Palette, inline, panels, percent_axes, percent_ticks, style
from wsol.reporting.table import Row, plateau

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATES = ("accuracy", "auc", "pxap", "ap", "dice", "iou", "precision", "recall")


def threshold_figure(table: Sequence[Row], name: str, palette: Palette, reference: Row | None = None) -> str:
    """Dice over the threshold and precision over recall for the rows of one model.

    Thick stretches are the plateau (Dice within 95 % of the best), a filled mark is the chosen threshold, a hollow one the test
    oracle; the dotted line on the right is the prevalence, what a random map gets. `reference`, a floor, is drawn dashed.
    """
    lines = [r for r in table if r.curves][:MAX_LINES]
    if not lines:
        return ""
    with style():
        figure, (left, right) = panels(2)
        for row in lines:
            i = palette.place(row)
            _threshold_line(left, row, SERIES[i], MARKS[i])
            right.plot(*_precision_recall(row), color=SERIES[i], linewidth=1.6, label=row.method)
        if reference is not None and reference.curves:
            dashed: dict[str, Any] = {"color": INK, "linewidth": 1.1, "dashes": (4, 3)}
            left.plot(reference.curves["threshold"], reference.curves["dice"], **dashed)
            right.plot(*_precision_recall(reference), label=f"floor: {reference.method}", **dashed)
        chance = lines[0].value("prevalence").mean
        if chance is not None:
            right.axhline(chance, color=INK, linewidth=1.0, linestyle=":")
            right.annotate(
                f"prevalence {100 * chance:.1f}",
                (0.01, chance),
                xytext=(0, 3 if chance < 0.12 else -11),
                textcoords="offset points",
                fontsize=8.5,
            )
        percent_axes(left, "Threshold", "Dice", "Dice over the threshold")
        percent_axes(right, "Recall", "Precision", "Precision over recall")
        right.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Dice over threshold, and precision over recall, of {', '.join(r.name for r in lines)}")


def _precision_recall(row: Row) -> tuple[list[float], list[float]]:
    """Recall and precision; where nothing is found there is no precision to draw."""
    points = [(r, p) for r, p in zip(row.curves["recall"], row.curves["precision"], strict=True) if r > 0]
    return [r for r, _ in points], [p for _, p in points]


def _threshold_line(ax: Axes, row: Row, color: str, mark: str) -> None:
    thresholds, dice = row.curves["threshold"], row.curves["dice"]
    ax.plot(thresholds, dice, color=color, linewidth=1.6)
    inside = plateau(row.curves)
    ax.plot(
        thresholds,
        [d if i else float("nan") for d, i in zip(dice, inside, strict=True)],
        color=color,
        linewidth=6,
        alpha=0.28,
        solid_capstyle="butt",
    )
    places: list[tuple[str, dict[str, Any]]] = [
        ("threshold", {}),
        ("oracle_threshold", {"markerfacecolor": "none", "markersize": 10}),
    ]
    for value, extra in places:
        at = row.value(value).mean
        if at is not None:
            height = dice[min(range(len(thresholds)), key=lambda i: abs(thresholds[i] - at))]
            ax.plot([at], [height], **{"color": color, "marker": mark, "markersize": 6, "linestyle": "none", **extra})


def history_figure(histories: Sequence[Mapping[str, Any]], name: str) -> str:
    """Training over epochs, a panel for the loss and up to three for validation; one line for each run, one color for each model.

    Args:
        histories: ``{"key": {"model", "fold", "seed"}, "rows": [{"epoch": 1, "train_loss": ..., "valcl_accuracy": ...}, ...]}``.
        name: of the figure within the page.
    """
    from matplotlib.ticker import MaxNLocator

    columns = dict.fromkeys(_column(c) for h in histories for row in h["rows"] for c in row)
    losses = [c for c in columns if c in ("train_loss", "val_loss")]
    validation = [c for c in columns if c.startswith("val_") and "loss" not in c]
    shown = [*([losses] if losses else []), *([c] for c in validation[:3])]
    models = list(dict.fromkeys(str(h["key"]["model"]) for h in histories))[:MAX_LINES]
    if not shown or not models:
        return ""
    with style():
        figure, axes = panels(len(shown), height=2.9)
        for ax, panel in zip(axes, shown, strict=True):
            for column in panel:
                _history_lines(ax, column, histories, models)
            words = {1: panel[0].replace("_", " ").replace("val ", "validation "), 2: "loss: training, validation dashed"}
            ax.set(xlabel="Epoch", title=words[len(panel)])
            if panel[0].endswith(RATES):
                ax.set_title(f"{words[1]} (%)")
                percent_ticks(ax.yaxis)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
        axes[-1].legend(handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Training curves of {', '.join(models)}")


def _column(name: str) -> str:
    """``train/loss`` and ``train_loss`` are one column; so are ``valcl_accuracy`` and ``val_accuracy``."""
    return re.sub("^(train|val)(?:cl)?[_/]", r"\1_", name)


def _history_lines(ax: Axes, column: str, histories: Sequence[Mapping[str, Any]], models: Sequence[str]) -> None:
    for i, model in enumerate(models):
        runs = [h for h in histories if str(h["key"]["model"]) == model]
        for history in runs:
            flat = [{_column(k): v for k, v in row.items()} for row in history["rows"]]
            points = [(row["epoch"], row[column]) for row in flat if column in row]
            dash = "--" if column == "val_loss" else "-"
            label = model if dash == "-" else None
            mark = "." if len(points) < 40 else ""
            fade = 1.0 if len(runs) == 1 else 0.6
            epochs, values = [p[0] for p in points], [p[1] for p in points]
            ax.plot(epochs, values, color=SERIES[i], linewidth=1.6, alpha=fade, label=label, marker=mark, linestyle=dash)
