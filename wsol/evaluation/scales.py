"""From raw maps to scores in [0, 1] by one range for all images, fitted on validation maps. Needs no label and no mask."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def fit_range(maps: Iterable[NDArray[np.floating]], low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """The raw values that become 0 and 1: two percentiles of all cells of all maps together.

    One range for all images keeps "nothing here" expressible; per-image min-max forces every image, normals too, to contain
    score 1.

    Args:
        maps: raw maps (h, w) at feature resolution; sizes may differ, each cell counts once.
        low: percentile that becomes 0.
        high: percentile that becomes 1.

    Returns:
        (value at `low`, value at `high`), the first smaller. Where the two percentiles coincide (a map that is 0 nearly
        everywhere), the smallest and largest value.

    Raises:
        ValueError: no maps, a NaN or infinity, percentiles out of order, or every cell of every map the same.
    """
    if not 0.0 <= low < high <= 100.0:
        raise ValueError(f"percentiles must satisfy 0 <= low < high <= 100, got {low} and {high}")
    cells = [np.asarray(m, np.float64).ravel() for m in maps]
    if not sum(c.size for c in cells):
        raise ValueError("no maps to fit a range on")
    values = np.concatenate(cells)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(values))} of {values.size} map cells are NaN or infinite; no range fits them"
        )
    bottom, top = (float(v) for v in np.percentile(values, [low, high]))
    if bottom == top:
        bottom, top = float(values.min()), float(values.max())
    if bottom == top:
        raise ValueError(f"every cell of every map is {bottom}: a constant map has no range to scale by")
    return bottom, top
