from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.slides import aligned_side, grid

planes = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40)).flatmap(
    lambda s: st.tuples(*map(st.just, s), st.floats(1, s[2]))
)


def covered(corners, tile, width, height):
    """Which px of the plane lie in a tile."""
    found = np.zeros((height, width), bool)
    for x, y in corners:
        found[y : y + tile, x : x + tile] = True
    return found


@settings(deadline=None)
@given(planes)
def test_pad_covers_starts_at_zero_and_is_uniform(plane):
    width, height, tile, step = plane
    corners = grid(width, height, tile=tile, step=step)
    assert corners.dtype == np.int64
    assert tuple(corners[0]) == (0, 0)
    assert len(np.unique(corners, axis=0)) == len(corners)
    assert covered(corners, tile, width, height).all()
    for axis in np.unique(corners[:, 0]), np.unique(corners[:, 1]):
        np.testing.assert_array_equal(axis, np.round(np.arange(len(axis)) * step))


@settings(deadline=None)
@given(planes)
def test_no_tile_too_many(plane):
    width, height, tile, step = plane
    corners = grid(width, height, tile=tile, step=step)
    for axis, length in ((0, width), (1, height)):
        at = np.unique(corners[:, axis])
        assert len(at) == 1 or at[-2] + tile < length  # without the last column a px would be bare


@settings(deadline=None)
@given(planes)
def test_drop_is_the_part_of_pad_that_fits(plane):
    width, height, tile, step = plane
    pad, drop = (grid(width, height, tile=tile, step=step, edge=edge) for edge in ("pad", "drop"))
    fits = (pad + tile <= [width, height]).all(axis=1)
    np.testing.assert_array_equal(drop, pad[fits])


@settings(deadline=None)
@given(planes)
def test_shift_covers_and_stays_inside(plane):
    width, height, tile, step = plane
    shift = grid(width, height, tile=tile, step=step, edge="shift")
    assert covered(shift, tile, width, height).all()
    assert (shift + tile <= np.maximum([width, height], tile)).all()
    assert len(shift) == len(grid(width, height, tile=tile, step=step))
    inside = {tuple(c) for c in grid(width, height, tile=tile, step=step, edge="drop")}
    assert inside <= {tuple(c) for c in shift}


@settings(deadline=None)
@given(planes)
def test_product_of_axes(plane):
    width, height, tile, step = plane
    corners = {tuple(c) for c in grid(width, height, tile=tile, step=step)}
    xs, ys = grid(width, 1, tile=tile, step=step)[:, 0], grid(height, 1, tile=tile, step=step)[:, 0]
    assert corners == {(x, y) for x in xs for y in ys}


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(2, 200), st.integers(1, 5))
def test_every_kth_tile_of_an_overlapping_grid_lies_on_the_plain_one(length, tile, k):
    """Whatever the rounding: maps are made of the tiles at multiples of a side (`tile_table` adds the last ones)."""
    k = min(k, tile)
    plain = set(grid(length, 1, tile=tile)[:, 0].tolist())
    between = set(grid(length, 1, tile=tile, step=max(1.0, tile * (1 - (1 - 1 / k))))[:, 0].tolist())
    assert {x for x in between if x % tile == 0} >= {x for x in plain if x + tile <= length}


def test_by_hand():
    assert grid(10, 1, tile=4)[:, 0].tolist() == [0, 4, 8]
    assert grid(10, 1, tile=4, edge="shift")[:, 0].tolist() == [0, 4, 6]
    assert grid(10, 4, tile=4, edge="drop").tolist() == [[0, 0], [4, 0]]
    assert grid(3, 1, tile=4, edge="shift")[:, 0].tolist() == [0]
    assert grid(3, 4, tile=4, edge="drop").tolist() == []
    assert grid(9, 1, tile=5, step=2.5)[:, 0].tolist() == [0, 2, 5]


def test_refuses_gaps_and_unknown_edges():
    with pytest.raises(ValueError, match="gaps"):
        grid(100, 100, tile=10, step=11)
    with pytest.raises(ValueError, match="at least 1 px"):
        grid(0, 100, tile=10)
    with pytest.raises(ValueError, match="did you mean 'drop'"):
        grid(100, 100, tile=10, edge="drp")


@given(st.integers(1, 3000), st.sampled_from([1, 7, 240, 256, 500, 512]))
def test_an_aligned_grid_cuts_no_stored_tile_and_none_is_nearer(side, native):
    aligned = aligned_side(side, native)
    clean = [n for n in range(1, side + native + 1) if n % native == 0 or native % n == 0]
    assert abs(aligned - side) == min(abs(n - side) for n in clean)
    assert aligned in clean
    for corner in grid(4000, 1, tile=aligned)[:, 0]:
        first, last = corner // native, (corner + aligned - 1) // native
        assert first == last or (corner % native == 0 and aligned % native == 0)


def test_aligned_side_examples():
    assert [aligned_side(side, 240) for side in (224, 256, 400, 512, 100, 241)] == [240, 240, 480, 480, 120, 240]
    with pytest.raises(ValueError, match="at least 1 px; got 0 and 240"):
        aligned_side(0, 240)
