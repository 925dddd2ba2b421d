"""The leaderboard of a split: one line for each map, floors at its end; what does not fit beside it stands in a second table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wsol.reporting.badges import chips, common, shared_chips
from wsol.reporting.cells import Cell, Column, Grid, Span, cell, ends, line, span, whisker
from wsol.reporting.export import percent
from wsol.reporting.part import Part
from wsol.reporting.table import Row
from wsol.reporting.verdict import standing

STANDING = {"loses": "below stain map", "unclear": "not clearly above stain map", "beats": "", "": ""}
COLUMNS = {
    "ap": ("AP", "Average precision over all scores, without binning"),
    "dice": ("Dice", "Dice of all pixels at the chosen threshold, with its interval"),
    "threshold": ("Threshold", "The chosen threshold in percent of the score range; the badges say where it comes from"),
    "plateau": (
        "Plateau",
        "Share of all thresholds whose Dice is within 95 % of the best: wide means the threshold hardly matters",
    ),
    "oracle_dice": ("Oracle Dice", "Dice at the best threshold on the scored masks themselves: a bound, not a result"),
    "flagged_area": (
        "Flagged on negatives",
        "Share of the area marked, at the chosen threshold, on samples without any foreground",
    ),
    "accuracy": ("Accuracy", "Share of samples or slides classified right by the model"),
    "seconds": ("s / sample", "Median seconds to draw the map of one sample"),
}
MORE = {
    "auc": (
        "AUC",
        "Area under the ROC curve of all pixels: how often a pixel of the foreground scores above one of the background",
    ),
    "normalized_ap": (
        "Normalized AP",
        "(AP − prevalence) / (1 − prevalence): 0 is what a random map gets, whatever the prevalence",
    ),
    "iou": ("IoU", "Intersection over union of all pixels at the chosen threshold"),
    "precision": ("Precision", "Share of the flagged pixels that are foreground"),
    "recall": ("Recall", "Share of the foreground that is flagged"),
    "dice_background": ("Dice background", "Dice of the background, which a map that flags everything has none of"),
    "specificity": ("Specificity", "Share of the background that is left alone"),
    "image_pxap": (
        "PxAP by image",
        "Mean over images, each counting once whatever its size; images without foreground are left out",
    ),
    "image_dice": ("Dice by image", "Mean Dice over images at the chosen threshold"),
    "slide_pxap": ("PxAP by slide", "Mean over slides, their images pooled"),
    "slide_dice": ("Dice by slide", "Mean Dice over slides, their images pooled"),
    "patient_pxap": ("PxAP by patient", "Mean over patients, their images pooled"),
    "patient_dice": ("Dice by patient", "Mean Dice over patients, their images pooled"),
}


def section(part: Part) -> dict[str, Any]:
    """The lines of both tables, and the words above and below them."""
    table, shared = part.table, common(part.table)
    classes = [
        c for c in dict.fromkeys(c for r in table for c in r.classes) if any(r.value(f"pxap:{c}").mean is not None for r in table)
    ]
    names = [n for n in COLUMNS if any(r.value(n).mean is not None for r in table)]
    shown = span([r.value("pxap") for r in table])
    stain = part.stain
    floors = [r for r in table if r.floor]
    return {
        "classes": classes,
        "columns": [Column(*COLUMNS[n]) for n in names],
        "rows": [_line(r, classes, names, shared, stain, shown) for r in part.trained],
        "floors": [_line(r, classes, names, shared, stain, shown) for r in floors],
        "shared": shared_chips(shared),
        "beside": "± standard deviation over runs" if max(r.runs for r in table) > 1 else "95 % interval, resampled by patient",
        "stain": {"name": stain.method, "percent": percent(stain.value("pxap").mean)} if stain else None,
        "span": f"{100 * shown[0]:.0f} to {100 * shown[1]:.0f}",
        "more": more(table),
    }


def more(table: Sequence[Row]) -> Grid | None:
    """Numbers that few readers ask for, for all rows; None where no file has any beyond those of the leaderboard."""
    if not any(r.value(n).mean is not None for r in table for n in MORE if n not in ("iou", "precision", "recall")):
        return None
    names = [n for n in MORE if any(r.value(n).mean is not None for r in table)]
    return Grid(
        [Column(*MORE[n]) for n in names],
        [line(r, [cell(r.value(n)) for n in names]) for r in table],
        "Percent; pooled over all pixels unless the column says what counts once. ± deviation over runs where there are several.",
        title="More numbers",
    )


def people(samples: int, patients: int) -> str:
    """Sizes in words, as in ``12 samples, 1 patient``; patients only where they are known."""
    words = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((samples, "sample"), (patients, "patient"))]
    return ", ".join(words if patients else words[:1])


def _line(
    row: Row, classes: Sequence[str], names: Sequence[str], shared: Mapping[str, str], stain: Row | None, shown: Span
) -> dict[str, Any]:
    """One row of the leaderboard as words for the template."""
    where, pxap = standing(row, stain), row.value("pxap")
    limit = stain.value("pxap").mean if stain else None
    return {
        "method": row.method, "model": row.model, "checkpoint": row.checkpoint, "runs": row.runs,
        "pxap": cell(pxap, whisker=None if pxap.mean is None else whisker(pxap.mean, *ends(pxap), shown, limit)),
        "classes": [_class_cell(row, c) for c in classes],
        "cells": [cell(row.value(n), "seconds" if n == "seconds" else "percent") for n in names],
        "chips": chips(row, shared), "standing": where, "mark": STANDING[where],
        "people": people(row.samples, row.patients),
    }  # fmt: skip


def _class_cell(row: Row, group: str) -> Cell:
    score, chance = row.value(f"pxap:{group}"), row.value(f"prevalence:{group}").mean
    under = score.mean is not None and chance is not None and score.mean < chance and row.method not in ("random", "all-ones")
    return replace(cell(score), under=f"below the prevalence, {percent(chance)}" if under else "")
