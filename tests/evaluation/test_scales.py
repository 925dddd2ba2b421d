from __future__ import annotations

import numpy as np
import pytest

from wsol.evaluation import fit_range


def test_range_pools_all_cells_of_all_maps():
    maps = [np.arange(0, 601).reshape(1, -1), np.arange(601, 1001).reshape(400, 1)]
    assert fit_range(maps) == (5.0, 995.0)
    assert fit_range(maps, 0, 100) == (0.0, 1000.0)
    assert fit_range(m for m in reversed(maps)) == (5.0, 995.0)


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
