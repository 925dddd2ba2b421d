"""The ink of the phantom slides: what is stamped where, as amounts of hematoxylin and eosin.

Two uint8 planes are painted, 0 (none) to 255 (most), at 0.5 um per px; color comes last, by Beer-Lambert's law. Sprites of nuclei
and glands are drawn once per slide and stamped in bulk; everything comes from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
Rng = np.random.Generator

MARGIN = 160
"""px painted around the slide, so that a stamp never has to be cut."""


@dataclass
class Planes:
    """What is painted on, each (size + 2 MARGIN) squared.

    Attributes:
        h: hematoxylin.
        e: eosin.
        taken: 1 where a gland or vessel stands, 0 in stroma.
    """

    h: Plane
    e: Plane
    taken: Plane


def noise(shape: tuple[int, int], wavelength: float, rng: Rng) -> Field:
    """Smooth noise, float32, mean 0 and deviation 1; `wavelength` in px of `shape`."""
    small = [max(3, int(np.ceil(n / wavelength * 2)) + 3) for n in shape]
    coarse = cv2.resize(rng.standard_normal(small, np.float32), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)[8:-8, 8:-8]
    field = np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def band(shape: tuple[int, int], sigma: float, rng: Rng) -> Field:
    """Noise of one scale only: a difference of Gaussians, mean 0 and deviation 1; its level sets look like cords and slits."""
    white = rng.standard_normal(shape, np.float32)
    field = np.asarray(cv2.GaussianBlur(white, (0, 0), sigma) - cv2.GaussianBlur(white, (0, 0), 2 * sigma), np.float32)
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def fibers(side: int, rng: Rng) -> Plane:
    """Wavy collagen: streaks about 3 um wide and 60 um long, bent by slow noise. uint8 around 128; drawn at half resolution."""
    half = side // 2
    streaks = rng.standard_normal((half // 3 + 4, half // 40 + 4), np.float32)
    straight = np.asarray(cv2.resize(streaks, (half, half), interpolation=cv2.INTER_CUBIC), np.float32)
    y, x = np.mgrid[:half, :half].astype(np.float32)
    bend = noise((half, half), 420, rng) * 70 + noise((half, half), 90, rng) * 9
    turn = noise((half, half), 500, rng) * 60
    wavy = cv2.remap(straight, x + turn, y + bend, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(
        cv2.resize(np.clip(wavy * 42 + 128, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC), np.uint8
    )


def nuclei(
    count: int,
    rng: Rng,
    *,
    length_um: tuple[float, float],
    aspect: tuple[float, float],
    rough: float,
    dark: tuple[int, int],
    pale: float,
) -> list[Plane]:
    """Sprites of nuclei, hematoxylin only.

    Args:
        count: how many.
        rng: where chance comes from.
        length_um: range of the long diameter.
        aspect: range of long over short diameter.
        rough: irregularity of the outline, 0 (ellipse) to about 0.3.
        dark: range of the amount of hematoxylin.
        pale: 0 for even chromatin, towards 1 for vesicular nuclei: a pale inside, a dark rim, a nucleolus.
    """
    sprites = []
    for _ in range(count):
        long = rng.uniform(*length_um)  # in um, and so the radius in px at 0.5 um per px
        short = long / rng.uniform(*aspect)
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        bumps = sum(rng.normal(0, rough / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5))
        turn = rng.uniform(0, np.pi)
        x, y = long * (1 + bumps) * np.cos(angle), short * (1 + bumps) * np.sin(angle)
        outline = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
        reach = int(np.abs(outline).max()) + 3
        shape = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
        cv2.fillPoly(shape, [np.round((outline + reach) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        solid = cv2.GaussianBlur(shape.astype(np.float32) / 255, (0, 0), 0.6)
        chromatin = 1 + 0.16 * noise(shape.shape, 5, rng)
        if pale:
            inner = cv2.GaussianBlur(solid, (0, 0), 0.28 * short)
            chromatin = chromatin * (1 - pale * np.clip(2 * inner - 1, 0, 1))
            at = np.round(reach + rng.uniform(-0.25, 0.25, 2) * short).astype(int)
            chromatin = np.maximum(
                chromatin, cv2.circle(np.zeros(shape.shape, np.float32), at.tolist(), 1 + int(short > 5), 1.15, -1)
            )
        sprites.append(np.clip(solid * chromatin * rng.uniform(*dark), 0, 255).astype(np.uint8))
    return sprites


def scatter(side: int, step: float, rng: Rng, shake: float = 0.42) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Points of a grid within the slide, each moved by up to `shake` steps: (x, y) in px of the planes."""
    count = int((side - 2 * MARGIN) / step) + 1
    y, x = (np.mgrid[:count, :count] * step + MARGIN).astype(np.float64)
    x[1::2] += step / 2
    last = side - MARGIN - 1
    away = rng.uniform(-shake, shake, (2, *x.shape)) * step
    return tuple(np.clip(a.ravel(), MARGIN, last).astype(np.int64) for a in (x + away[0], y + away[1]))


def stamp(plane: Plane, sprites: list[Plane], x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], rng: Rng) -> None:
    """Lays a random sprite at each point; where ink meets ink the darker stays."""
    pick = rng.integers(0, len(sprites), len(x))
    for column, row, k in zip(x.tolist(), y.tolist(), pick.tolist(), strict=True):
        sprite = sprites[k]
        height, width = sprite.shape
        top, left = row - height // 2, column - width // 2
        view = plane[top : top + height, left : left + width]
        np.maximum(view, sprite, out=view)


