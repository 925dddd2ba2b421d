"""How well the models decide, sample by sample and patient by patient, and whether their confidence means what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsol.reporting.cells import Cell, Column, Grid, Line, cell
from wsol.reporting.part import Part
from wsol.reporting.svg import DASHES, INK, MAX_LINES, SERIES, inline, panels, percent_axes, style
from wsol.reporting.table import Row, over

LEVELS = ("sample", "slide", "patient")
COLUMNS = (
    Column("Level", "What is classified: samples as they are, or their probabilities put together", number=False),
    Column("Units", "How many there are"),
    Column("Accuracy", "Share classified right; below it the 95 % interval by patient, or the deviation over runs"),
    Column("Balanced accuracy", "Mean over classes of the share classified right"),
    Column("AUC", "Area under the ROC curve of the probabilities"),
    Column("ECE", "Expected calibration error: mean distance of confidence and accuracy. Lower is better"),
    Column("Brier", "Mean squared error of the probabilities, as it is (no percent). Lower is better"),
)


@dataclass(frozen=True)
class Classifier:
    """A model and what its runs say of classification."""

    model: str
    checkpoint: str
    runs: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        """What a legend calls it."""
        return f"{self.model} ({self.checkpoint})"

    def level(self, name: str) -> list[Mapping[str, Any]]:
        """What the runs say of a level."""
        return [there for run in self.runs if (there := (run.get("levels") or {}).get(name))]


def section(part: Part) -> dict[str, Any] | None:
    """Table of levels, reliability diagram, confusion matrices; None where no file has levels."""
    models = [m for m in classifiers(part.trained) if any(run.get("levels") for run in m.runs)]
    if not models:
        return None
    classes = list(dict.fromkeys(c for row in part.trained for c in row.classes))
    return {
        "grid": _grid(models),
        "reliability": reliability_figure(models, f"{part.id}-reliability"),
        "confusions": [c for m in models if (c := confusion(m, classes))],
        "temperatures": "; ".join(
            f"{m.name}: {over(m.runs, 'temperature').mean:.2f}" for m in models if over(m.runs, "temperature").runs
        ),
    }


def classifiers(rows: Sequence[Row]) -> list[Classifier]:
    """One for each model and checkpoint, in the order of the rows; map sets of one model say the same."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        first.setdefault((row.model, row.checkpoint), row)
    return [
        Classifier(model, checkpoint, [one["classification"] for one, _ in row.parts if one.get("classification")])
        for (model, checkpoint), row in first.items()
    ]


def _grid(models: Sequence[Classifier]) -> Grid:
    lines = []
    for model in models:
        for level in LEVELS:
            runs = model.level(level)
            if runs:
                rates = [
                    cell(over(runs, "accuracy", "interval")),
                    *(cell(over(runs, k)) for k in ("balanced_accuracy", "auc", "ece")),
                ]
                cells = [Cell(level), cell(over(runs, "samples"), "count"), *rates, cell(over(runs, "brier"), "plain")]
                lines.append(Line(model.model, model.checkpoint, cells))
    return Grid(COLUMNS, lines, "Percent, but for counts and the Brier score.", first="Model")


def pooled(model: Classifier) -> list[tuple[float, float, int]]:
    """(confidence, accuracy, samples) of each bin with samples, over all runs whose bins agree with the first's in number."""
    tables = [run["reliability"] for run in model.runs if run.get("reliability")]
    if not tables:
        return []
    bins = len(tables[0]["count"])
    found = []
    for i in range(bins):
        full = [
            (t["confidence"][i], t["accuracy"][i], t["count"][i]) for t in tables if len(t["count"]) == bins and t["count"][i]
        ]
        many = sum(n for _, _, n in full)
        if many:
            found.append((sum(c * n for c, _, n in full) / many, sum(a * n for _, a, n in full) / many, many))
    return found


def reliability_figure(models: Sequence[Classifier], name: str) -> str:
    """Accuracy over confidence by bin; the larger a mark the more samples are in the bin. "" where no model has bins.

    Args:
        models: a line each; eight are drawn.
        name: of the figure within the page.
    """
    drawn = [(m, bins) for m in models if (bins := pooled(m))][:MAX_LINES]
    if not drawn:
        return ""
    with style():
        figure, (ax,) = panels(1, width=6.2, height=3.7)
        ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
        for i, (model, bins) in enumerate(drawn):
            most = max(n for _, _, n in bins)
            confidence, accuracy = [b[0] for b in bins], [b[1] for b in bins]
            ax.plot(confidence, accuracy, color=SERIES[i], linewidth=1.6, linestyle=DASHES[i % len(DASHES)], label=model.name)
            for c, a, n in bins:
                ax.plot([c], [a], color=SERIES[i], marker="o", markersize=4 + 6 * (n / most) ** 0.5, linestyle="none", alpha=0.7)
        percent_axes(ax, "Confidence", "Accuracy", "")
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Reliability diagram of {', '.join(m.name for m, _ in drawn)}")


def confusion(model: Classifier, classes: Sequence[str]) -> dict[str, Any] | None:
    """Confusion matrix of the samples, all runs added up; None without one, or where it does not have these classes.

    Runs name classes of their own where a sample may have several and the question is whether it has one.
    """
    classes = next((one["classes"] for one in model.runs if one.get("classes")), classes)
    tables = [one["confusion"] for one in model.level("sample") if one.get("confusion")]
    size = len(classes)
    tables = [t for t in tables if len(t) == size and all(len(row) == size for row in t)]
    if not tables:
        return None
    counts = [[sum(t[i][j] for t in tables) for j in range(size)] for i in range(size)]
    rows = [
        {"name": name, "cells": [{"n": n, "share": n / max(sum(row), 1), "right": i == j} for j, n in enumerate(row)]}
        for i, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]
    return {"name": model.name, "runs": len(tables), "rows": rows, "classes": list(classes)}
