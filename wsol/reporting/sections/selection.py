"""What chose the epoch, and what the choice cost: validation curves side by side, and the regret of each kept checkpoint."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsol.reporting.cells import EMPTY, Cell, Column, Grid, Line, cell
from wsol.reporting.export import percent
from wsol.reporting.part import Part
from wsol.reporting.svg import INK, MARKS, SERIES, inline, panels, percent_ticks, style
from wsol.reporting.table import Value, at, over

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELED = ("valcl_accuracy", "val_accuracy")
UNLABELED = ("_stability", "_consistency", "_agreement")
"""Endings of the validation metrics that need no label."""
COLUMNS = (
    Column("Chosen by", "What the choice of the epoch has seen", number=False),
    Column("Epoch", "The epoch it is, mean over runs; below it the first and the last"),
    Column("PxAP", "Mean over the maps of the model, then over runs (folds and seeds)"),
    Column("Regret", "Points of PxAP below the best kept checkpoint of the same run, map by map; mean over maps, then over runs"),
    Column("Best of the kept", "In how many runs x maps no other kept checkpoint is better"),
)
Run = tuple[int, int]


@dataclass(frozen=True)
class Score:
    """PxAP of one map of one checkpoint in one run, and what it lacks to the best checkpoint of that run."""

    model: str
    checkpoint: str
    method: str
    run: Run
    pxap: float
    regret: float


def section(part: Part) -> dict[str, Any] | None:
    """Curves of each model, the table of checkpoints, and that of their maps; None where there was nothing to choose."""
    found = scores(part)
    figures = [one for i, model in enumerate(_models(part)) if (one := _figure(part, model, f"{part.id}-selection-{i}"))]
    if not found and not figures:
        return None
    return {"figures": figures, "grid": _checkpoints(part, found), "maps": _maps(found), "words": _words(found)}


def scores(part: Part) -> list[Score]:
    """One for each run, map and checkpoint, where a run has kept more than one checkpoint that is scored.

    The regret of a checkpoint is the PxAP of the best one minus its own, same run, same map: the best one is chosen on these very
    masks (a test oracle) among the checkpoints that were kept, so it is a lower bound of what the best epoch of all would give.
    """
    pxap: dict[tuple[str, str, str, Run], dict[str, float]] = {}
    for row in part.trained:
        for one, result in row.parts:
            value = at(result, ("groups", "all", "pxap"))
            if value is not None and math.isfinite(value):
                run = (int(one["key"]["fold"]), int(one["key"]["seed"]))
                pxap.setdefault((row.model, row.set, row.method, run), {})[row.checkpoint] = float(value)
    return [
        Score(model, checkpoint, method, run, value, max(values.values()) - value)
        for (model, _, method, run), values in pxap.items()
        if len(values) > 1
        for checkpoint, value in values.items()
    ]


def _by_checkpoint(found: Sequence[Score]) -> dict[tuple[str, str], list[Score]]:
    groups: dict[tuple[str, str], list[Score]] = {}
    for one in found:
        groups.setdefault((one.model, one.checkpoint), []).append(one)
    return groups


def mean_over_runs(found: Sequence[Score], name: str) -> Value:
    """Mean over the maps of each run, then mean and deviation over the runs: maps of one run are not independent."""
    runs = sorted({one.run for one in found})
    means = [statistics.fmean(getattr(one, name) for one in found if one.run == run) for run in runs]
    return over([{"value": v} for v in means], "value")


def _checkpoints(part: Part, found: Sequence[Score]) -> Grid | None:
    groups = _by_checkpoint(found)
    if not groups:
        return None
    models = list(dict.fromkeys(model for model, _ in groups))
    order = sorted(groups, key=lambda k: (models.index(k[0]), mean_over_runs(groups[k], "regret").mean or 0.0, k[1]))
    lines = [Line(checkpoint, model, _cells(part, groups[model, checkpoint])) for model, checkpoint in order]
    runs = len({one.run for one in found})
    spread = f"± deviation over {runs} runs. " if runs > 1 else "One run: nothing is known about how it varies. "
    caption = (
        f"Percent, and points of PxAP. {spread}The best kept checkpoint is picked on the scored masks of split {part.split}, run "
        "by run: an oracle among those kept. An epoch that nothing kept may be better still: every regret is a lower bound."
    )
    return Grid(COLUMNS, lines, caption, first="Checkpoint")


def _cells(part: Part, some: Sequence[Score]) -> list[Cell]:
    model, checkpoint = some[0].model, some[0].checkpoint
    badges = [b for r in part.trained if (r.model, r.checkpoint) == (model, checkpoint) for b in r.badges.get("checkpoint", [])]
    regret, best = mean_over_runs(some, "regret"), sum(one.regret == 0 for one in some)
    return [
        Cell(" / ".join(dict.fromkeys(badges)) or "–"),
        _epochs(part, model, checkpoint),
        cell(mean_over_runs(some, "pxap")),
        Cell(percent(regret.mean), f"± {percent(regret.spread)}" if regret.spread is not None else "", repr(regret.mean)),
        Cell(f"{best} of {len(some)}", sort=repr(best / len(some))),
    ]


def _epochs(part: Part, model: str, checkpoint: str) -> Cell:
    kept = [h.get("kept", {}).get(checkpoint) for h in _histories(part, model)]
    epochs = [int(e) for e in kept if e is not None]
    if not epochs:
        return EMPTY
    mean = statistics.fmean(epochs)
    return Cell(f"{mean:.3g}", f"{min(epochs)}–{max(epochs)}" if min(epochs) < max(epochs) else "", repr(mean))


def _maps(found: Sequence[Score]) -> Grid | None:
    """Regret of every map: a line for each map of a model, a column for each checkpoint."""
    names = list(dict.fromkeys(one.checkpoint for one in found))
    maps = list(dict.fromkeys((one.method, one.model) for one in found))
    if len(maps) < 2:
        return None

    def one_cell(method: str, model: str, name: str) -> Cell:
        some = [s for s in found if (s.method, s.model, s.checkpoint) == (method, model, name)]
        if not some:
            return EMPTY
        lost = mean_over_runs(some, "regret").mean or 0.0
        return Cell(percent(mean_over_runs(some, "pxap").mean), f"lost {percent(lost)}", repr(lost))

    lines = [Line(method, model, [one_cell(method, model, name) for name in names]) for method, model in maps]
    caption = "PxAP in percent, mean over runs; small: points lost to the best kept checkpoint. Sorts by the loss."
    return Grid([Column(name) for name in names], lines, caption, title="Map by map")


def _words(found: Sequence[Score]) -> str:
    """Which rule cost least, over all models."""
    names = list(dict.fromkeys(one.checkpoint for one in found))
    if not names:
        return ""
    lost = {name: statistics.fmean(s.regret for s in found if s.checkpoint == name) for name in names}
    order = sorted(names, key=lambda n: lost[n])
    said = ", ".join(f"{name} {percent(lost[name])}" for name in order)
    return f"Points of PxAP lost to the best kept checkpoint, mean over all models, maps and runs: {said}."


def _models(part: Part) -> list[str]:
    return list(dict.fromkeys(r.model for r in part.trained))


def _histories(part: Part, model: str) -> list[Mapping[str, Any]]:
    return [h for h in part.histories if str(h["key"]["model"]) == model]


def _figure(part: Part, model: str, name: str) -> dict[str, Any] | None:
    """Classification and localization over the epochs; nothing where only one of the two was validated."""
    histories = _histories(part, model)
    columns = list(dict.fromkeys(c for h in histories for row in h["rows"] for c in row))
    labeled = [c for c in columns if c in LABELED][:1]
    masked = [c for c in columns if c.startswith("val") and c.endswith("pxap")]
    unlabeled = [c for c in columns if c.endswith(UNLABELED)]
    if not labeled or not (masked or unlabeled):
        return None
    shown = [("Classification: accuracy (%)", labeled), ("Localization: PxAP on masks (%)", masked)]
    shown += [("Localization: label-free scores", unlabeled)]
    shown = [(title, some) for title, some in shown if some]
    kept = list(dict.fromkeys(c for h in histories for c in h.get("kept", {})))
    with style():
        figure, axes = panels(len(shown), height=3.3)
        for ax, (title, some) in zip(axes, shown, strict=True):
            _curves(ax, some, histories, kept if some is not unlabeled else [], named=ax is axes[0])
            ax.set(xlabel="Epoch", title=title)
            if some is not unlabeled:
                percent_ticks(ax.yaxis)
        return {"name": model, "svg": inline(figure, name, f"Validation of {model} over the epochs, and the epochs kept")}


def _curves(ax: Axes, columns: Sequence[str], histories: Sequence[Mapping[str, Any]], kept: Sequence[str], named: bool) -> None:
    """One line for each metric and run; a mark where a checkpoint was kept, on the first metric; `named` explains the marks."""
    from matplotlib.ticker import MaxNLocator

    for i, column in enumerate(columns):
        for n, history in enumerate(histories):
            points = dict(_points(history, column))
            label = column.replace("_", " ") if n == 0 and not named else None
            fade = 0.9 if len(histories) == 1 else 0.5
            ax.plot(list(points), list(points.values()), color=SERIES[i % len(SERIES)], linewidth=1.5, alpha=fade, label=label)
            for k, name in enumerate(kept if i == 0 else ()):
                epoch = history.get("kept", {}).get(name)
                if epoch in points:
                    mark: dict[str, Any] = {"marker": MARKS[k % len(MARKS)], "markersize": 7, "markerfacecolor": "none"}
                    ax.plot(
                        [epoch], [points[epoch]], color=INK, linestyle="none", label=name if named and n == 0 else None, **mark
                    )
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if ax.get_legend_handles_labels()[0]:  # histories need not say which epochs were kept
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8.5, ncols=2)


def _points(history: Mapping[str, Any], column: str) -> Iterator[tuple[int, float]]:
    """(epoch, value) where the value is a number."""
    for row in history["rows"]:
        value = row.get(column)
        if value is not None and math.isfinite(value):
            yield int(row["epoch"]), float(value)
