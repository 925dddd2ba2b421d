from __future__ import annotations

import json

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
import tifffile
from scipy import ndimage
from shapely.geometry import shape

from wsol.slides import Box, Surface, contours, geojson, overlay_png, region_csv, score_regions, write_ome_tiff
from wsol.slides.heatmap import CONTOUR_COLOR, MASK_COLOR, heat_colors, round_length


@pytest.fixture
def ring():
    """A ring with a hole and, inside the hole, an island: (60, 80) cells."""
    yy, xx = np.mgrid[:60, :80]
    radius = np.hypot(yy - 29.5, xx - 39.5)
    return (((radius > 12) & (radius < 25)) | (radius < 4)).astype(np.float32) * 0.8


def read(path):
    features = json.loads(path.read_text())["features"]
    return [shape(f["geometry"]) for f in features], features


def test_geojson_holes_and_frame(ring, tmp_path):
    path = tmp_path / "x.geojson"
    frame = Box(1000, 2000, 800, 600)
    geojson(score_regions(ring, 0.4, frame=frame), path, classification="Tumor")
    polygons, features = read(path)
    polygons.sort(key=lambda p: p.area)
    assert [len(p.interiors) for p in polygons] == [0, 1]
    assert all(p.is_valid for p in polygons)
    assert sum(p.area for p in polygons) == pytest.approx((ring > 0).sum() * 100, rel=0.02)
    assert polygons[1].centroid.coords[0] == pytest.approx((1400, 2300), abs=1)
    assert features[0]["properties"]["classification"] == {"name": "Tumor", "color": [200, 0, 0]}
    assert features[0]["properties"]["objectType"] == "annotation"
    assert features[0]["properties"]["measurements"]["mean score"] == pytest.approx(0.8)
    assert [p.name for p in tmp_path.iterdir()] == ["x.geojson"]


def test_geojson_agrees_with_the_threshold_cell_by_cell(tmp_path):
    score = cv2.GaussianBlur(np.random.default_rng(0).random((40, 50), dtype=np.float32), (0, 0), 2)
    score = (score - score.min()) / (score.max() - score.min())
    frame = Box(7, 11, 50 * 16, 40 * 16)
    geojson(score_regions(score, 0.55, frame=frame), tmp_path / "x.geojson", classification="Tumor")
    union = shapely.union_all(read(tmp_path / "x.geojson")[0])
    rows, columns = np.mgrid[:40, :50]
    inside = shapely.contains_xy(union, 7 + (columns + 0.5) * 16, 11 + (rows + 0.5) * 16)
    np.testing.assert_array_equal(inside, score >= 0.55)


def test_geojson_at_the_threshold_is_inside(tmp_path):
    frame = Box(0, 0, 100, 50)
    geojson(score_regions(np.full((5, 10), 0.5, np.float32), 0.5, frame=frame), tmp_path / "x.geojson", classification="T")
    polygons, _ = read(tmp_path / "x.geojson")
    assert [p.bounds for p in polygons] == [(0, 0, 100, 50)]
    assert polygons[0].area == 5000


def test_geojson_empty_small_and_repeatable(ring, tmp_path):
    frame = Box(0, 0, 80, 60)
    geojson(score_regions(ring, 0.9, frame=frame), tmp_path / "none.geojson", classification="T")
    assert read(tmp_path / "none.geojson") == ([], [])
    assert len(score_regions(ring, 0.4, frame=frame, min_area=100)) == 1
    for name in ("a", "b"):
        geojson(score_regions(ring, 0.4, frame=frame), tmp_path / f"{name}.geojson", classification="T")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def smooth(shape, sigma, seed=0):
    score = cv2.GaussianBlur(np.random.default_rng(seed).random(shape, dtype=np.float32), (0, 0), sigma)
    return (score - score.min()) / (score.max() - score.min())


@pytest.mark.parametrize("block", [7, 16, 33])
def test_regions_do_not_know_the_blocks_they_were_followed_in(block, monkeypatch):
    score = smooth((60, 90), 3)
    frame = Box(100, 50, 90 * 8, 60 * 8)
    whole = score_regions(score, 0.5, frame=frame)
    monkeypatch.setattr(contours, "BLOCK", block)
    parts = score_regions(score, 0.5, frame=frame)
    assert len(parts) == len(whole) > 4
    assert sum(len(r.polygon.interiors) for r in parts) == sum(len(r.polygon.interiors) for r in whole) > 0
    for a, b in zip(parts, whole, strict=True):
        assert a.polygon.symmetric_difference(b.polygon).area < 1e-3 * b.polygon.area
        assert (a.mean, a.max) == pytest.approx((b.mean, b.max), abs=1e-6)


