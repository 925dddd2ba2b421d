"""The compiled sweeps behind box accuracy: one pass over the pixels of a map answers for all of its 255 masks {level > L}.

Pixels join in order of a time, 0 ... 254, and regions grow and merge in a union-find (the component tree of Salembier et al.,
Antiextensive connected operators, IEEE TIP 1998; union-find as in Najman and Couprie, IEEE TIP 2006). Only when the box of a
region changes is the old one compared with the true boxes, and its overlap then stands for all the times it lived. A contour
finder sees three kinds of regions: foreground, 8-connected; holes, 4-connected background away from the border of the image; and,
for the largest contour, foreground with its holes filled.

Arrays of regions are padded by one pixel on every side, so that no neighbor needs a bounds check; index 0 is the top left of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsol.evaluation.kernels import compiled

TIMES = 255
"""Masks {level > L} of a uint8 map, L = 0 ... 254, that can hold a pixel."""


@compiled
def quantize(scores: Any, levels: Any) -> int:
    """Write floor(255 * score), in float64, to the flat uint8 `levels`.

    Returns:
        The index of the first score that is NaN or outside [0, 1], or -1.
    """
    for i in range(scores.size):
        score = np.float64(scores[i])
        if not (score >= 0.0 and score <= 1.0):
            return i
        levels[i] = np.uint8(score * 255.0)
    return -1


@compiled
def overlap(x0: int, y0: int, x1: int, y1: int, boxes: Any) -> float:
    """The largest intersection over union of one box with `boxes`, int64 (n, 4); corners x0, y0, x1, y1, all inclusive."""
    best = 0.0
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    for i in range(boxes.shape[0]):
        width = min(x1, boxes[i, 2]) - max(x0, boxes[i, 0]) + 1
        height = min(y1, boxes[i, 3]) - max(y0, boxes[i, 1]) + 1
        if width <= 0 or height <= 0:
            continue
        shared = width * height
        other = (boxes[i, 2] - boxes[i, 0] + 1) * (boxes[i, 3] - boxes[i, 1] + 1)
        best = max(best, shared / (area + other - shared))
    return best


@compiled
def contour_overlap(box: Any, margin: int, width: int, height: int, boxes: Any) -> float:
    """Overlap of the box that the field draws around a region: one pixel too far on the right and at the bottom, then clipped.

    `box` holds padded corners of the region; `margin` is 1 around a hole, whose contour runs on the foreground about it.
    """
    x0, y0 = box[0] - 1 - margin, box[1] - 1 - margin
    x1, y1 = min(box[2] + margin, width - 1), min(box[3] + margin, height - 1)
    return overlap(x0, y0, x1, y1, boxes)


@compiled
def ordered(times: Any) -> tuple[Any, Any]:
    """Padded pixel indices by time (int32, stable), and where each time starts: int64 (257,)."""
    height, width = times.shape
    starts = np.zeros(257, np.int64)
    for y in range(height):
        for x in range(width):
            starts[times[y, x] + 1] += 1
    for t in range(256):
        starts[t + 1] += starts[t]
    at = starts[:256].copy()
    order = np.empty(height * width, np.int32)
    for y in range(height):
        for x in range(width):
            t = times[y, x]
            order[at[t]] = (y + 1) * (width + 2) + x + 1
            at[t] += 1
    return order, starts


@compiled
def find(parent: Any, p: int) -> int:
    """The root of a pixel; halves the path on the way."""
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@compiled
def close(best: Any, value: float, born: int, now: int) -> None:
    """A box with this overlap stood from `born` until before `now`."""
    for t in range(born, now):
        if value > best[t]:
            best[t] = value


@compiled
def framed(height: int, width: int) -> Any:
    """Parents (int32, -1 = not there yet) in which the padding is one region with root 0: what touches it is no hole."""
    parent = np.full((height + 2) * (width + 2), -1, np.int32)
    for x in range(width + 2):
        parent[x] = 0
        parent[(height + 1) * (width + 2) + x] = 0
    for y in range(height + 2):
        parent[y * (width + 2)] = 0
        parent[y * (width + 2) + width + 1] = 0
    return parent


@compiled
def sweep(times: Any, holes: bool, boxes: Any, best: Any) -> None:
    """Raise `best[t]` (float64 (255,)) to the best overlap of any region of {times <= t} with `boxes`, for every t.

    Args:
        times: uint8 (H, W), 255 = never joins.
        holes: regions are 4-connected, and those that touch the border of the image do not count.
        boxes: int64 (n, 4), see `overlap`.
        best: overlaps so far.
    """
    height, width = times.shape
    stride = width + 2
    order, starts = ordered(times)
    parent = framed(height, width) if holes else np.full((height + 2) * stride, -1, np.int32)
    box = np.zeros((parent.size, 4), np.int64)
    born = np.zeros(parent.size, np.int64)
    size = np.ones(parent.size, np.int64)
    margin, neighbors = (1, 4) if holes else (0, 8)
    offsets = np.array([-1, 1, -stride, stride, -stride - 1, -stride + 1, stride - 1, stride + 1])[:neighbors]
    for t in range(TIMES):
        for i in range(starts[t], starts[t + 1]):
            p = order[i]
            parent[p], born[p] = p, t
            box[p, 0] = box[p, 2] = p % stride
            box[p, 1] = box[p, 3] = p // stride
            root = p
            for offset in offsets:
                if parent[p + offset] < 0:
                    continue
                other = find(parent, p + offset)
                if other == root:
                    continue
                keep, gone = (root, other) if size[root] > size[other] else (other, root)
                if holes and gone == 0:
                    keep, gone = gone, keep
                if born[gone] < t:
                    close(best, contour_overlap(box[gone], margin, width, height, boxes), born[gone], t)
                if not (holes and keep == 0):
                    swallow(box, born, keep, gone, t, margin, width, height, boxes, best)
                parent[gone] = keep
                size[keep] += size[gone]
                root = keep
    for p in range(1, parent.size):
        if parent[p] == p:
            close(best, contour_overlap(box[p], margin, width, height, boxes), born[p], TIMES)


@compiled
def swallow(
    box: Any, born: Any, keep: int, gone: int, t: int, margin: int, width: int, height: int, boxes: Any, best: Any
) -> None:
    """Widen the box of `keep` by that of `gone`; if it changes, the old one is closed."""
    x0, y0 = min(box[keep, 0], box[gone, 0]), min(box[keep, 1], box[gone, 1])
    x1, y1 = max(box[keep, 2], box[gone, 2]), max(box[keep, 3], box[gone, 3])
    if x0 == box[keep, 0] and y0 == box[keep, 1] and x1 == box[keep, 2] and y1 == box[keep, 3]:
        return
    if born[keep] < t:
        close(best, contour_overlap(box[keep], margin, width, height, boxes), born[keep], t)
    box[keep, 0], box[keep, 1], box[keep, 2], box[keep, 3] = x0, y0, x1, y1
    born[keep] = t


@compiled
def fill_holes(levels: Any) -> Any:
    """The uint8 (H, W) map whose masks {filled > L} are those of `levels` with their holes filled, at every L.

    A pixel gets the lowest highest level on any 4-connected way to the border of the image: a flood from there, lowest first.
    """
    height, width = levels.shape
    filled = np.empty((height, width), np.uint8)
    seen = np.zeros((height, width), np.bool_)
    heads = np.full(256, -1, np.int32)  # a stack of pixels per level
    after = np.empty(height * width, np.int32)
    for y in range(height):
        for x in range(width):
            if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                after[y * width + x] = heads[levels[y, x]]
                heads[levels[y, x]] = y * width + x
                filled[y, x], seen[y, x] = levels[y, x], True
    for level in range(256):
        while heads[level] >= 0:
            p = heads[level]
            heads[level] = after[p]
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                y, x = p // width + dy, p % width + dx
                if y < 0 or x < 0 or y == height or x == width or seen[y, x]:
                    continue
                reached: Any = max(level, np.int64(levels[y, x]))
                after[y * width + x] = heads[reached]
                heads[reached] = y * width + x
                filled[y, x], seen[y, x] = reached, True
    return filled


@compiled
def corners_gained(parent: Any, p: int, stride: int) -> int:
    """Twice the area that pixel `p` adds to the polygon through pixel centers: half a square per third or fourth corner."""
    gained = 0
    for dy in (-stride, stride):
        for dx in (-1, 1):
            there = (parent[p + dy] >= 0) + (parent[p + dx] >= 0) + (parent[p + dy + dx] >= 0)
            gained += there >= 2
    return gained


@compiled
def largest(times: Any, boxes: Any, best: Any) -> None:
    """Write to `best[t]` (float64 (255,)) the overlap of the largest region of {times <= t}, 8-connected, with `boxes`.

    Largest is the area of the polygon through the centers of the border pixels (a line has none). Of equals, that whose first
    pixel, row by row, comes last: the first in the order of OpenCV's contours.

    Args:
        times: uint8 (H, W) of a map without holes, 255 = never joins.
        boxes: int64 (n, 4), see `overlap`.
        best: overwritten from the first time with a pixel on.
    """
    height, width = times.shape
    stride = width + 2
    order, starts = ordered(times)
    parent = np.full((height + 2) * stride, -1, np.int32)
    box = np.zeros((parent.size, 4), np.int64)
    area = np.zeros(parent.size, np.int64)
    first = np.arange(parent.size)
    roots = np.empty(parent.size, np.int32)
    alive = 0
    offsets = np.array([-1, 1, -stride, stride, -stride - 1, -stride + 1, stride - 1, stride + 1])
    for t in range(TIMES):
        for i in range(starts[t], starts[t + 1]):
            p = order[i]
            parent[p], area[p] = p, corners_gained(parent, p, stride)
            box[p, 0] = box[p, 2] = p % stride
            box[p, 1] = box[p, 3] = p // stride
            root = p
            for offset in offsets:
                if parent[p + offset] >= 0:
                    root = joined(parent, box, area, first, root, find(parent, p + offset))
            if root == p:
                roots[alive] = p
                alive += 1
        alive = still_roots(parent, roots, alive)
        if alive:
            top = roots[0]
            for r in roots[1:alive]:
                if area[r] > area[top] or (area[r] == area[top] and first[r] > first[top]):
                    top = r
            best[t] = contour_overlap(box[top], 0, width, height, boxes)


@compiled
def joined(parent: Any, box: Any, area: Any, first: Any, new: int, old: int) -> int:
    """The one region of two, under the root `old`."""
    if new != old:
        parent[new] = old
        area[old] += area[new]
        first[old] = min(first[old], first[new])
        box[old, 0], box[old, 1] = min(box[old, 0], box[new, 0]), min(box[old, 1], box[new, 1])
        box[old, 2], box[old, 3] = max(box[old, 2], box[new, 2]), max(box[old, 3], box[new, 3])
    return old


@compiled
def still_roots(parent: Any, roots: Any, alive: int) -> int:
    """Move those of the first `alive` entries that still are roots to the front; how many there are."""
    kept = 0
    for i in range(alive):
        if parent[roots[i]] == roots[i]:
            roots[kept] = roots[i]
            kept += 1
    return kept
