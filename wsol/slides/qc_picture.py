"""One picture per slide to check tissue and tiles by: what was taken for tissue, which tiles were kept, which were flagged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from wsol.slides.qc import FLAGS, Overview
from wsol.slides.tiles import write_png

COLORS = {"tissue": (0, 170, 60), "tile": (40, 40, 90), "blur": (0, 130, 220), "pen": (230, 60, 60), "fold": (220, 150, 0)}
"""RGB of outline, tiles and flags."""
LONGEST = 4096
SHORTEST = 640
"""px: a small slide is drawn larger, so that its tiles can be told apart."""


def quality_png(seen: Overview, table: pd.DataFrame, path: str | Path, *, level0_mpp: float) -> None:
    """Draws the whole slide, the outline of its tissue, the kept tiles, the flagged ones in color, and a legend with counts.

    A tile with several flags has a frame in each color, one inside the other.

    Args:
        seen: the slide's overview.
        table: its tiles; columns as `tile_table` makes them.
        path: of the PNG.
        level0_mpp: um per px of the slide.
    """
    height, width = seen.tissue.shape
    zoom = min(max(SHORTEST / max(height, width), 1.0), 8.0)
    zoom = min(zoom, LONGEST / max(height, width))
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    way = cv2.INTER_LINEAR if zoom >= 1 else cv2.INTER_AREA
    canvas = np.ascontiguousarray(cv2.resize(seen.rgb, size, interpolation=way), np.uint8)
    scale = level0_mpp / seen.mpp * zoom
    boxes = [
        tuple(math.floor(v * scale) for v in (x, y, x + w, y + h))
        for x, y, w, h in table[["x", "y", "width", "height"]].to_numpy()
    ]
    for left, top, right, bottom in boxes:
        cv2.rectangle(canvas, (left, top), (right, bottom), COLORS["tile"], 1)
    mask = cv2.resize(seen.tissue.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outline, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outline, -1, COLORS["tissue"], 2)
    for box, flags in zip(boxes, table["flags"], strict=True):
        for place, flag in enumerate(filter(None, flags.split(", "))):
            _frame(canvas, box, COLORS[flag], 1 + 3 * place)
    said = {"tissue": f"tissue {seen.tissue.mean():.0%} of the slide", "tile": f"{len(table)} tiles"}
    words = {"blur": "blur", "pen": "pen or border", "fold": "fold"}
    said |= {flag: f"{words[flag]}: {sum(flag in f.split(', ') for f in table['flags'])} tiles" for flag in FLAGS}
    write_png(path, np.concatenate([canvas, _legend(said, size[0])]))


def _frame(canvas: npt.NDArray[np.uint8], box: tuple[int, ...], color: tuple[int, int, int], inset: int) -> None:
    """A frame of 2 px within a tile and a tint over it."""
    left, top, right, bottom = box
    inside = canvas[top + inset : bottom - inset, left + inset : right - inset]
    inside[...] = np.round(0.85 * inside + 0.15 * np.array(color))
    cv2.rectangle(canvas, (left + inset, top + inset), (right - inset, bottom - inset), color, 2)


def _legend(said: Mapping[str, str], width: int) -> npt.NDArray[np.uint8]:
    """Squares of color with words, as many beside each other as fit."""
    cell, line = 230, 26
    columns = max(1, width // cell)
    legend = np.full((line * -(-len(said) // columns) + 8, width, 3), 255, np.uint8)
    for i, (name, words) in enumerate(said.items()):
        x, y = 8 + cell * (i % columns), 8 + line * (i // columns)
        cv2.rectangle(legend, (x, y), (x + 14, y + 14), COLORS[name], -1)
        cv2.putText(legend, words, (x + 20, y + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return legend