@dataclass
class Gland:
    """One crypt cut across: square sprites of hematoxylin and eosin, and where it is."""

    h: Plane
    e: Plane
    inside: npt.NDArray[np.bool_]


def gland(rng: Rng, dark: tuple[int, int]) -> Gland:
    """A crypt of 50 to 80 um: lumen, goblet cells with mucin, a row of long nuclei at the base, a thin membrane."""
    radius, aspect, turn = rng.uniform(52, 74), rng.uniform(1.0, 1.5), rng.uniform(0, np.pi)
    reach = int(radius * 1.18)
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    a, b = u * np.cos(turn) + v * np.sin(turn), (v * np.cos(turn) - u * np.sin(turn)) * aspect
    angle = np.arctan2(b, a)
    wobble = 1 + 0.04 * np.cos(2 * angle + rng.uniform(0, 6)) + 0.03 * np.cos(3 * angle + rng.uniform(0, 6))
    rho = np.hypot(a, b) / (radius * wobble)
    lumen = rng.uniform(0.14, 0.30)
    h, e = np.full(rho.shape, 30, np.float32), np.full(rho.shape, 92, np.float32)
    cells = rng.integers(15, 21)
    wall = np.abs(((angle / (2 * np.pi) * cells + rng.uniform(0, 1)) % 1) - 0.5) * 2  # 1 between two cells
    mucin = (rho > lumen + 0.06) & (rho < 0.70) & (wall < 0.78)
    h[mucin], e[mucin] = 26, 26 + 22 * wall[mucin]
    h[rho < lumen], e[rho < lumen] = 0, 4
    e[(rho >= lumen) & (rho < lumen + 0.05)] = 130
    h[rho > 0.96], e[rho > 0.96] = 12, 135
    h, e = cv2.GaussianBlur(h, (0, 0), 1.0), cv2.GaussianBlur(e, (0, 0), 1.0)
    ink = np.clip(h, 0, 255).astype(np.uint8)
    row = np.linspace(0, 2 * np.pi, int(2 * np.pi * radius * 0.84 / np.sqrt(aspect) / 10.5), endpoint=False) + rng.uniform(0, 1)
    for t in row + rng.normal(0, 0.02, len(row)):
        out = radius * rng.normal(0.83, 0.02)
        p, q = out * np.cos(t), out * np.sin(t) / aspect
        center = (reach + p * np.cos(turn) - q * np.sin(turn), reach + p * np.sin(turn) + q * np.cos(turn))
        outward = np.degrees(np.arctan2(center[1] - reach, center[0] - reach)) + rng.normal(0, 8)
        axes = (rng.uniform(7.5, 10), rng.uniform(3.6, 4.8))
        unit = np.asarray(cv2.ellipse2Poly((0, 0), (160, int(160 * axes[1] / axes[0])), int(outward), 0, 360, 24))
        points = unit * (axes[0] / 160) + center
        cv2.fillPoly(ink, [np.round(points * 16).astype(np.int32)], int(rng.integers(*dark)), cv2.LINE_AA, shift=4)
    return Gland(np.asarray(cv2.GaussianBlur(ink, (0, 0), 0.7), np.uint8), np.clip(e, 0, 255).astype(np.uint8), rho < 1)


def vessel(rng: Rng) -> Gland:
    """A small vessel: red cells in a clear lumen, a thin wall with flat nuclei."""
    radius = rng.uniform(18, 40)
    reach = int(radius * 1.3)
    shape = (2 * reach + 1, 2 * reach + 1)
    h, e, inside = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    axes, turn = (int(radius), int(radius * rng.uniform(0.5, 1))), int(rng.integers(0, 180))
    for plane, value in ((inside, 1), (e, 150), (h, 18)):
        cv2.ellipse(plane, (reach, reach), axes, turn, 0, 360, value, -1)
    cv2.ellipse(e, (reach, reach), (axes[0] - 7, axes[1] - 7), turn, 0, 360, 3, -1)
    cv2.ellipse(h, (reach, reach), (axes[0] - 7, axes[1] - 7), turn, 0, 360, 0, -1)
    for _ in range(int(rng.integers(4, 40))):
        at = reach + rng.normal(0, 0.35, 2) * (np.array(axes) - 8)
        cv2.circle(e, np.round(at).astype(int).tolist(), int(rng.integers(5, 7)), 210, -1, cv2.LINE_AA)
    for t in rng.uniform(0, 360, 7):
        cv2.ellipse(h, (reach, reach), (axes[0] - 3, axes[1] - 3), turn, t, t + 22, 175, 4, cv2.LINE_AA)
    return Gland(
        np.asarray(cv2.GaussianBlur(h, (0, 0), 0.7), np.uint8), np.asarray(cv2.GaussianBlur(e, (0, 0), 0.8), np.uint8), inside > 0
    )


def place(planes: Planes, glands: list[Gland], x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], rng: Rng) -> None:
    """Puts a random gland, turned by quarters and mirrored, at each point."""
    for column, row, k, way in zip(x, y, rng.integers(0, len(glands), len(x)), rng.integers(0, 8, len(x)), strict=True):
        one = glands[k]
        h, e, inside = (np.rot90(a.T if way & 4 else a, way & 3) for a in (one.h, one.e, one.inside))
        top, left = row - h.shape[0] // 2, column - h.shape[1] // 2
        where = slice(top, top + h.shape[0]), slice(left, left + h.shape[1])
        np.copyto(planes.h[where], h, where=inside)
        np.copyto(planes.e[where], e, where=inside)
        planes.taken[where] |= inside
