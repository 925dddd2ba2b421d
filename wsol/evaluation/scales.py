"""From raw maps to scores in [0, 1] by one range for all images, fitted on validation maps. Needs no label and no mask."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


def fit_range(maps: Iterable[NDArray[np.floating]], low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """The raw values that become 0 and 1: two percentiles of all cells of all maps together.

    One range for all images keeps "nothing here" expressible; per-image min-max forces every image, normals too, to contain
    score 1.

    Args:
        maps: raw maps (h, w) at feature resolution; sizes may differ, each cell counts once. What can be gone through several
            times (three times, it is) is not held in memory; an iterator is.
        low: percentile that becomes 0.
        high: percentile that becomes 1.

    Returns:
        (value at `low`, value at `high`), the first smaller. Where the two percentiles coincide (a map that is 0 nearly
        everywhere), the smallest and largest value.

    Raises:
        ValueError: no maps, a NaN or infinity, percentiles out of order.
        ConstantMaps: every cell of every map is the same.
    """
    if not 0.0 <= low < high <= 100.0:
        raise ValueError(f"percentiles must satisfy 0 <= low < high <= 100, got {low} and {high}")
    every = list(maps) if isinstance(maps, Iterator) else maps
    count, strange, least, most = 0, 0, math.inf, -math.inf
    for cells in map(np.ravel, every):
        if cells.size:
            count, strange = count + cells.size, strange + int(np.count_nonzero(~np.isfinite(cells)))
            least, most = min(least, float(cells.min())), max(most, float(cells.max()))
    if not count:
        raise ValueError("no maps to fit a range on")
    if strange:
        raise ValueError(f"{strange} of {count} map cells are NaN or infinite; no range fits them")
    if least == most:
        raise ConstantMaps(least)
    bottom, top = _percentile(every, count, low), -_percentile((-np.asarray(m) for m in every), count, 100.0 - high)
    return (least, most) if bottom == top else (bottom, top)


class ConstantMaps(ValueError):
    """Every cell of every map has one `value`."""

    def __init__(self, value: float) -> None:
        super().__init__(f"every cell of every map is {value}: a constant map has no range to scale by")
        self.value = value


def _percentile(maps: Iterable[NDArray[np.floating]], count: int, percent: float) -> float:
    """The value that `percent` of all `count` cells lie below, between two of them as `numpy.percentile` has it.

    Only the cells below it are kept: half a percent of thousands of slides are in memory, not all.
    """
    at = percent / 100 * (count - 1)
    below = math.floor(at)
    values = np.sort(_smallest(maps, min(below + 2, count)))[below:].astype(np.float64)
    first, step, share = values[0], values[-1] - values[0], at - below
    return float(first + step * share if share < 0.5 else values[-1] - step * (1 - share))  # numpy's way, to the last bit


def _smallest(maps: Iterable[NDArray[np.floating]], keep: int) -> NDArray[np.floating]:
    """The `keep` smallest cells of all maps, in any order."""
    kept: NDArray[np.floating] | None = None
    for cells in map(np.ravel, maps):
        # Once enough are kept, few cells of the next map are below the largest of these.
        found = cells if kept is None else np.concatenate([kept, cells[cells < kept.max()] if kept.size == keep else cells])
        kept = np.partition(found, keep - 1)[:keep] if found.size > keep else found
    assert kept is not None
    return kept
