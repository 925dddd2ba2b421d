"""The compiled loop that turns a score map into points."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsol.evaluation.kernels import compiled


@compiled
def strongest_apart(order: Any, height: int, width: int, distance: float) -> Any:
    """Greedy choice: the pixels of `order`, first come first kept, that lie at least `distance` from every one kept before.

    Args:
        order: flat indices of (height, width), strongest first.
        height: of the map.
        width: of the map.
        distance: between the centers of two pixels, in pixels.

    Returns:
        The kept ones, int64, in the same order.
    """
    taken = np.zeros((height, width), np.bool_)
    kept = np.empty(order.size, np.int64)
    count, reach, limit = 0, int(np.ceil(distance)), distance * distance
    for p in order:
        y, x = p // width, p % width
        if taken[y, x]:
            continue
        kept[count] = p
        count += 1
        for v in range(max(0, y - reach), min(height, y + reach + 1)):
            for u in range(max(0, x - reach), min(width, x + reach + 1)):
                if (v - y) ** 2 + (u - x) ** 2 < limit:
                    taken[v, u] = True
    return kept[:count].copy()
