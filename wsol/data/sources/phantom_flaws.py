"""A phantom slide with everything that makes tissue hard to find and tiles hard to trust, and the truth about each.

Drawn like the slides of the source `phantom` (0.5 um per px), then: pale fat and pale mucin, which are tissue; a fold and a patch
out of focus, which are tissue to be wary of; marker strokes, the edge of the coverslip and a black border, which are not tissue.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsol._names import closest
from wsol.data.sources import phantom_ink as ink
from wsol.data.sources import phantom_scan as scan
from wsol.data.sources.phantom_draw import LOOKS, Layout, paint, plan
from wsol.data.sources.phantom_ink import MARGIN, Plane, Planes, Rng

FLAWS = ("fat", "mucin", "fold", "blur", "pen", "coverslip", "border")
INKS = {"blue": (60, 80, 190), "green": (50, 140, 80), "black": (50, 50, 55), "red": (200, 40, 60)}
"""RGB of the markers, as they look on white glass."""

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def draw_flawed(
    size: int, seed: int, *, flaws: Collection[str] = FLAWS, pens: Collection[str] = tuple(INKS), patient_seed: int = 0
) -> tuple[RGB, dict[str, Mask]]:
    """Draws one square slide at 0.5 um per px with the chosen flaws; the same arguments give the same bits.

    Args:
        size: side in px, at least 512.
        seed: of this slide.
        flaws: of `FLAWS`.
        pens: of `INKS`, a stroke each.
        patient_seed: slides of one patient share stain and scanner.

    Returns:
        rgb (size, size, 3); and masks, bool (size, size): one per flaw drawn, and "tissue": fat and mucin included, without what
        lies under marker and border. The edge of the coverslip counts where it lies on glass, a fold where it is not in fat.
    """
    for name in flaws:
        if name not in FLAWS:
            raise ValueError(closest("flaw", name, FLAWS))
    for name in pens:
        if name not in INKS:
            raise ValueError(closest("pen", name, INKS))
    if size < 512:
        raise ValueError(f"a flawed phantom needs at least 512 px, else the flaws cover it; got size={size}")
    look, rng = LOOKS["easy"], np.random.default_rng([seed, 11])
    stain = scan.draw_stain(np.random.default_rng([patient_seed, 2]), np.random.default_rng([seed, 3]))
    layout = plan(size, 0.0, look, rng)
    planes = paint(layout, look, rng)
    inner = np.s_[MARGIN : MARGIN + size, MARGIN : MARGIN + size]
    found = {"tissue": layout.tissue > 0}
    for name, draw in (("fat", _fat), ("mucin", _mucin), ("fold", _fold)):  # ink, before the light
        if name in flaws:
            found[name] = draw(planes, layout, rng)
    found["tissue"] = layout.tissue > 0
    rgb = scan.expose(planes.h[inner], planes.e[inner], stain, rng)
    found = {name: np.ascontiguousarray(mask[inner]) for name, mask in found.items()}
    for name, over in (("blur", _blur), ("coverslip", _coverslip), ("pen", _pens(pens)), ("border", _border)):
        if name in flaws:
            found[name] = over(rgb, rng)
    for name in {"pen", "border"} & set(found):
        found["tissue"] &= ~found[name]
    if "coverslip" in found:
        found["coverslip"] &= ~found["tissue"]  # through its edge one still sees
    if {"fat", "fold"} <= set(found):
        found["fold"] &= ~found["fat"]  # two layers of nothing
    for name in {"fat", "mucin", "fold", "blur"} & set(found):
        found[name] &= found["tissue"]
    return rgb, found


def _blob(side: int, share: float, rng: Rng, near: npt.NDArray[np.float32] | None = None) -> Mask:
    """A roundish region of `share` of the plane, drawn to where `near` is high."""
    cells = -(-side // 8)
    y, x = np.mgrid[:cells, :cells].astype(np.float32) / cells - 0.5
    cx, cy = rng.uniform(-0.25, 0.25, 2)
    field = -6 * np.hypot(x - cx, y - cy) + 0.5 * ink.noise((cells, cells), cells * 0.3, rng)
    if near is not None:
        field += near
    mask = (field > np.quantile(field, 1 - share)).astype(np.uint8)
    return np.asarray(cv2.resize(mask, (8 * cells, 8 * cells), interpolation=cv2.INTER_NEAREST)[:side, :side] > 0)


def _fat(planes: Planes, layout: Layout, rng: Rng) -> Mask:
    """Fat cells of 40 to 90 um, washed out by the solvents: nothing but thin walls, here and there a flat nucleus."""
    side = planes.h.shape[0]
    where = _at_the_rim(layout, 0.12, rng)
    x, y = ink.scatter(side, rng.uniform(110, 160), rng)
    seeds = np.full((side, side), 255, np.uint8)
    seeds[y, x] = 0
    _, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    wall = np.zeros((side, side), np.uint8)
    wall[:, 1:] |= cell[:, 1:] != cell[:, :-1]
    wall[1:] |= cell[1:] != cell[:-1]
    wall = np.asarray(cv2.GaussianBlur(cv2.dilate(wall * np.uint8(255), np.ones((4, 4), np.uint8)), (0, 0), 1.0), np.uint8)
    planes.e[where] = np.maximum(wall * 0.36, 2)[where]
    planes.h[where] = (wall * 0.05)[where]
    pick = rng.random(len(x)) < 0.3
    flat = ink.nuclei(12, rng, length_um=(4.0, 6.0), aspect=(3.0, 5.0), rough=0.04, dark=(120, 170), pale=0.0)
    at = where[y, x] & pick & (wall[y, np.clip(x + 55, 0, side - 1)] > 60)
    ink.stamp(planes.h, flat, np.clip(x[at] + 55, MARGIN, side - MARGIN - 1), y[at], rng)
    layout.tissue[where] = 1
    return where


def _mucin(planes: Planes, layout: Layout, rng: Rng) -> Mask:
    """A lake of mucin: a pale gray blue wash with faint streaks and hardly a cell."""
    side = planes.h.shape[0]
    where = _at_the_rim(layout, 0.07, rng)
    streaks = ink.fibers(side, rng).astype(np.float32) / 255
    planes.h[where] = (11 + 8 * streaks)[where]
    planes.e[where] = (5 + 9 * streaks)[where]
    layout.tissue[where] = 1
    return where


def _at_the_rim(layout: Layout, share: float, rng: Rng) -> Mask:
    """A region half in the tissue and half in the glass beside it."""
    small = cv2.resize(layout.tissue, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    side = layout.tissue.shape[0]
    cells = -(-side // 8)
    soft = cv2.GaussianBlur(cv2.resize(small, (cells, cells)).astype(np.float32), (0, 0), cells / 20)
    return _blob(side, share, rng, near=-3 * np.abs(soft - 0.5))


def _fold(planes: Planes, layout: Layout, rng: Rng) -> Mask:
    """Two bands of 30 to 70 um where the tissue lies on itself."""
    side = planes.h.shape[0]
    band = np.zeros((side, side), np.uint8)
    for _ in range(2):
        turn, middle = rng.uniform(0, np.pi), rng.uniform(0.35, 0.65, 2) * side
        t = np.linspace(-1, 1, 30)[:, None]
        way = np.array([[np.cos(turn), np.sin(turn)]])
        line = middle + t * way * 0.22 * side + (1 - t**2) * way[:, ::-1] * [[1, -1]] * rng.uniform(-0.06, 0.06) * side
        cv2.polylines(band, [np.round(line).astype(np.int32)], False, 255, int(rng.integers(60, 140)), cv2.LINE_AA)
    band = np.asarray(cv2.blur(band, (9, 9)) * layout.tissue, np.uint8)
    for plane in planes.h, planes.e:
        again = cv2.multiply(np.roll(plane, (67, 43), axis=(0, 1)), band, scale=0.95 / 255)
        cv2.add(plane, again, dst=plane)
    return np.asarray(band > 127)


def _blur(rgb: RGB, rng: Rng) -> Mask:
    """A patch out of focus: a Gaussian of 3 um."""
    where = _blob(rgb.shape[0], 0.2, rng)
    soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 12)[..., None]
    rgb[...] = rgb * (1 - soft) + cv2.GaussianBlur(rgb, (0, 0), 6) * soft
    return where


def _coverslip(rgb: RGB, rng: Rng) -> Mask:
    """A slanted edge of glass: a gray line with a bright one beside it, a touch of color; beyond it all is a little darker."""
    size = rgb.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    slant, at, width = rng.uniform(-0.05, 0.05), rng.uniform(0.07, 0.11) * size, rng.uniform(24, 50)
    away = x - at - slant * y  # < 0: beyond the coverslip
    if rng.random() < 0.5:
        away = np.ascontiguousarray(away.T)
    dark = np.exp(-((away / width) ** 2) * 2)
    light = 1 - dark[..., None] * np.array([0.30, 0.32, 0.34], np.float32)
    light *= np.where(away < 0, 1.0, 0.0)[..., None] * np.array([-0.02, -0.025, -0.045], np.float32) + 1
    bright = np.exp(-(((away - 1.6 * width) / (0.5 * width)) ** 2))[..., None]
    rgb[...] = np.clip(rgb * light + 8 * bright, 0, 255)
    return np.asarray(dark > 0.3)


def _pens(names: Collection[str]) -> Any:
    def pens(rgb: RGB, rng: Rng) -> Mask:
        """Strokes of markers on the glass, around the tissue and over it, denser where the felt went twice."""
        size = rgb.shape[0]
        whole = np.zeros((size, size), bool)
        for name in names:
            stroke = np.zeros((size, size), np.uint8)
            center, reach = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.08, 0.22) * size
            t = np.linspace(0, rng.uniform(0.7, 1.4) * np.pi, 40) + rng.uniform(0, 6)
            line = center + reach * np.stack([np.cos(t), np.sin(t)], 1) + np.cumsum(rng.normal(0, 2, (40, 2)), 0)
            width = int(size * rng.uniform(0.025, 0.045))
            cv2.polylines(stroke, [np.round(line).astype(np.int32)], False, 255, width, cv2.LINE_AA)
            dense = 0.85 + 0.13 * np.clip(ink.noise((size // 8, size // 8), 20, rng), -1.1, 1.1)
            alpha = cv2.resize(dense, (size, size)) * cv2.blur(stroke, (11, 11)) / 255
            rgb[...] = rgb * (1 - alpha[..., None] * (1 - np.array(INKS[name], np.float32) / 255))
            whole |= stroke > 127
        return whole

    return pens


def _border(rgb: RGB, rng: Rng) -> Mask:
    """What the scanner did not scan, at two sides: black."""
    size = rgb.shape[0]
    deep, wide = (int(v) for v in rng.uniform(0.02, 0.05, 2) * size)
    where = np.zeros((size, size), bool)
    where[-deep:] = True
    where[:, -wide:] = True
    rgb[where] = rng.integers(0, 5, (int(where.sum()), 3))
    return where


def small(mask: Mask | Plane, step: int) -> Mask:
    """A mask at `step` times coarser px: True where at least half of a px is."""
    side = mask.shape[1] // step, mask.shape[0] // step
    return np.asarray(cv2.resize(mask.astype(np.float32), side, interpolation=cv2.INTER_AREA) >= 0.5)
