from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from wsol.evaluation import fit_range


def test_range_pools_all_cells_of_all_maps():
    maps = [np.arange(0, 601).reshape(1, -1), np.arange(601, 1001).reshape(400, 1)]
    assert fit_range(maps) == (5.0, 995.0)
    assert fit_range(maps, 0, 100) == (0.0, 1000.0)
    assert fit_range(m for m in reversed(maps)) == (5.0, 995.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_percentiles_are_those_of_numpy_however_the_cells_are_dealt(seed):
    rng = np.random.default_rng(seed)
    maps = [
        rng.normal(size=(rng.integers(0, 9), rng.integers(1, 60))).round(rng.integers(0, 6)).astype(np.float32) for _ in range(9)
    ]
    cells = np.concatenate([m.ravel() for m in maps]).astype(np.float64)
    for low, high in ((0.5, 99.5), (0, 100), (10, 55), (97, 98)):
        expected = np.percentile(cells, [low, high])
        if expected[0] == expected[1]:
            expected = cells.min(), cells.max()
        assert fit_range(maps, low, high) == pytest.approx(tuple(expected), rel=1e-12, abs=1e-12)


def test_maps_are_not_held():
    class Read:
        def __iter__(self):
            return iter([np.arange(100_000.0)] * 50)

    tracemalloc.start()
    assert fit_range(Read()) == pytest.approx((499.995, 99499.005), abs=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 800_000  # bytes; all of them are 40 MB


def test_a_nearly_blank_map_keeps_its_few_cells():
    sparse = np.zeros((100, 100))
    sparse[3, 4] = 2.0
    assert fit_range([sparse]) == (0.0, 2.0)


def test_what_has_no_range_is_refused():
    with pytest.raises(ValueError, match=r"every cell of every map is 0\.5"):
        fit_range([np.full((3, 3), 0.5)] * 2)
    with pytest.raises(ValueError, match="1 of 9 map cells"):
        fit_range([np.where(np.eye(3) * [1, 0, 0], np.nan, 0.0)])
    with pytest.raises(ValueError, match="no maps"):
        fit_range([])
    with pytest.raises(ValueError, match="low < high"):
        fit_range([np.arange(3)], 99, 1)
