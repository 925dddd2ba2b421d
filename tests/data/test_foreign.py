from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping

from wsol.cams import finish
from wsol.data import read_foreign_map, register
from wsol.data.foreign_polygons import _fill
from wsol.evaluation import PixelCurve
from wsol.slides import Box, geojson, score_regions, write_ome_tiff

SIZE = (40, 60)
MASK = np.zeros(SIZE, bool)
MASK[8:24, 12:48] = True
MASK[12:16, 20:32] = False  # a hole


def feature(shape, name=None, **measurements):
    facts = {"objectType": "annotation", "measurements": measurements}
    if name is not None:
        facts["classification"] = {"name": name, "color": [200, 0, 0]}
    return {"type": "Feature", "geometry": mapping(shape), "properties": facts}


def collection(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


REGION = Polygon(box(12, 8, 48, 24).exterior, [box(20, 12, 32, 16).exterior])

WRITERS = {
    "f.npy": lambda path: np.save(path, MASK.astype(np.float64)),
    "b.npy": lambda path: np.save(path, MASK),
    "chw.npy": lambda path: np.save(path, MASK[None].astype(np.float16)),
    "hwc.npy": lambda path: np.save(path, MASK[..., None].astype(np.uint8)),
    "one.npz": lambda path: np.savez_compressed(path, anything=MASK),
    "map.npz": lambda path: np.savez(path, other=np.zeros(3), map=MASK),
    "8.png": lambda path: Image.fromarray(MASK.astype(np.uint8) * 255).save(path),
    "16.png": lambda path: cv2.imwrite(str(path), MASK.astype(np.uint16) * 65535),
    "1.png": lambda path: Image.fromarray(MASK).save(path),
    "8.tif": lambda path: tifffile.imwrite(path, MASK.astype(np.uint8) * 255, photometric="minisblack"),
    "16.tif": lambda path: tifffile.imwrite(path, MASK.astype(">u2") * 65535, byteorder=">", photometric="minisblack"),
    "float.tiff": lambda path: tifffile.imwrite(path, MASK.astype(np.float32), compression="zlib"),
    "lzw.tiff": lambda path: Image.fromarray(MASK.astype(np.uint8) * 255).save(path, compression="tiff_lzw"),
    "ours.ome.tiff": lambda path: write_ome_tiff(MASK.astype(np.float32), path, 1.0, tile=16),
    "region.geojson": lambda path: collection(path, feature(REGION)),
    "one.json": lambda path: path.write_text(json.dumps(feature(REGION, "Tumor"))),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_map_equal_to_the_mask_scores_one_through_every_format(name, tmp_path):
    WRITERS[name](tmp_path / name)
    found = read_foreign_map(tmp_path / name, size=SIZE)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, MASK)
    curve = PixelCurve()
    curve.add(register(found, SIZE), MASK)
    assert curve.result().pxap == 1.0


def test_whole_numbers_are_shares_of_their_type(tmp_path):
    values = np.array([[0, 1, 128, 255], [3, 200, 17, 99]])
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "b.png"), (values * 257).astype(np.uint16))
    tifffile.imwrite(tmp_path / "c.tif", (values * 257).astype(np.uint16), photometric="minisblack")
    for name in ("a.png", "b.png", "c.tif"):
        np.testing.assert_allclose(read_foreign_map(tmp_path / name), values / 255, rtol=1e-6)
    np.save(tmp_path / "d.npy", values)  # an array's numbers are themselves
    np.testing.assert_array_equal(read_foreign_map(tmp_path / "d.npy"), values)


def test_the_first_page_and_the_finest_level_are_read(tmp_path):
    pages = np.stack([np.full((30, 50), v, np.float32) for v in (0.25, 0.5)])
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    assert read_foreign_map(tmp_path / "pages.tif").shape == (30, 50)
    assert (read_foreign_map(tmp_path / "pages.tif") == 0.25).all()
    generator = np.random.default_rng(0)
    fine = generator.random((300, 500)).astype(np.float32)
    write_ome_tiff(fine, tmp_path / "pyramid.ome.tiff", 1.0, tile=64)
    with tifffile.TiffFile(tmp_path / "pyramid.ome.tiff") as tiff:
        assert len(tiff.series[0].levels) == 4
    np.testing.assert_allclose(read_foreign_map(tmp_path / "pyramid.ome.tiff"), fine, atol=0.5 / 255 + 1e-6)


