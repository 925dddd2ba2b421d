from __future__ import annotations

import json

import cv2
import numpy as np
import openslide
import pytest
import shapely
import tifffile
from shapely.geometry import shape

from wsol.slides import Box, geojson, overlay_png, write_ome_tiff
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
    assert geojson(ring, 0.4, frame=frame, classification="Tumor", path=path) == 2
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
    geojson(score, 0.55, frame=frame, classification="Tumor", path=tmp_path / "x.geojson")
    union = shapely.union_all(read(tmp_path / "x.geojson")[0])
    rows, columns = np.mgrid[:40, :50]
    inside = shapely.contains_xy(union, 7 + (columns + 0.5) * 16, 11 + (rows + 0.5) * 16)
    np.testing.assert_array_equal(inside, score >= 0.55)


def test_geojson_at_the_threshold_is_inside(tmp_path):
    frame = Box(0, 0, 100, 50)
    geojson(np.full((5, 10), 0.5, np.float32), 0.5, frame=frame, classification="T", path=tmp_path / "x.geojson")
    polygons, _ = read(tmp_path / "x.geojson")
    assert [p.bounds for p in polygons] == [(0, 0, 100, 50)]
    assert polygons[0].area == 5000


def test_geojson_empty_small_and_repeatable(ring, tmp_path):
    frame = Box(0, 0, 80, 60)
    assert geojson(ring, 0.9, frame=frame, classification="T", path=tmp_path / "none.geojson") == 0
    assert read(tmp_path / "none.geojson") == ([], [])
    assert geojson(ring, 0.4, frame=frame, classification="T", path=tmp_path / "a.geojson", min_area=100) == 1
    geojson(ring, 0.4, frame=frame, classification="T", path=tmp_path / "b.geojson", min_area=100)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


@pytest.mark.parametrize("bad", [np.full((4, 4), np.nan), np.full((4, 4), 1.5), np.zeros((1, 4, 4))])
def test_unfinished_maps_are_refused(bad, tmp_path):
    for write in (
        lambda: geojson(bad, 0.5, frame=Box(0, 0, 4, 4), classification="T", path=tmp_path / "x"),
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
    assert warm[0] - warm[2] > 60
    assert cold[0] - cold[2] < 20


def test_overlay_without_heat_or_legend_is_nearly_the_image(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    overlay_png(rgb, np.zeros((4, 5), np.float32), tmp_path / "o.png", legend=False, alpha=0.0)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "o.png"))[..., ::-1], rgb)


def test_tiny_image_has_no_room_for_a_legend(tmp_path):
    overlay_png(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2), np.float32), tmp_path / "o.png", threshold=0.5)
    assert cv2.imread(str(tmp_path / "o.png")).shape == (8, 8, 3)


@pytest.mark.parametrize(("limit", "length"), [(999, 500), (1000, 1000), (49, 20), (0.7, 0.5)])
def test_round_length(limit, length):
    assert round_length(limit) == pytest.approx(length)
