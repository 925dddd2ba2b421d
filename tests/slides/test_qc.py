from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsol.data.sources.phantom_flaws import draw_flawed, small
from wsol.data.sources.phantom_tiff import write_pyramid
from wsol.slides import Limits, Overview, open_slide, overview, quality_png, tile_table
from wsol.slides.qc import fold_mask, share, sharpness
from wsol.slides.qc_picture import COLORS


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    """(path of a slide of 2048 px, its masks at 8 um per px)."""
    path = tmp_path_factory.mktemp("flawed") / "s.tiff"
    rgb, masks = draw_flawed(2048, 4, patient_seed=2)
    write_pyramid(rgb, path, 0.5)
    return path, {name: small(mask, 16) for name, mask in masks.items()}


@pytest.fixture(scope="module")
def tiled(flawed):
    with open_slide(flawed[0]) as slide:
        return tile_table(slide, tile_px=64, mpp=1.0, min_tissue=0.3)


def truth(masks, name, row):
    """Share of a flaw in a tile, by counting."""
    x, y, side = row.x // 16, row.y // 16, row.width // 16
    return masks[name][y : y + side, x : x + side].mean()


def test_sharpness_of_known_patterns():
    """A checkerboard of 0 and a: the Laplacian is 4a and -4a by turns, its variance 16 a^2. A plane has none."""
    board = np.indices((8, 8)).sum(0) % 2 * 10
    rgb = np.repeat(board[..., None], 3, 2).astype(np.uint8)
    inner = np.zeros((8, 8), bool)
    inner[1:-1, 1:-1] = True
    assert sharpness(rgb, inner) == pytest.approx(16 * 10**2)
    ramp = np.repeat((np.arange(8) * 5)[None, :, None].repeat(8, 0), 3, 2).astype(np.uint8)
    assert sharpness(ramp, inner) == 0
    assert np.isnan(sharpness(rgb, np.zeros((8, 8), bool)))