def test_a_key_names_the_array(tmp_path):
    np.savez(tmp_path / "two.npz", low=np.zeros((2, 2)), high=np.ones((2, 3)))
    assert (read_foreign_map(f"{tmp_path}/two.npz#high") == np.ones((2, 3))).all()
    with pytest.raises(ValueError, match=r"several arrays \(low, high\) and none is called 'map'; name one: two\.npz#low"):
        read_foreign_map(tmp_path / "two.npz")
    with pytest.raises(ValueError, match="unknown array 'hihg'; did you mean 'high'"):
        read_foreign_map(f"{tmp_path}/two.npz#hihg")
    np.save(tmp_path / "a#b.npy", np.ones((2, 2)))  # a file that is really called so
    assert read_foreign_map(tmp_path / "a#b.npy").shape == (2, 2)
    np.save(tmp_path / "c.npy", np.ones((2, 2)))
    with pytest.raises(ValueError, match="#k names an array of an npz or"):
        read_foreign_map(f"{tmp_path}/c.npy#k")


BAD = {
    "nan.npy": (lambda p: np.save(p, np.array([[0.5, np.nan]])), ValueError, "1 of 2 values are NaN or infinite"),
    "inf.npz": (lambda p: np.savez(p, map=np.array([[np.inf, 1]])), ValueError, "1 of 2 values are NaN or infinite"),
    "big.npy": (lambda p: np.save(p, np.array([[1e300, 1]])), ValueError, "1 of 2 values are NaN or infinite"),
    "nan.tif": (lambda p: tifffile.imwrite(p, np.full((2, 2), np.nan, np.float32)), ValueError, "4 of 4 values are NaN"),
    "empty.npy": (lambda p: np.save(p, np.zeros((0, 4))), ValueError, r"empty, shape \(0, 4\)"),
    "pickle.npy": (lambda p: np.save(p, np.array([[{}]], object)), ValueError, r"pickled objects.*np\.save"),
    "pickle.npz": (lambda p: np.savez(p, map=np.array([[{}]], object)), ValueError, r"pickled objects.*np\.save"),
    "raw.npy": (lambda p: p.write_bytes(b"\x80\x04N."), ValueError, "pickled objects"),
    "cut.npy": (lambda p: (np.save(p, np.ones((9, 9))), p.write_bytes(p.read_bytes()[:200])), RuntimeError, "copy it again"),
    "cut.npz": (lambda p: (np.savez(p, map=np.ones((9, 9))), p.write_bytes(p.read_bytes()[:90])), RuntimeError, "copy it again"),
    "cut.png": (lambda p: (Image.new("L", (90, 90)).save(p), p.write_bytes(p.read_bytes()[:60])), RuntimeError, "copy it again"),
    "cut.tif": (lambda p: p.write_bytes(b"II*\0"), RuntimeError, "copy it again"),
    "line.npy": (lambda p: np.save(p, np.ones(5)), ValueError, r"\(h, w\) expected, got shape \(5,\)"),
    "rgb.npy": (lambda p: np.save(p, np.ones((4, 5, 3))), ValueError, "a colored heat map is not a map"),
    "two.npy": (lambda p: np.save(p, np.ones((2, 4, 5))), ValueError, "save the map of one class alone"),
    "complex.npy": (lambda p: np.save(p, np.ones((4, 5), complex)), ValueError, "real numbers expected, got complex128"),
    "rgb.png": (lambda p: Image.new("RGB", (4, 4)).save(p), ValueError, "mode RGB; a colored heat map is not a map"),
    "palette.png": (lambda p: Image.new("P", (4, 4)).save(p), ValueError, "mode P; a colored heat map is not a map"),
    "rgb.tif": (lambda p: tifffile.imwrite(p, np.zeros((4, 4, 3), np.uint8), photometric="rgb"), ValueError, "RGB; a colored"),
    "lzw.tif": (lambda p: Image.new("RGB", (4, 4)).save(p, compression="tiff_lzw"), ValueError, "RGB; a colored"),
    "32.tif": (lambda p: tifffile.imwrite(p, np.zeros((4, 4), np.int32)), ValueError, "8 or 16 bits .* got int32"),
    "inverted.tif": (
        lambda p: tifffile.imwrite(p, np.zeros((4, 4), np.uint8), photometric="miniswhite"), ValueError, "more is brighter"
    ),
    "a.jpg": (lambda p: Image.new("L", (4, 4)).save(p), ValueError, r"unknown kind of map file '\.jpg'"),
    "a.geojson": (lambda p: p.write_text("{"), RuntimeError, "not valid JSON"),
    "b.geojson": (lambda p: p.write_text('{"a": 1}'), ValueError, "a FeatureCollection of polygons expected"),
    "p.geojson": (lambda p: collection(p, feature(Point(1, 2))), ValueError, "polygons expected, got a Point"),
    "v.geojson": (lambda p: collection(p, feature(REGION, score=1.5)), ValueError, "polygon 1 has score 1.5; .* a value in"),
    "o.geojson": (lambda p: collection(p, feature(box(90, 90, 99, 99))), ValueError, "none of its 1 polygons .* level-0 px"),
    "c.geojson": (
        lambda p: collection(p, feature(REGION, "Tumor"), feature(REGION, "Stroma")), ValueError, "several classes .Stroma, Tumor"
    ),
    "m.geojson": (
        lambda p: collection(p, feature(REGION, score=0.5), feature(REGION)), ValueError, "polygon 2 has score nan"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_map_is_refused_by_name(name, tmp_path):
    write, error, message = BAD[name]
    write(tmp_path / name)
    with pytest.raises(error, match=message) as raised:
        read_foreign_map(tmp_path / name, size=SIZE)
    assert name in str(raised.value)


def test_a_missing_file_and_polygons_without_a_size(tmp_path):
    with pytest.raises(FileNotFoundError, match="no map at"):
        read_foreign_map(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="polygons have no size"):
        read_foreign_map(collection(tmp_path / "a.geojson", feature(REGION)))


def test_values_of_polygons(tmp_path):
    left, right = box(0, 0, 30, 40), box(20, 0, 60, 40)

    def read(*features, key=""):
        return read_foreign_map(f"{collection(tmp_path / 'p.geojson', *features)}{key}", size=SIZE)[0, [5, 25, 50]].tolist()

    at = [np.float32(v) for v in (0.25, 0.75, 0.75)]
    assert read(feature(left, "Tumor", Probability=0.25, area=9.0), feature(right, "Tumor", Probability=0.75, area=1.0)) == at
    assert read(feature(left, "0.25"), feature(right, "0.75")) == at  # bins of a probability as class names
    assert read(feature(left, mine=0.25), feature(right, mine=0.75), key="#mine") == at
    assert read(feature(left, mine=0.25), feature(right, mine=0.75)) == at  # the only measurement is what it says of an area
    with pytest.raises(ValueError, match=r"measurements mine, area, none called .*; name the one .*p\.geojson#mine"):
        read(feature(left, mine=0.25, area=9.0))
    assert read(feature(left, "Tumor"), feature(right, "Stroma"), key="#Tumor") == [1, 1, 0]
    assert read() == [0, 0, 0]  # nothing found is a map too
    with pytest.raises(ValueError, match="unknown measurement or class 'Tumour'; did you mean 'Tumor'"):
        read(feature(left, "Tumor"), key="#Tumour")
    old = feature(left)
    old["properties"]["measurements"] = [{"name": "score", "value": 0.5}]
    assert read(old) == [0.5, 0.5, 0]


def test_our_own_geojson_comes_back(tmp_path):
    score = np.zeros((10, 15), np.float32)
    score[2:6, 3:12] = 1.0
    geojson(score_regions(score, 0.5, frame=Box(0, 0, 60, 40)), tmp_path / "ours.geojson", classification="Tumor")
    found = read_foreign_map(tmp_path / "ours.geojson", size=SIZE) > 0
    inner = np.zeros(SIZE, bool)
    inner[10:22, 14:46] = True  # the bilinear contour rounds corners within a cell
    outer = np.zeros(SIZE, bool)
    outer[8:24, 12:48] = True
    assert found[inner].all()
    assert not found[~outer].any()


points = st.tuples(st.floats(-10, 70, width=32), st.floats(-10, 50, width=32))


@given(st.lists(points, min_size=3, max_size=9), st.lists(points, min_size=3, max_size=5))
def test_filling_is_the_even_odd_rule_at_centers(outline, hole):
    """Against shapely: inside the outline or the inner ring but not in both, for rings that do not cross themselves."""
    whole, inner = Polygon(outline), Polygon(hole)
    if not (whole.is_valid and inner.is_valid):
        return
    full = np.zeros(SIZE, np.float32)
    count = _fill(full, [np.array(outline), np.array(hole)], 0.5)
    columns, rows = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5)
    expected = shapely.contains_xy(whole, columns, rows) ^ shapely.contains_xy(inner, columns, rows)
    edges = shapely.union_all([whole.boundary, inner.boundary])
    sure = shapely.distance(shapely.points(columns, rows), edges) > 1e-4
    np.testing.assert_array_equal((full > 0)[sure], expected[sure])
    assert count == np.count_nonzero(full)


def test_polygons_in_pieces_and_beyond_the_image(tmp_path):
    pieces = MultiPolygon([box(-20, -5, 10, 10), box(30, 30, 90, 90)])
    found = read_foreign_map(collection(tmp_path / "p.geojson", feature(pieces)), size=SIZE)
    expected = np.zeros(SIZE, np.float32)
    expected[:10, :10] = expected[30:, 30:] = 1
    np.testing.assert_array_equal(found, expected)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=7), elements=st.floats(0, 1, width=32))
)
def test_laying_on_the_whole_image_is_what_finish_does(values):
    shape = (values.shape[0] * 5, values.shape[1] * 5)
    np.testing.assert_allclose(register(values, shape), finish(values, shape, normalize=None), atol=1e-6)


