"""Images that were cut from a slide: covered areas and steps of known layouts, and places that cannot be right."""

from __future__ import annotations

import numpy as np
import pytest

from wsol.slides import Piece
from wsol.slides.pieces import layout


def squares(places, side=64):
    return [Piece(f"{i}.png", x, y, side, side) for i, (x, y) in enumerate(places)]


@pytest.mark.parametrize("seed", range(4))
def test_the_covered_share_is_that_of_a_drawing(seed):
    generator = np.random.default_rng(seed)
    pieces = [Piece(f"{i}.png", *map(int, generator.integers(0, 200, 2)), 10 + i, 30 - i) for i in range(20)]
    found = layout(pieces, mpp=0.5)
    drawn = np.zeros(found.size[::-1], bool)
    for piece in pieces:
        drawn[piece.y : piece.y + piece.height, piece.x : piece.x + piece.width] = True
    assert found.covered == pytest.approx(drawn.mean(), abs=1e-12)
    assert found.size == (max(p.x + p.width for p in pieces), max(p.y + p.height for p in pieces))
    assert found.images == 20


@pytest.mark.parametrize(("step", "down"), [(64, 1.0), (32, 1.0), (16, 1.0), (128, 2.0), (32, 2.0)])
def test_grids_with_overlap_are_welcome(step, down):
    found = layout(squares([(x * step, y * step) for y in range(5) for x in range(7)]), mpp=0.5, down=down)
    assert (found.step, found.covered) == (step, 1.0)
    assert found.size == (6 * step + 64 * down, 4 * step + 64 * down)


def test_the_step_of_a_column_counts_where_no_row_has_two():
    assert layout(squares([(0, 0), (0, 100), (0, 300)]), mpp=0.5).step == 150
    assert layout(squares([(5, 7)]), mpp=0.5).step == 0


@pytest.mark.parametrize(
    "places",
    [
        [(0, 0), (64, 0), (0, 0)],
        [(0, 0), (64, 0), (15, 0)],
        [(64, 64), (0, 0), (49, 79)],  # neighboring cells of a quarter side
        [(x, 0) for x in range(4)],  # counted tiles, taken for px
    ],
)
def test_images_on_each_other_are_refused(places):
    with pytest.raises(ValueError, match=r"lie on each other.*64 x 64 px are cut at least 1/4 of that apart"):
        layout(squares(places), mpp=0.5)


def test_an_image_of_another_size_may_lie_on_one_but_not_at_its_corner():
    large = Piece("large.png", 0, 0, 64, 64)
    assert layout([large, Piece("small.png", 1, 1, 32, 32)], mpp=0.5).covered == 1
    with pytest.raises(ValueError, match=r"large\.png \(x 0, y 0\) and small\.png"):
        layout([large, Piece("small.png", 0, 0, 32, 32)], mpp=0.5)
