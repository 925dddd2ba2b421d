"""A slide that was cut into images and put together again reads as the slide it was."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from wsol.slides import Box, Piece, SlideError, open_region, open_slide, tile_table, write_mosaic

WIDTH, HEIGHT, SIDE = 400, 288, 64


@pytest.fixture
def rgb(stained):
    return np.ascontiguousarray(stained[60 : 60 + HEIGHT, 150 : 150 + WIDTH])


def cut(folder, pixels, side=SIDE, skip=(), down=1):
    """Saves `pixels` in squares of `side` (less at the edges) and lists them; places are in px times `down`."""
    pieces = []
    for y in range(0, pixels.shape[0], side):
        for x in range(0, pixels.shape[1], side):
            if (x, y) in skip:
                continue
            part = pixels[y : y + side, x : x + side]
            path = folder / f"{x}_{y}.png"
            Image.fromarray(part).save(path)
            pieces.append(Piece(str(path), x * down, y * down, part.shape[1], part.shape[0]))
    return pieces


@pytest.fixture
def both(tmp_path, rgb):
    """The slide whole, and in pieces."""
    Image.fromarray(rgb).save(tmp_path / "whole.png")
    write_mosaic(tmp_path / "cut.mosaic", cut(tmp_path, rgb), mpp=0.5)
    with open_slide(tmp_path / "whole.png", mpp=0.5) as whole, open_slide(tmp_path / "cut.mosaic") as pieces:
        yield whole, pieces


@pytest.mark.parametrize("mpp", [0.5, 0.7, 1.0, 4.0])
@pytest.mark.parametrize("box", [Box(0, 0, 64, 64), Box(37, 51, 200, 131), Box(-20, -10, 500, 400), Box(390, 280, 64, 64)])
def test_it_reads_as_the_slide(both, box, mpp):
    whole, pieces = both
    assert (pieces.size, pieces.mpp) == (whole.size, whole.mpp)
    np.testing.assert_array_equal(pieces.read(box, mpp), whole.read(box, mpp))


def test_it_is_cut_into_the_same_tiles(both):
    (one, status), (two, other) = (tile_table(slide, tile_px=32, mpp=1.0, tissue_mpp=4.0) for slide in both)
    assert status == other
    assert status.tiles > 10
    assert one.equals(two)


def test_where_there_is_no_piece_it_is_white_and_later_ones_lie_on_top(tmp_path, rgb):
    pieces = cut(tmp_path, rgb, skip={(64, 64)})
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "over.png")
    write_mosaic(tmp_path / "a.mosaic", [*pieces, Piece(str(tmp_path / "over.png"), 10, 20, 30, 30)], mpp=0.5)
    wanted = rgb.copy()
    wanted[64:128, 64:128] = 255
    wanted[20:50, 10:40] = 0
    with open_slide(tmp_path / "a.mosaic") as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, WIDTH, HEIGHT), 0.5), wanted)


def test_images_at_a_coarser_resolution_keep_the_px_of_the_slide(tmp_path, rgb):
    """Cut at 0.25 um and saved at 0.5: places are px at 0.25."""
    write_mosaic(tmp_path / "a.mosaic", cut(tmp_path, rgb, down=2), mpp=0.25, down=2.0)
    with open_slide(tmp_path / "a.mosaic") as slide:
        assert (slide.size, slide.mpp, slide.downsamples) == ((2 * WIDTH, 2 * HEIGHT), 0.25, (2.0,))
        np.testing.assert_array_equal(slide.read(Box(128, 64, 256, 128), 0.5), rgb[32:96, 64:192])
        np.testing.assert_array_equal(
            slide.read(Box(0, 0, 2 * WIDTH, 2 * HEIGHT), 1.0), cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        )
        assert slide.stored_tile(0.5) is None or slide.stored_tile(0.5) == (2 * SIDE, 2 * SIDE)


def test_masks_in_pieces_are_a_mask(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (180, 140), 90, 2, -1)
    cv2.circle(mask, (300, 100), 30, 1, -1)
    Image.fromarray(mask).save(tmp_path / "whole.png")
    write_mosaic(tmp_path / "m.mosaic", cut(tmp_path, mask), mpp=0.5)
    for values in ([], [2]):
        one, two = (open_region(tmp_path / name, (WIDTH, HEIGHT), values=values) for name in ("whole.png", "m.mosaic"))
        for box, shape in (
            (Box(0, 0, WIDTH, HEIGHT), (HEIGHT, WIDTH)),
            (Box(-7, 30, 333, 200), (41, 77)),
            (Box(5, 5, 9, 9), (3, 3)),
        ):
            np.testing.assert_array_equal(two.raster(box, shape), one.raster(box, shape))
        corners = np.array([[0, 0], [100, 60], [380, 270]])
        np.testing.assert_array_equal(two.shares(corners, 48), one.shares(corners, 48))
    with pytest.raises(ValueError, match=r"masks reach to \(400, 288\), the slide to \(300, 288\)"):
        open_region(tmp_path / "m.mosaic", (300, HEIGHT))


def test_damage_is_named(tmp_path, rgb):
    pieces = cut(tmp_path, rgb)
    write_mosaic(tmp_path / "a.mosaic", pieces, mpp=0.5)
    (tmp_path / "64_64.png").write_bytes(b"no image")
    (tmp_path / "0_0.png").unlink()
    Image.fromarray(rgb[:10, :10]).save(tmp_path / "128_0.png")
    with open_slide(tmp_path / "a.mosaic") as slide:
        for x, y, says in ((64, 64, "64_64.png: cannot be read"), (0, 0, "0_0.png"), (128, 0, r"10 x 10 px, but .* of 64 x 64")):
            with pytest.raises(SlideError, match=says):
                slide.read(Box(x, y, 8, 8), 0.5)
        assert slide.read(Box(192, 128, 8, 8), 0.5).shape == (8, 8, 3)
    for text in ("", "{}", json.dumps({"format": 9, "mpp": 1, "down": 1, "pieces": []})):
        (tmp_path / "b.mosaic").write_text(text)
        with pytest.raises(SlideError, match="no mosaic that can be read"):
            open_slide(tmp_path / "b.mosaic")
    with pytest.raises(ValueError, match="at least one image"):
        write_mosaic(tmp_path / "c.mosaic", [], mpp=0.5)