def test_blur_lowers_sharpness_of_real_tissue_below_the_limit(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        tissue = overview(slide)
        table, _ = tile_table(slide, tile_px=256, mpp=1.0, min_tissue=0.5, seen=tissue)
        whole = slide.thumbnail(1.0)
    assert not table["flags"].str.contains("blur").any()
    everywhere = np.ones(whole.shape[:2], bool)
    assert sharpness(cv2.GaussianBlur(whole, (0, 0), 2.5), everywhere) < Limits().blur < table["sharpness"].min() / 5


def test_blurred_tiles_are_flagged_and_sharp_ones_are_not(flawed, tiled):
    rows = list(tiled[0].itertuples())
    blurred = [row.flags for row in rows if truth(flawed[1], "blur", row) > 0.95 and truth(flawed[1], "pen", row) == 0]
    clean = [
        row.flags
        for row in rows
        if truth(flawed[1], "tissue", row) > 0.5
        and truth(flawed[1], "blur", row) == 0
        and truth(flawed[1], "mucin", row) + truth(flawed[1], "fat", row) < 0.1
    ]
    assert min(len(blurred), len(clean)) > 10
    assert np.mean(["blur" in flags for flags in blurred]) > 0.9
    assert np.mean(["blur" in flags for flags in clean]) < 0.02


def test_pen_and_fold_are_flagged_where_they_are(flawed, tiled):
    rows = list(tiled[0].itertuples())
    for name, much, found_at_least in (("pen", 0.3, 0.75), ("fold", 0.2, 0.7)):
        inside = [name in row.flags for row in rows if truth(flawed[1], name, row) > much]
        near = cv2.dilate(flawed[1][name].astype(np.uint8), np.ones((11, 11))) > 0
        outside = [name in row.flags for row in rows if truth({name: near | flawed[1]["border"]}, name, row) == 0]
        assert min(len(inside), len(outside)) > 5
        assert np.mean(inside) >= found_at_least, name
        assert np.mean(outside) < 0.02, name


def test_two_layers_are_a_fold_and_dense_nuclei_are_not():
    h, e = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
    amounts = {"plain": (0.3, 0.3), "fold": (0.6, 0.6), "lymphoid": (0.9, 0.1), "blood": (0.02, 1.0)}
    rgb = np.full((80, 320, 3), 244, np.uint8)
    for i, (a, b) in enumerate(amounts.values()):
        rgb[20:60, 80 * i : 80 * i + 80] = 244 * np.exp(-(a * h + b * e))
    rgb[:, 80:] = np.where(np.arange(240)[None, :, None] % 80 < 40, rgb[:, 80:], rgb[:, :1])  # each flaw on plain tissue
    tissue = np.zeros((80, 320), bool)
    tissue[20:60] = True
    found = fold_mask(rgb, 8.0, tissue)
    assert found[24:56, 84:116].all()
    assert found.sum() == pytest.approx(40 * 40, rel=0.15)
    assert not fold_mask(rgb, 8.0, np.zeros_like(tissue)).any()


def test_share_by_hand():
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    corners = np.array([[0, 0], [20, 0], [10, 10], [30, 30]])
    np.testing.assert_allclose(share(mask, corners, 20, (40, 40)), [1, 0, 0.25, 0])
    np.testing.assert_allclose(share(~mask, corners, 20, (40, 40)), [0, 1, 0.75, 0.25])  # beyond the slide is nothing


def test_dropped_tiles_leave_the_table_and_the_rest_stays(flawed, tiled):
    table, status = tiled
    with open_slide(flawed[0]) as slide:
        less, told = tile_table(slide, tile_px=64, mpp=1.0, min_tissue=0.3, limits=Limits(drop=("pen", "blur")))
        all_gone, why = tile_table(slide, tile_px=64, mpp=1.0, min_tissue=0.3, limits=Limits(blur=1e9, drop=("blur",)))
    stays = ~table["flags"].str.contains("pen|blur")
    assert less.equals(table[stays].reset_index(drop=True))
    assert told.flagged == status.flagged
    assert (told.dropped, told.tiles) == ((~stays).sum(), stays.sum())
    assert f"{told.dropped} of them dropped for pen or blur" in told.reason
    assert (len(all_gone), why.status) == (0, "empty")
    assert "change the limits" in why.reason


def test_without_sharpness_no_tile_is_read(flawed, monkeypatch):
    with open_slide(flawed[0]) as slide:
        seen = overview(slide)
        monkeypatch.setattr(slide, "read", None)
        table, _ = tile_table(slide, tile_px=64, mpp=1.0, limits=Limits(sharpness_mpp=None), seen=seen)
        assert table["sharpness"].isna().all()
        assert not table["flags"].str.contains("blur").any()
        with pytest.raises(ValueError, match="cannot be dropped with sharpness_mpp=None"):
            tile_table(slide, tile_px=64, mpp=1.0, limits=Limits(sharpness_mpp=None, drop=("blur",)), seen=seen)
        with pytest.raises(ValueError, match="unknown flag 'blurr'; did you mean 'blur'"):
            tile_table(slide, tile_px=64, mpp=1.0, limits=Limits(drop=("blurr",)), seen=seen)


def test_picture_shows_tissue_tiles_and_flags_with_a_legend(flawed, tiled, tmp_path):
    with open_slide(flawed[0]) as slide:
        seen = overview(slide)
    quality_png(seen, tiled[0], tmp_path / "q.png", level0_mpp=0.5)
    drawn = cv2.imread(str(tmp_path / "q.png"))[..., ::-1]
    picture, legend = drawn[:640], drawn[640:]
    for name, color in COLORS.items():
        assert (picture == color).all(axis=-1).sum() > 100, name
        assert (legend == color).all(axis=-1).sum() == 15 * 15, name
    assert [p.name for p in tmp_path.iterdir()] == ["q.png"]
    clean = tiled[0].assign(flags="")
    quality_png(seen, clean, tmp_path / "q.png", level0_mpp=0.5)
    drawn = cv2.imread(str(tmp_path / "q.png"))[:640, :, ::-1]
    assert not any((drawn == COLORS[flag]).all(axis=-1).any() for flag in ("blur", "pen", "fold"))


def test_a_huge_slide_has_a_small_picture(tmp_path):
    blank = np.zeros((5000, 6000), bool)
    seen = Overview(np.full((5000, 6000, 3), 240, np.uint8), blank, blank, blank, 8.0, (96000, 80000))
    with_none = tile_columns()
    quality_png(seen, with_none, tmp_path / "q.png", level0_mpp=0.5)
    assert cv2.imread(str(tmp_path / "q.png")).shape[1] == 4096


def tile_columns():
    """A table without tiles."""
    import pandas as pd

    return pd.DataFrame({name: [] for name in ("x", "y", "width", "height")} | {"flags": pd.Series([], dtype=object)})