def test_half_resolution_keeps_the_place():
    mask = np.kron(MASK[::4, ::4], np.ones((4, 4), bool))  # edges on whole cells of 4 px
    half = mask[::2, ::2].astype(np.float32)
    laid = register(half, mask.shape)
    np.testing.assert_array_equal(laid >= 0.5, mask)
    np.testing.assert_allclose(laid.mean(), mask.mean(), atol=1e-6)  # centered cells: no shift to either side


def test_a_frame_says_which_part(tmp_path):
    part = np.arange(12, dtype=np.float32).reshape(3, 4) / 11
    laid = register(part, SIZE, frame=Box(10, 20, 4, 3))
    np.testing.assert_array_equal(laid[20:23, 10:14], part)
    assert np.count_nonzero(laid) == 11
    # A padded map: 64 x 96 px of frame around an image of 40 x 60 px, in cells of 8 px.
    cells = np.zeros((8, 12), np.float32)
    cells[:, 4:] = 1
    laid = register(cells, SIZE, frame=Box(0, 0, 96, 64))
    np.testing.assert_allclose(laid[:, 31:33].mean(), 0.5, atol=1e-6)  # the step stays at px 32
    over = np.arange(1, 17, dtype=np.float32).reshape(4, 4) / 16  # reaches beyond the corners
    expected = np.zeros(SIZE, np.float32)
    expected[:3, :2] = over[1:, 2:]
    np.testing.assert_array_equal(register(over, SIZE, frame=Box(-2, -1, 4, 4)), expected)
    expected[:] = 0
    expected[38:, 57:] = over[:2, :3]
    np.testing.assert_array_equal(register(over, SIZE, frame=Box(57, 38, 4, 4)), expected)
    with pytest.raises(ValueError, match=r"lies beside the image of 40 x 60 px"):
        register(part, SIZE, frame=Box(60, 0, 4, 3))


def test_another_shape_needs_a_frame():
    register(np.ones((100, 151), np.float32), (400, 600))
    with pytest.raises(
        ValueError, match=r"the map is 10 x 10 and the mask 40 x 60 .*differ in shape by 50 %.*x, y, width, height"
    ):
        register(np.ones((10, 10), np.float32), SIZE)
    assert register(np.ones((10, 10), np.float32), SIZE, frame=Box(0, 0, 60, 40)).all()
