from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from wsol.data.sources.phantom_tiff import write_pyramid
from wsol.slides import Box, SlideError, on_lattice, open_slide, tile_table, tissue_mask

COLUMNS = ["x", "y", "width", "height", "tissue", "pen", "fold", "sharpness", "flags"]


def test_tile_table_against_counting(slide_path):
    with open_slide(slide_path) as slide:
        table, status = tile_table(slide, tile_px=64, mpp=1.0, min_tissue=0.5, tissue_mpp=4.0)
        mask = tissue_mask(slide.thumbnail(4.0), 4.0)
        assert slide.read(Box(*table.loc[0, ["x", "y", "width", "height"]].astype(int)), 1.0).shape == (64, 64, 3)
    expected = {}
    for y in range(0, 768, 128):
        for x in range(0, 1024, 128):
            share = mask[y // 8 : y // 8 + 16, x // 8 : x // 8 + 16].mean()
            if share >= 0.5:
                expected[x, y] = share
    assert {(r.x, r.y): r.tissue for r in table.itertuples()} == pytest.approx(expected)
    assert list(table.columns) == COLUMNS
    assert (table[["width", "height"]] == 128).all(axis=None)
    assert table.dtypes.astype(str).tolist() == ["int64"] * 4 + ["float64"] * 4 + ["object"]
    assert (status.status, status.tiles, status.positions) == ("ok", len(table), 48)
    json.dumps(status.to_dict())


def test_um_and_overlap(slide_path):
    with open_slide(slide_path) as slide:
        px, _ = tile_table(slide, tile_px=64, mpp=1.0)
        um, _ = tile_table(slide, tile_um=64.0, mpp=1.0)
        half, _ = tile_table(slide, tile_px=64, mpp=1.0, overlap=0.5)
    assert px.equals(um)
    assert set(half.x % 64) == {0}
    assert len(half) > 2.5 * len(px)


def test_empty_slide_is_a_status_with_a_reason(tmp_path):
    cv2.imwrite(str(tmp_path / "glass.png"), np.full((600, 500, 3), 244, np.uint8))
    with open_slide(tmp_path / "glass.png", mpp=0.5) as slide:
        table, status = tile_table(slide, tile_px=64, mpp=1.0)
    assert len(table) == 0
    assert table.dtypes.astype(str).tolist() == ["int64"] * 4 + ["float64"] * 4 + ["object"]
    assert status.status == "empty"
    assert "no tissue found" in status.reason
    assert status.tissue_fraction == 0


def test_too_little_tissue_says_how_much(slide_path):
    with open_slide(slide_path) as slide:
        _, status = tile_table(slide, tile_px=512, mpp=1.0, min_tissue=0.9)
    assert status.status == "empty"
    assert "lower min_tissue" in status.reason


def test_arguments_are_checked(slide_path):
    with open_slide(slide_path) as slide:
        with pytest.raises(ValueError, match="tile_px or as tile_um"):
            tile_table(slide, mpp=1.0)
        with pytest.raises(ValueError, match="overlap"):
            tile_table(slide, tile_px=64, mpp=1.0, overlap=32)
        with pytest.raises(ValueError, match="min_tissue"):
            tile_table(slide, tile_px=64, mpp=1.0, min_tissue=25)


def test_a_slide_coarser_than_its_tiles_is_refused(slide_path):
    with (
        open_slide(slide_path, mpp=1.6) as slide,
        pytest.raises(SlideError, match=r"finest level has 1.6 um .* set `tile.mpp` to 1.6"),
    ):
        tile_table(slide, tile_px=64, mpp=1.0)
    with open_slide(slide_path, mpp=1.5) as slide:
        assert tile_table(slide, tile_px=64, mpp=1.0)[1].side == 43


def test_a_slide_under_marker_says_so(tmp_path):
    rgb = np.full((600, 500, 3), 244, np.uint8)
    rgb[100:500, 100:400] = (20, 20, 25)
    cv2.imwrite(str(tmp_path / "pen.png"), rgb)
    with open_slide(tmp_path / "pen.png", mpp=0.5) as slide:
        _, status = tile_table(slide, tile_px=64, mpp=1.0)
    assert status.status == "empty"
    assert status.pen_fraction == pytest.approx(400 * 300 / 600 / 500, rel=0.5)
    assert "marker or black border covers" in status.reason


def test_edges(slide_path):
    """1024 x 768 px at 0.5 um; tiles of 150 um are 300 px: 3.4 x 2.6 of them."""
    with open_slide(slide_path) as slide:
        found = {e: tile_table(slide, tile_um=150.0, mpp=1.0, edge=e, min_tissue=0.0)[1] for e in ("pad", "drop", "shift")}
        shifted, _ = tile_table(slide, tile_um=150.0, mpp=1.0, edge="shift", min_tissue=0.0)
    assert {edge: status.positions for edge, status in found.items()} == {"pad": 12, "drop": 6, "shift": 12}
    assert (shifted.x + shifted.width).max() <= 1024
    assert (shifted.y + shifted.height).max() == 768


def test_tiles_between_do_not_change_those_on_the_lattice(slide_path):
    with open_slide(slide_path) as slide:
        plain, _ = tile_table(slide, tile_px=50, mpp=1.0)
        for overlap in (0.5, 2 / 3):
            more, _ = tile_table(slide, tile_px=50, mpp=1.0, overlap=overlap)
            assert len(more) > 2 * len(plain)
            assert on_lattice(more).equals(plain)
        shifted, _ = tile_table(slide, tile_px=50, mpp=1.0, edge="shift")
        inside, _ = tile_table(slide, tile_px=50, mpp=1.0, edge="drop")
    assert on_lattice(shifted).equals(inside)


@pytest.mark.parametrize(
    ("mpp", "px", "plain", "aligned"),
    [
        (0.499, 256, 513, 512),  # two stored tiles
        (0.503, 64, 127, 128),  # half of one
        (0.52, 256, 492, 492),  # 4 % away: left alone
        (0.5, 224, 448, 448),
    ],
)
def test_sides_near_the_stored_grid_are_put_on_it(tmp_path, mpp, px, plain, aligned):
    path = tmp_path / "s.tiff"
    write_pyramid(np.full((600, 700, 3), 240, np.uint8), path, mpp)
    with open_slide(path) as slide:
        assert slide.tiles[0] == (256, 256)
        sides = [tile_table(slide, tile_px=px, mpp=1.0, align=a)[1].side for a in (False, True)]
    assert sides == [plain, aligned]


def test_real_slide(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        table, status = tile_table(slide, tile_px=224, mpp=1.0)
    assert status.status == "ok"
    assert 12 <= len(table) <= 24
    assert 0.3 < status.tissue_fraction < 0.5
