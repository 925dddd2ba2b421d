from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsol.slides import Block, Box, Field, blocks, fewest_px, open_slide

from .conftest import write_slide


@pytest.mark.parametrize(("step", "side"), [(64, 64), (64, 128), (32, 75), (96, 100)])
def test_every_part_of_a_field_has_the_px_of_the_whole(slide_path, step, side):
    rng = np.random.default_rng(0)
    with open_slide(slide_path) as slide:
        field = Field(slide, step=step, side=side, cell=16, hold=4)
        height, width = field.size
        assert (height % 16, width % 16) == (0, 0)
        assert 0 <= height - slide.size[1] * step / side < 16
        whole = field.read((0, height), (0, width))
        for _ in range(10):
            top, left = rng.integers(0, height - 1), rng.integers(0, width - 1)
            bottom, right = rng.integers(top + 1, height + 1), rng.integers(left + 1, width + 1)
            np.testing.assert_array_equal(field.read((top, bottom), (left, right)), whole[top:bottom, left:right])


def test_a_field_is_the_slide_averaged_over_areas_without_seams(slide_path, stained):
    with open_slide(slide_path) as slide:
        field = Field(slide, step=32, side=64, cell=32)
        seen = field.read((0, field.size[0]), (0, field.size[1]))
    np.testing.assert_array_equal(seen, cv2.resize(stained, (512, 384), interpolation=cv2.INTER_AREA))


def test_a_field_ends_in_white_behind_the_slide(tmp_path):
    path = write_slide(tmp_path / "s.tiff", np.full((100, 70, 3), 90, np.uint8))
    with open_slide(path) as slide:
        field = Field(slide, step=64, side=64, cell=16)
        assert field.size == (112, 80)
        assert field.frame == Box(0, 0, 80, 112)
        seen = field.read((0, 112), (0, 80))
    assert (seen[:100, :70] == 90).all()
    assert (seen[100:] == 255).all()
    assert (seen[:, 70:] == 255).all()


def test_the_frame_is_in_level_0_px(slide_path):
    with open_slide(slide_path) as slide:  # 1024 x 768 px; 96 px of the field are 100 of level 0
        field = Field(slide, step=96, side=100, cell=16)
        assert field.size == (752, 992)
        assert field.frame == Box(0, 0, round(992 / 0.96), round(752 / 0.96))


def test_squares_are_read_once_while_they_are_held(slide_path):
    with open_slide(slide_path) as slide:
        reads = []
        read, slide.read = slide.read, lambda box, mpp: reads.append(box) or read(box, mpp)
        field = Field(slide, step=64, side=64, cell=16, hold=4)
        for _ in range(2):
            field.read((0, 128), (0, 128))
        assert len(reads) == 4
        field.read((128, 192), (0, 64))
        field.read((0, 64), (0, 64))  # the one that was let go
        assert len(reads) == 6


def test_a_field_refuses_what_is_not_there(slide_path):
    with open_slide(slide_path) as slide:
        with pytest.raises(ValueError, match="multiple of cell"):
            Field(slide, step=40, side=40, cell=16)
        with pytest.raises(ValueError, match=r"must lie in the field of \(768, 1024\)"):
            Field(slide, step=64, side=64, cell=16).read((0, 769), (0, 4))


@pytest.mark.parametrize("side", [1, 2, 3, 7, 50])
def test_blocks_hold_every_tile_once_and_are_no_larger_than_they_need(side):
    rng = np.random.default_rng(side)
    places = np.unique(rng.integers(0, 20, (60, 2)), axis=0)
    found = blocks(places, side)
    held = np.zeros((20, 20), int)
    for top, left, bottom, right in found:
        held[top:bottom, left:right] += 1
        assert bottom - top <= side
        assert right - left <= side
        inside = places[((places >= [top, left]) & (places < [bottom, right])).all(1)]
        assert (inside.min(0) == [top, left]).all()
        assert (inside.max(0) == [bottom - 1, right - 1]).all()
    assert (held[tuple(places.T)] == 1).all()
    assert held.max() == 1


def test_the_blocks_that_read_fewest_px():
    def read(block):  # tiles of 10 px with a halo of 10
        return 10 * (block.bottom - block.top) + 20, 10 * (block.right - block.left) + 20

    full = np.stack(np.mgrid[:6, :6], -1).reshape(-1, 2)
    assert fewest_px(full, read, 80 * 80) == [Block(0, 0, 6, 6)]  # one halo for all
    assert {(b.bottom - b.top, b.right - b.left) for b in fewest_px(full, read, 79 * 80)} == {(3, 3)}  # 5 would leave slivers
    apart = np.array([[0, 0], [0, 30]])
    assert fewest_px(apart, read, 10**6) == [Block(0, 0, 1, 1), Block(0, 30, 1, 31)]  # glass between them is not read
    with pytest.raises(ValueError, match="one tile with its halo takes 900 px, and 899 fit"):
        fewest_px(full, read, 899)
