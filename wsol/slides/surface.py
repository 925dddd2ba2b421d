"""A score map as a surface over its slide, read in parts at the resolution that is wanted, never all of it at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]


class Surface:
    """The bilinear surface through the centers of cells, as an image of `shape` (H, W) px that is made where it is looked at.

    Attributes:
        shape: (H, W) px.
    """

    def __init__(
        self,
        cells: Scores,
        size: tuple[int, int],
        *,
        shape: tuple[int, int] | None = None,
        finish: Callable[[Scores], Scores] | None = None,
        coverage: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Args:
        cells: (h, w), raw or scores.
        size: (H, W) px that the cells stand for.
        shape: the px that there are, where the cells reach beyond the image; `size` without it.
        finish: raw values, between the cells too, to scores in [0, 1]; None: they are scores.
        coverage: bool (h, w); px of other cells score 0, up to the cell's edge.
        """
        self._cells = checked_scores(cells) if finish is None else np.ascontiguousarray(cells, np.float32)
        self._size = size
        self.shape = size if shape is None else shape
        self._finish = finish
        self._coverage = coverage

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> Scores:
        """The scores in [0, 1] of half-open ranges of px, float32."""
        height, width = self._cells.shape
        (low_y, high_y, y), (low_x, high_x, x) = _between(height, self._size[0], rows), _between(width, self._size[1], columns)
        covered = self.covered(rows, columns)
        if covered is not None and not covered.any():
            return np.zeros(covered.shape, np.float32)
        part = self._cells[low_y[0] : high_y[-1] + 1]
        lines = part[low_y - low_y[0]] * (1 - y)[:, None] + part[high_y - low_y[0]] * y[:, None]
        values = lines[:, low_x] * (1 - x) + lines[:, high_x] * x
        if self._finish is not None:
            values = self._finish(values)
        if covered is not None:
            values[~covered] = 0
        return np.clip(values, 0, 1, dtype=np.float32)

    def covered(self, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
        """Which px of half-open ranges of px were drawn, up to the edges of cells; None: all were."""
        if self._coverage is None:
            return None
        height, width = self._cells.shape
        return self._coverage[_nearest(height, self._size[0], rows)][:, _nearest(width, self._size[1], columns)]


def surface_of(score: Scores | Surface, size: tuple[int, int] | None = None) -> Surface:
    """A surface as it is; an array (h, w) of scores as one, enlarged to `size` px (its own without it).

    Raises:
        ValueError: an array of another number of axes, NaN, or values outside [0, 1]; a surface of another size.
    """
    if not isinstance(score, Surface):
        array = checked_scores(score)
        return Surface(array, size or (array.shape[0], array.shape[1]))
    if size is not None and score.shape != size:
        raise ValueError(f"the surface has {score.shape} px (H, W), and {size} are to be drawn: make it at that size")
    return score


def checked_scores(score: Scores) -> Scores:
    """`score` as contiguous float32 (h, w) in [0, 1].

    Raises:
        ValueError: another number of axes, NaN, or values outside.
    """
    score = np.ascontiguousarray(score, np.float32)
    if score.ndim != 2 or not score.size:
        raise ValueError(f"a score map is (h, w); got shape {score.shape}")
    low, high = float(score.min()), float(score.max())
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise ValueError(f"scores must be in [0, 1] without NaN; got {low} to {high}: finish the raw map first")
    return score


def _between(cells: int, size: int, part: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Scores]:
    """(cell below, cell above, weight of the one above) of the centers of px; outside the outermost centers it is flat."""
    at = np.clip((np.arange(*part) + 0.5) * (cells / size) - 0.5, 0, cells - 1)
    low = at.astype(np.int64)
    return low, np.minimum(low + 1, cells - 1), (at - low).astype(np.float32)


def _nearest(cells: int, size: int, part: tuple[int, int]) -> npt.NDArray[np.int64]:
    return np.minimum(np.arange(*part) * cells // size, cells - 1)