@pytest.mark.parametrize("threshold", [0.35, 0.5, 0.7])
def test_the_area_is_that_of_the_mask(threshold, tmp_path):
    cells = smooth((40, 50), 2)
    geojson(score_regions(cells, threshold, frame=Box(0, 0, 800, 640)), tmp_path / "x.geojson", classification="T")
    found, _ = read(tmp_path / "x.geojson")
    assert all(p.is_valid and p.geom_type == "Polygon" for p in found)
    fine = Surface(cells, (640, 800)).read((0, 640), (0, 800))  # the surface itself, px by px
    assert sum(p.area for p in found) == pytest.approx((fine >= threshold).sum(), rel=0.01)
    assert abs(ndimage.label(fine >= threshold)[1] - len(found)) <= 1  # saddles are cut or not
    assert any(p.interiors for p in found) == (threshold < 0.6)


def test_the_scores_of_a_region_are_those_of_its_px(monkeypatch):
    score = smooth((60, 90), 3)
    monkeypatch.setattr(contours, "BLOCK", 16)
    labels, count = ndimage.label(score >= 0.5)
    found = score_regions(score, 0.5, frame=Box(0, 0, 90, 60))
    parts = [score[labels == number] for number in range(1, count + 1)]
    expected = sorted((float(part.max()), float(part.mean())) for part in parts)
    np.testing.assert_allclose(sorted((r.max, r.mean) for r in found), expected, rtol=1e-6)


def test_the_smallest_region_is_around_one_center():
    score = np.zeros((5, 5), np.float32)
    score[2, 2] = 0.8
    (region,) = score_regions(score, 0.79, frame=Box(0, 0, 50, 50))
    assert region.polygon.centroid.coords[0] == pytest.approx((25, 25))
    assert region.polygon.area == pytest.approx(2 * (10 * 0.01 / 0.8) ** 2, rel=0.2)
    assert region.mean == region.max == pytest.approx(0.8)
    assert score_regions(score, 0.8, frame=Box(0, 0, 50, 50)) == []  # a point has no area


def test_a_row_per_region(ring, tmp_path):
    frame = Box(1000, 2000, 800, 600)
    found = score_regions(ring, 0.4, frame=frame)
    region_csv(found, tmp_path / "r.csv", mpp=0.5, classification="Tumor, high grade")
    geojson(found, tmp_path / "r.geojson", classification="Tumor")
    table = pd.read_csv(tmp_path / "r.csv")
    polygons, features = read(tmp_path / "r.geojson")
    byid = {f["id"]: p for f, p in zip(features, polygons, strict=True)}
    assert list(table["region"]) == [1, 2]
    assert table["area_mm2"].is_monotonic_decreasing
    assert set(table["class"]) == {"Tumor, high grade"}
    for row in table.itertuples():
        polygon = byid[row.id]
        assert row.area_mm2 == pytest.approx(polygon.area * 0.25 / 1e6, rel=1e-5)
        assert (row.x, row.y, row.x + row.width, row.y + row.height) == pytest.approx(polygon.bounds, abs=0.02)
        assert (row.mean_score, row.max_score, row.threshold) == (0.8, 0.8, 0.4)
    # the ring is 12 to 25 cells of 10 px from its center, at 0.5 um per px
    assert table["area_mm2"][0] == pytest.approx(np.pi * (25**2 - 12**2) * 100 * 0.25 / 1e6, rel=0.02)
    region_csv([], tmp_path / "none.csv", mpp=0.5, classification="Tumor")
    assert len(pd.read_csv(tmp_path / "none.csv")) == 0


