from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from wsol.slides import Box, open_slide, thumbnail_png, tile_table, tissue_mask


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
    assert list(table.columns) == ["x", "y", "width", "height", "tissue"]
    assert (table[["width", "height"]] == 128).all(axis=None)
    assert table.dtypes.astype(str).tolist() == ["int64"] * 4 + ["float64"]
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
        thumbnail_png(slide, table, tmp_path / "thumb.png")
    assert len(table) == 0
    assert table.dtypes.astype(str).tolist() == ["int64"] * 4 + ["float64"]
    assert status.status == "empty"
    assert "no tissue found" in status.reason
    assert status.tissue_fraction == 0
    assert (tmp_path / "thumb.png").exists()


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


def test_thumbnail_shows_grid_and_tissue(slide_path, tmp_path):
    with open_slide(slide_path) as slide:
        table, _ = tile_table(slide, tile_px=64, mpp=1.0)
        thumbnail_png(slide, table, tmp_path / "t.png", mpp=2.0)
        plain = slide.thumbnail(2.0)
    drawn = cv2.imread(str(tmp_path / "t.png"))[..., ::-1]
    assert drawn.shape == plain.shape
    assert (drawn == [0, 170, 60]).all(axis=-1).sum() > 200
    assert (drawn == [40, 40, 90]).all(axis=-1).sum() > 200
    assert [p.name for p in tmp_path.iterdir()] == ["t.png"]


def test_real_slide(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        table, status = tile_table(slide, tile_px=224, mpp=1.0)
    assert status.status == "ok"
    assert 12 <= len(table) <= 24
    assert 0.3 < status.tissue_fraction < 0.5
