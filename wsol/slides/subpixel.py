"""Pixels between pixels, to the bit as OpenSlide has them.

On coarse levels a position in level-0 px mostly falls between two px: at a downsample of 4.0001 nearly always. OpenSlide lets
cairo paint each tile moved by the fraction; pixman interpolates bilinearly in float32, and along the seams, where each tile has
faded out, adds them up through the 8-bit canvas (operator SATURATE). Our reconstruction of what pixman does (bilinear fetch and
combiner in float, float to 8 bit as floor(256 f), 256 becoming 255); whether it holds is probed for each level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsol.slides.reader import RGB, on_white

Floats = npt.NDArray[np.float32]
_ONE, _EIGHT_BIT = np.float32(1), np.float32(1 / 255)


def split(position: float) -> tuple[int, np.float32]:
    """The px below, and the fraction in pixman's 16 bits."""
    fixed = int(np.floor(position * 65536 + 0.5))
    return fixed >> 16, np.float32(fixed & 65535) / np.float32(65536)


def shifted(block: RGB, x: np.float32, y: np.float32, seams: tuple[Sequence[int], Sequence[int]]) -> RGB:
    """(h, w, 3) at the fraction (x, y) in [0, 1) of a px right and below of each px but the last of `block` (h + 1, w + 1, 3).

    Args:
        block: opaque px.
        x: fraction.
        y: fraction.
        seams: columns and rows of px that end a tile.
    """
    px = block.astype(np.float32) * _EIGHT_BIT
    weights = ((_ONE - x) * (_ONE - y), x * (_ONE - y), (_ONE - x) * y, x * y)
    corners = (px[:-1, :-1], px[:-1, 1:], px[1:, :-1], px[1:, 1:])
    out = _eight_bit(_sum(corners, weights, range(4)))
    columns, rows = (np.asarray(seam, int) for seam in seams)
    if x and len(columns):
        out[:, columns] = _painted([corner[:, columns] for corner in corners], weights, [(1, 3), (0, 2)])
    if y and len(rows):
        out[rows] = _painted([corner[rows] for corner in corners], weights, [(2, 3), (0, 1)])
    if x and y and len(columns) and len(rows):
        crossing = np.ix_(rows, columns)
        out[crossing] = _painted([corner[crossing] for corner in corners], weights, [(3,), (2,), (1,), (0,)])
    return out


def _sum(corners: Sequence[Floats], weights: Sequence[np.float32], which: Sequence[int]) -> Floats:
    """In pixman's order: upper left, upper right, lower left, lower right."""
    total = corners[which[0]] * weights[which[0]]
    for i in which[1:]:
        total += corners[i] * weights[i]
    return total


def _painted(corners: Sequence[Floats], weights: Sequence[np.float32], tiles: Sequence[Sequence[int]]) -> RGB:
    """One tile after the other, each with the corners it holds, from the lower right one on as OpenSlide paints them."""
    canvas: RGB = np.zeros(corners[0].shape, np.uint8)
    alpha = np.zeros(1, np.uint8)
    for which in tiles:
        source = sum((weights[i] for i in which), np.float32(0))
        if not source:
            continue
        behind = alpha * _EIGHT_BIT
        room = np.clip((_ONE - behind) / source, 0, 1)
        canvas = _eight_bit(_sum(corners, weights, which) * room + canvas * _EIGHT_BIT)
        alpha = _eight_bit(source * room + behind)
    if alpha[0] == 255:
        return canvas
    # Where four tiles meet a trace of the ground can show through; openslide-python divides by alpha, we lay it on white.
    straight = (255 * canvas.astype(np.int32) // alpha[0]).astype(np.uint8)
    return on_white(np.concatenate([straight, np.full((*canvas.shape[:-1], 1), alpha[0], np.uint8)], axis=-1))


def _eight_bit(values: Floats) -> RGB:
    return np.minimum(values * np.float32(256), np.float32(255)).astype(np.uint8)