@pytest.mark.parametrize(
    ("cells", "size", "shape"), [((7, 9), (70, 90), (65, 88)), ((13, 5), (13, 5), (13, 5)), ((40, 40), (17, 23), (17, 20))]
)
def test_a_surface_read_in_parts_is_the_resized_map(cells, size, shape):
    rng = np.random.default_rng(0)
    raw = rng.normal(size=cells).astype(np.float32)
    covered = rng.random(cells) < 0.7
    surface = Surface(raw, size, shape=shape, finish=lambda m: 1 / (1 + np.exp(-m)), coverage=covered)
    whole = 1 / (1 + np.exp(-cv2.resize(raw, size[::-1], interpolation=cv2.INTER_LINEAR)))
    y, x = (np.arange(n) * c // n for n, c in zip(size, cells, strict=True))
    whole[~covered[y][:, x]] = 0
    whole = whole[: shape[0], : shape[1]]
    np.testing.assert_allclose(surface.read((0, shape[0]), (0, shape[1])), whole, atol=2e-6)
    for _ in range(20):
        top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        bottom, right = rng.integers(top + 1, shape[0] + 1), rng.integers(left + 1, shape[1] + 1)
        np.testing.assert_allclose(surface.read((top, bottom), (left, right)), whole[top:bottom, left:right], atol=2e-6)


def test_a_surface_of_another_size_is_not_drawn_over_an_image(tmp_path):
    with pytest.raises(ValueError, match=r"has \(4, 4\) px .*\(8, 8\) are to be drawn"):
        overlay_png(np.zeros((8, 8, 3), np.uint8), Surface(np.zeros((2, 2)), (4, 4)), tmp_path / "x.png")


def test_ome_tiff_of_a_surface_is_that_of_its_px(tmp_path):
    cells = smooth((20, 30), 2)
    surface = Surface(cells, (515, 777))
    write_ome_tiff(surface, tmp_path / "a.ome.tiff", 4.0)
    write_ome_tiff(surface.read((0, 515), (0, 777)), tmp_path / "b.ome.tiff", 4.0)
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as a, tifffile.TiffFile(tmp_path / "b.ome.tiff") as b:
        for one, other in zip(a.series[0].levels, b.series[0].levels, strict=True):
            np.testing.assert_array_equal(one.asarray(), other.asarray())
        assert [level.shape for level in a.series[0].levels] == [(515, 777), (258, 389), (129, 195)]


@pytest.mark.parametrize("bad", [np.full((4, 4), np.nan), np.full((4, 4), 1.5), np.zeros((1, 4, 4))])
def test_unfinished_maps_are_refused(bad, tmp_path):
    for write in (
        lambda: score_regions(bad, 0.5, frame=Box(0, 0, 4, 4)),
        lambda: write_ome_tiff(bad, tmp_path / "x", 1.0),
        lambda: overlay_png(np.zeros((4, 4, 3), np.uint8), bad, tmp_path / "x"),
    ):
        with pytest.raises(ValueError, match=r"score"):
            write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("colors", [False, True])
def test_ome_tiff_opens_at_its_size(tmp_path, colors):
    score = cv2.resize(np.random.default_rng(0).random((20, 30), dtype=np.float32), (900, 600))
    score = np.clip(score, 0, 1)
    path = tmp_path / "m.ome.tiff"
    write_ome_tiff(score, path, 4.0, colors=colors)
    values = np.round(score * 255).astype(np.uint8)
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.dimensions == (900, 600)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(4.0)
        seen = np.asarray(slide.read_region((0, 0), 0, (900, 600)))[..., :3]
    np.testing.assert_array_equal(seen, heat_colors(score) if colors else np.repeat(values[..., None], 3, axis=2))
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        assert [level.shape[:2] for level in levels] == [(600, 900), (300, 450), (150, 225)]
        assert 'PhysicalSizeX="4.0"' in tiff.ome_metadata
        if not colors:
            mean = values.reshape(300, 2, 450, 2).mean(axis=(1, 3))
            assert np.abs(levels[1].asarray() - mean).max() <= 0.51


def test_ome_tiff_with_cells_that_are_not_square(tmp_path):
    write_ome_tiff(np.zeros((30, 40), np.float32), tmp_path / "m.ome.tiff", (4.0, 4.2), origin_um=(100.0, 50.0))
    with tifffile.TiffFile(tmp_path / "m.ome.tiff") as tiff:
        assert 'PhysicalSizeY="4.2"' in tiff.ome_metadata
        assert 'PositionX="100.0"' in tiff.ome_metadata
    with pytest.raises(ValueError, match="positive um"):
        write_ome_tiff(np.zeros((3, 4), np.float32), tmp_path / "m.ome.tiff", 0.0)


def test_overlay(ring, tmp_path):
    rgb = np.full((300, 400, 3), 240, np.uint8)
    mask = np.zeros((600, 800), bool)
    mask[100:300, 100:300] = True
    overlay_png(rgb, ring, tmp_path / "o.png", mask=mask, threshold=0.4, mpp=1.0)
    image = cv2.imread(str(tmp_path / "o.png"))[..., ::-1]
    assert image.shape[0] == 300
    assert image.shape[1] > 450  # the legend
    assert (image[:, :400] == MASK_COLOR).all(axis=-1).sum() > 300
    assert (image[:, :400] == CONTOUR_COLOR).all(axis=-1).sum() > 300
    warm, cold = image[150, 290].astype(int), image[10, 10].astype(int)
    assert warm[1] - warm[2] > 50  # viridis: yellow has no blue
    assert abs(cold[1] - cold[2]) < 20  # the gray of the slide shows through


def test_overlay_without_heat_or_legend_is_nearly_the_image(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    overlay_png(rgb, np.zeros((4, 5), np.float32), tmp_path / "o.png", legend=False, alpha=0.0)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "o.png"))[..., ::-1], rgb)


def test_what_no_map_covers_stays_as_it_is(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    covered = np.array([[True, False, False], [True, True, False]])
    surface = Surface(np.full((2, 3), 0.7, np.float32), (40, 60), coverage=covered)
    overlay_png(rgb, surface, tmp_path / "o.png", legend=False)
    same = (cv2.imread(str(tmp_path / "o.png"))[..., ::-1] == rgb).all(-1)
    blank = np.repeat(np.repeat(~covered, 20, 0), 20, 1)
    assert same[blank].all()
    assert same[~blank].mean() < 0.05


def test_tiny_image_has_no_room_for_a_legend(tmp_path):
    overlay_png(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2), np.float32), tmp_path / "o.png", threshold=0.5)
    assert cv2.imread(str(tmp_path / "o.png")).shape == (8, 8, 3)


@pytest.mark.parametrize(("limit", "length"), [(999, 500), (1000, 1000), (49, 20), (0.7, 0.5)])
def test_round_length(limit, length):
    assert round_length(limit) == pytest.approx(length)
