from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsol.slides import aligned_side, grid

planes = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40)).flatmap(
    lambda s: st.tuples(*map(st.just, s), st.integers(1, s[2]))
)


@given(planes)
def test_covers_starts_at_zero_and_is_uniform(plane):
    width, height, tile, step = plane
    corners = grid(width, height, tile=tile, step=step)
    assert corners.dtype == np.int64
    assert tuple(corners[0]) == (0, 0)
    assert len(np.unique(corners, axis=0)) == len(corners)
    covered = np.zeros((height, width), bool)
    for x, y in corners:
        covered[y : y + tile, x : x + tile] = True
    assert covered.all()
    for axis in np.unique(corners[:, 0]), np.unique(corners[:, 1]):
        assert (np.diff(axis) == step).all()


@given(planes)
def test_no_tile_too_many(plane):
    width, height, tile, step = plane
    corners = grid(width, height, tile=tile, step=step)
    for axis, length in ((0, width), (1, height)):
        last = corners[:, axis].max()
        assert last == 0 or last - step + tile < length  # without the last column a px would be bare


@given(planes)
def test_inside_is_the_part_of_cover_that_fits(plane):
    width, height, tile, step = plane
    cover, inside = (grid(width, height, tile=tile, step=step, edge=edge) for edge in ("cover", "inside"))
    fits = (cover + tile <= [width, height]).all(axis=1)
    np.testing.assert_array_equal(inside, cover[fits])


@given(planes)
def test_product_of_axes(plane):
    width, height, tile, step = plane
    corners = {tuple(c) for c in grid(width, height, tile=tile, step=step)}
    xs, ys = grid(width, 1, tile=tile, step=step)[:, 0], grid(height, 1, tile=tile, step=step)[:, 0]
    assert corners == {(x, y) for x in xs for y in ys}


def test_refuses_gaps_and_unknown_edges():
    with pytest.raises(ValueError, match="gaps"):
        grid(100, 100, tile=10, step=11)
    with pytest.raises(ValueError, match="at least 1 px"):
        grid(0, 100, tile=10)
    with pytest.raises(ValueError, match="did you mean 'cover'"):
        grid(100, 100, tile=10, edge="covr")


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
