"""One phantom slide: the layout of its tissue and the ink in each region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from wsol._names import closest
from wsol.data.sources import phantom_ink as ink
from wsol.data.sources import phantom_scan as scan
from wsol.data.sources.phantom_ink import MARGIN, Field, Plane, Planes, Rng

MPP = 0.5
"""um per px of level 0."""
CELL = 8
"""The layout is planned on cells of so many px."""
Difficulty = Literal["easy", "hard"]


@dataclass(frozen=True)
class Look:
    """How a difficulty looks. Ranges are amounts of hematoxylin (0 to 255), shares are of the tissue.

    Attributes:
        tumor: of tumor nuclei.
        pale: how vesicular tumor nuclei are.
        cytoplasm: of tumor cells' bodies.
        step: px between tumor nuclei.
        crypt: of normal crypts' nuclei.
        reactive: of the nuclei of reactive, darker crypts.
        lymphoid: share of dense lymphoid tissue.
        mucosa: share of normal tissue that holds crypts.
    """

    tumor: tuple[int, int]
    pale: float
    cytoplasm: int
    step: float
    crypt: tuple[int, int]
    reactive: tuple[int, int]
    lymphoid: float
    mucosa: float


LOOKS: dict[str, Look] = {
    "easy": Look((140, 185), 0.35, 44, 14.5, (155, 195), (165, 210), 0.10, 0.75),
    "hard": Look((116, 156), 0.50, 26, 15.5, (165, 205), (190, 240), 0.16, 0.85),
}


@dataclass
class Layout:
    """Where what is, at full size with margin (masks 0/1) and in cells."""

    tissue: Plane
    tumor: Plane
    lymphoid: npt.NDArray[np.bool_]
    mucosa: npt.NDArray[np.bool_]
    reactive: npt.NDArray[np.bool_]


def draw_phantom(
    size: int,
    seed: int,
    *,
    positive: bool,
    difficulty: Difficulty = "easy",
    prevalence: float = 0.2,
    patient_seed: int = 0,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], dict[str, Any]]:
    """Draws one square slide at 0.5 um per px; the same arguments give the same bits.

    Args:
        size: side in px, at least 256.
        seed: of this slide.
        positive: with a tumor.
        difficulty: "easy": the tumor is darker too; "hard": only its architecture and the shape of its nuclei tell.
        prevalence: share of the whole slide that is tumor, if positive; a slide departs from it by up to 30 %.
        patient_seed: slides of one patient share stain and scanner.

    Returns:
        rgb uint8 (size, size, 3); mask bool (size, size), True in the tumor region with its lumens and septa; and facts (JSON).
    """
    if difficulty not in LOOKS:
        raise ValueError(closest("difficulty", difficulty, LOOKS))
    if size < 256 or not 0 < prevalence <= 0.5:
        raise ValueError(f"size must be at least 256 px and prevalence in (0, 0.5]; got size={size}, prevalence={prevalence}")
    look, rng = LOOKS[difficulty], np.random.default_rng([seed, 1])
    stain = scan.draw_stain(np.random.default_rng([patient_seed, 2]), np.random.default_rng([seed, 3]))
    share = prevalence * rng.uniform(0.7, 1.3) if positive else 0.0
    layout = plan(size, share, look, rng)
    planes = paint(layout, look, rng)
    accidents = _fold(planes, layout, rng)
    inner = slice(MARGIN, MARGIN + size)
    rgb = scan.expose(planes.h[inner, inner], planes.e[inner, inner], stain, rng)
    accidents |= scan.pen(rgb, rng)
    mask = layout.tumor[inner, inner] > 0
    tissue = float(layout.tissue[inner, inner].mean())
    return rgb, mask, {"prevalence": float(mask.mean()), "tissue": tissue, "difficulty": difficulty, **accidents}


def plan(size: int, share: float, look: Look, rng: Rng) -> Layout:
    """Outline of the tissue (62 to 76 % of the slide), tumor, lymphoid tissue, mucosa."""
    side = -(-(size + 2 * MARGIN) // CELL)
    y, x = (np.mgrid[:side, :side].astype(np.float32) * CELL - MARGIN) / size - 0.5
    inside = (np.abs(x) < 0.5) & (np.abs(y) < 0.5)
    square = (np.abs(x) ** 3.5 + np.abs(y) ** 3.5) ** (1 / 3.5)
    outline = -9 * square + 0.45 * ink.noise((side, side), side * 0.45, rng) + 0.16 * ink.noise((side, side), side * 0.1, rng)
    outline += 0.03 * ink.noise((side, side), 9, rng)
    tissue_at = float(np.quantile(outline[inside], 1 - rng.uniform(0.62, 0.76)))
    tissue = outline > tissue_at
    full = size + 2 * MARGIN

    tumor_full = np.zeros((full, full), np.uint8)
    if share:
        center = rng.uniform(-0.22, 0.22, 2)
        field = -6 * np.hypot(x - center[0], y - center[1]) + 0.55 * ink.noise((side, side), side * 0.3, rng)
        field += 0.16 * ink.noise((side, side), side * 0.07, rng)
        field = np.minimum(field, 3 * (outline - tissue_at) + float(np.quantile(field, 0.9)))  # not beyond the tissue
        at = float(np.quantile(field[inside], 1 - share))
        tumor_full = _above(field, at, full)
    tissue_full = _above(outline, tissue_at, full)
    tumor_full &= tissue_full
    tumor = cv2.resize(tumor_full, (side, side), interpolation=cv2.INTER_AREA) > 0
    normal = tissue & ~tumor & inside

    def top(field: Field, part: float, where: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return where & (field > np.quantile(field[where], 1 - part)) if where.any() else where

    lymphoid = top(ink.noise((side, side), 75, rng), look.lymphoid, normal)
    mucosa = top(ink.noise((side, side), 150, rng), look.mucosa, normal) & ~lymphoid
    reactive = top(ink.noise((side, side), 90, rng), 0.4, normal)
    return Layout(tissue_full, tumor_full, lymphoid, mucosa, reactive)


def _above(field: Field, level: float, full: int) -> Plane:
    smooth = cv2.resize(field, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_LINEAR)[:full, :full]
    return np.asarray(cv2.threshold(smooth, level, 1, cv2.THRESH_BINARY)[1], np.float32).astype(np.uint8)


def paint(layout: Layout, look: Look, rng: Rng) -> Planes:
    """All the ink, region by region: stroma, crypts, tumor, then the loose nuclei between them."""
    side = layout.tissue.shape[0]
    weave = ink.fibers(side, rng)
    collagen = np.interp(np.arange(256), [0, 55, 95, 255], [6, 52, 92, 128]).astype(np.uint8)  # slits, pale and dense bundles
    planes = Planes(
        np.full((side, side), 10, np.uint8), np.asarray(cv2.LUT(weave, collagen), np.uint8), np.zeros((side, side), np.uint8)
    )
    _paint_glands(planes, layout, look, rng)
    cords = _paint_tumor(planes, layout, look, rng)
    _paint_loose_nuclei(planes, layout, cords, look, rng)
    cv2.addWeighted(planes.e, 1.0, planes.h, -0.30, 8, dst=planes.e)  # nuclei hold little eosin
    grain = np.asarray(cv2.GaussianBlur(rng.standard_normal((512, 512), np.float32), (0, 0), 1.2) * 26, np.float32)
    tiles = -(-side // 512)
    whole = np.tile(np.clip(grain, -60, 60).astype(np.int8), (tiles, tiles))[:side, :side]
    cv2.add(planes.e, whole, dst=planes.e, dtype=cv2.CV_8U)
    thick = cv2.resize(1 + 0.07 * ink.noise((64, 64), 40, rng), (side, side), interpolation=cv2.INTER_LINEAR)
    edge = cv2.blur(layout.tissue * np.uint8(255), (5, 5))
    for plane in planes.h, planes.e:
        cv2.multiply(plane, edge, dst=plane, scale=1 / 255)
        cv2.multiply(plane, thick, dst=plane, dtype=cv2.CV_8U)
    return planes


def _at(cells: npt.NDArray[np.bool_], x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.asarray(cells[y // CELL, x // CELL])


def _paint_glands(planes: Planes, layout: Layout, look: Look, rng: Rng) -> None:
    side = planes.h.shape[0]
    x, y = ink.scatter(side, 148, rng, shake=0.13)
    bend = np.round(ink.noise((-(-side // CELL),) * 2, 90, rng) * 38).astype(np.int64)[y // CELL, x // CELL]  # rows wander
    x, y = (np.clip(a, MARGIN, side - MARGIN - 1) for a in (x - bend, y + bend))
    free = _at(layout.mucosa, x, y)
    for dx, dy in ((-72, 0), (72, 0), (0, -72), (0, 72)):  # clear of the tumor and of the edge
        free &= (layout.tumor[y + dy, x + dx] == 0) & (layout.tissue[y + dy, x + dx] > 0)
    dark = _at(layout.reactive, x, y)
    for glands, here in (
        ([ink.gland(rng, look.crypt) for _ in range(14)], free & ~dark),
        ([ink.gland(rng, look.reactive) for _ in range(8)], free & dark),
    ):
        ink.place(planes, glands, x[here], y[here], rng)
    x, y = ink.scatter(side, 330, rng)
    free = (layout.tissue[y, x] > 0) & (planes.taken[y - 40, x] + planes.taken[y + 40, x] + planes.taken[y, x] == 0)
    free &= rng.random(len(x)) < 0.5
    ink.place(planes, [ink.vessel(rng) for _ in range(8)], x[free], y[free], rng)


def _paint_tumor(planes: Planes, layout: Layout, look: Look, rng: Rng) -> Plane:
    """Cords of tumor cells back to back, slit-like lumens in them, thin septa between. Returns where cells are (0/1)."""
    side = planes.h.shape[0]
    quarter = -(-side // 4)
    cords = np.clip(ink.band((quarter, quarter), 6.5, rng) * 40 + 128, 0, 255).astype(np.uint8)
    cords = np.asarray(cv2.resize(cords, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    rim = cv2.blur(layout.tumor * np.uint8(255), (61, 61))
    cords = np.minimum(
        cords, cv2.LUT(rim, np.interp(np.arange(256), [0, 170, 250], [165, 165, 255]).astype(np.uint8))
    )  # lumens end before
    body = layout.tumor & (cords > 128 - 46)
    e = np.interp(np.arange(256), [0, 175, 186, 255], [84, 84, 6, 3]).astype(np.uint8)
    h = np.interp(np.arange(256), [0, 175, 186, 255], [look.cytoplasm, look.cytoplasm, 2, 0]).astype(np.uint8)
    cv2.copyTo(cv2.LUT(cords, e), body, planes.e)
    cv2.copyTo(cv2.LUT(cords, h), body, planes.h)
    cells = body & (cords < 178)
    if not cells.any():
        return cells
    x, y = ink.scatter(side, look.step, rng)
    here = cells[y, x] > 0
    large = {"length_um": (4.6, 8.6), "aspect": (1.0, 1.9), "rough": 0.13}
    sprites = ink.nuclei(90, rng, dark=look.tumor, pale=look.pale, **large)  # type: ignore[arg-type]
    sprites += ink.nuclei(14, rng, dark=(look.tumor[1], look.tumor[1] + 35), pale=0.0, **large)  # type: ignore[arg-type]
    ink.stamp(planes.h, sprites, x[here], y[here], rng)
    return body


def _paint_loose_nuclei(planes: Planes, layout: Layout, cords: Plane, look: Look, rng: Rng) -> None:
    side = planes.h.shape[0]
    spindle = ink.nuclei(48, rng, length_um=(5.5, 9.0), aspect=(2.8, 5.0), rough=0.05, dark=(140, 195), pale=0.1)
    round_ = ink.nuclei(48, rng, length_um=(2.8, 3.7), aspect=(1.0, 1.25), rough=0.04, dark=(185, 240), pale=0.1)
    stroma = (planes.taken == 0) & (cords == 0) & (layout.tissue > 0)
    for step, sprites, chance, where in (
        (27, spindle, 0.8, None),
        (23, round_, 0.45, layout.mucosa),
        (46, round_, 0.30, None),
        (9.5, round_, 0.95, layout.lymphoid),
    ):
        x, y = ink.scatter(side, step, rng)
        here = stroma[y, x] & (rng.random(len(x)) < chance)
        if where is not None:
            here &= _at(where, x, y)
        ink.stamp(planes.h, sprites, x[here], y[here], rng)


def _fold(planes: Planes, layout: Layout, rng: Rng) -> dict[str, bool]:
    """One slide in five has a fold: a band where the tissue lies on itself."""
    if rng.random() >= 0.2:
        return {"fold": False}
    side = planes.h.shape[0]
    start, end = rng.uniform(0.15, 0.85, 2) * side, rng.uniform(0.15, 0.85, 2) * side
    t = np.linspace(0, 1, 30)[:, None]
    bow = np.sin(np.pi * t) * rng.uniform(-0.12, 0.12) * side
    line = start + (end - start) * t + bow * np.array([[1.0, -1.0]])
    band = np.zeros((side, side), np.uint8)
    cv2.polylines(band, [np.round(line).astype(np.int32)], False, 255, int(rng.integers(30, 60)), cv2.LINE_AA)
    band = np.asarray(cv2.blur(band, (9, 9)) * layout.tissue, np.uint8)
    for plane in planes.h, planes.e:
        again = cv2.multiply(np.roll(plane, (37, 23), axis=(0, 1)), band, scale=0.8 / 255)
        cv2.add(plane, again, dst=plane)
    return {"fold": True}
