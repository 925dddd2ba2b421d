from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsol.slides import Box, inside, open_region, read_annotations
from wsol.slides.annotations import PolygonRegion
from wsol.slides.polygons import rings_of, shares

SIZE = (200, 150)
OUTER = [[10, 10], [110, 10], [110, 90], [10, 90], [10, 10]]
HOLE = [[30, 30], [60, 30], [60, 60], [30, 60], [30, 30]]
BOWTIE = [[0, 0], [40, 40], [40, 0], [0, 40], [0, 0]]


def feature(rings, name="Tumor", kind="Polygon", **more):
    told = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": rings}, "properties": told, **more}


def geojson(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def asap(path, *annotations, groups=()):
    drawn = "".join(
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in points)
        + "</Coordinates></Annotation>"
        for name, kind, group, points in annotations
    )
    named = "".join(f'<Group Name="{name}" PartOfGroup="{parent}" />' for name, parent in groups)
    path.write_text(
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{drawn}</Annotations>'
        f"<AnnotationGroups>{named}</AnnotationGroups></ASAP_Annotations>"
    )
    return path


def ordered(points):
    return list(enumerate(points))


def test_qupath_polygon_with_hole_and_classes(tmp_path):
    path = geojson(
        tmp_path / "a.geojson",
        feature([OUTER, HOLE], id="one"),
        feature([[[[150, 0], [160, 0], [160, 10], [150, 10]]], [[[170, 0], [180, 0], [180, 10]]]], "Stroma", "MultiPolygon"),
        feature([OUTER], None),
        feature([[[0, 100], [20, 100], [20, 120]]], "Tumor: Necrosis"),
    )
    read = read_annotations(path)
    assert [(i.id, i.names) for i in read.items] == [
        ("one", ("Tumor",)), ("#2", ("Stroma",)), ("#3", ()), ("#4", ("Tumor: Necrosis", "Tumor")),
    ]  # fmt: skip
    assert [i.area.area for i in read.items] == [100 * 80 - 30 * 30, 100 + 50, 100 * 80, 200]
    assert read.repaired == []
    assert read.classes == ["Tumor", "Stroma", "Tumor: Necrosis"]
    assert read.region(["Tumor"]).geometry.area == 100 * 80 - 900 + 200
    assert read.region(["Tumor"], exclude=["Tumor: Necrosis"]).geometry.area == 100 * 80 - 900
    assert read.region().geometry.area == 100 * 80 + 150 + 200  # overlaps count once, the hole is filled by #3
    with pytest.raises(ValueError, match=r"a\.geojson: unknown class 'Tumour'; did you mean 'Tumor'"):
        read.region(["Tumour"])


def test_a_single_feature_and_an_empty_collection(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(feature([OUTER])))
    assert read_annotations(tmp_path / "one.json").region(["Tumor"]).geometry.area == 8000
    empty = read_annotations(geojson(tmp_path / "none.geojson"))
    assert empty.items == []
    region = empty.region(["Tumor"])
    assert not region.raster(Box(0, 0, 20, 20), (20, 20)).any()
    assert region.shares(np.array([[0, 0]]), 20).tolist() == [0]


def test_asap_groups_and_exclusion(tmp_path):
    square = [(0, 0), (100, 0), (100, 100), (0, 100)]
    path = asap(
        tmp_path / "tumor_001.xml",
        ("Annotation 0", "Polygon", "_0", ordered(square)),
        ("Annotation 1", "Spline", "_2", ordered([(20, 20), (40, 20), (40, 40), (20, 40)])),
        ("Annotation 2", "Polygon", "fine", ordered([(150, 0), (160, 0), (160, 10), (150, 10)])),
        ("Annotation 3", "Polygon", "None", ordered([(0, 120), (10, 120), (10, 130), (0, 130)])),
        groups=[("_0", "None"), ("_2", "None"), ("fine", "coarse"), ("coarse", "None")],
    )
    read = read_annotations(path)
    assert [i.names for i in read.items] == [("_0",), ("_2",), ("fine", "coarse"), ()]
    assert read.region(["_0"], exclude=["_2"]).geometry.area == 100 * 100 - 400
    assert read.region(["coarse"]).geometry.area == 100
    assert open_region(path, SIZE).shares(np.array([[0, 0], [20, 20]]), 20).tolist() == [1, 0]


def test_asap_points_come_in_their_stated_order_and_with_decimal_commas(tmp_path):
    points = [(3, ("0", "10,5")), (0, ("0", "0")), (2, ("10,5", "10,5")), (1, ("10,5", "0"))]
    path = asap(tmp_path / "a.xml", ("a", "Rectangle", "Tumor", points))
    assert read_annotations(path).region().geometry.area == pytest.approx(10.5**2)


def test_um_are_divided_by_mpp(tmp_path):
    path = geojson(tmp_path / "a.geojson", feature([OUTER]))
    area = read_annotations(path, unit="um", mpp=0.5).items[0].area
    assert area.bounds == (20, 20, 220, 180)
    with pytest.raises(ValueError, match="need mpp"):
        read_annotations(path, unit="um")
    with pytest.raises(ValueError, match="unknown unit 'mm'"):
        read_annotations(path, unit="mm")


def test_crossing_outlines_are_repaired_and_named(tmp_path):
    """A bow tie has two lobes of 400 px each; buffer(0) would lose one."""
    read = read_annotations(geojson(tmp_path / "a.geojson", feature([OUTER]), feature([BOWTIE], id="bow")))
    assert read.repaired == ["bow"]
    assert read.items[1].area.area == pytest.approx(800)
    assert read.items[1].area.is_valid
    spike = [[0, 0], [40, 0], [40, 40], [0, 40], [0, 0], [-30, 0], [0, 0]]  # a thread without area hangs on it
    read = read_annotations(geojson(tmp_path / "b.geojson", feature([spike])))
    assert (read.items[0].area.area, read.repaired) == (1600, ["#1"])


def test_what_is_no_area_is_refused_by_id(tmp_path):
    path = geojson(
        tmp_path / "a.geojson",
        feature([OUTER], id="good"),
        feature([[[0, 0], [5, 5], [0, 0]]], id="line"),
        feature([3, 4], kind="Point", id="dot"),
        feature([[[0, 0], [5, 5], [10, 10], [0, 0]]], id="flat"),
        feature([[[0, 0], [5, float("nan")], [10, 0]]], id="nan"),
        feature([["x"]], id="words"),
    )
    with pytest.raises(ValueError, match=r"5 of 6 annotations are no areas: line \(fewer than 3 points in a ring\), dot "
                       r"\(a Point\), flat \(no area\), nan \(a coordinate that is not finite\), words \(rings of"):  # fmt: skip
        read_annotations(path)
    path = asap(tmp_path / "a.xml", ("d", "Dot", "Tumor", ordered([(1, 1)])), ("t", "Polygon", "Tumor", ordered([("x", 1)] * 4)))
    with pytest.raises(ValueError, match=r"d \(a Dot\), t \(a coordinate that is not finite"):
        read_annotations(path)


def test_damaged_and_foreign_files(tmp_path):
    (tmp_path / "a.geojson").write_text('{"type": "Feature')
    with pytest.raises(RuntimeError, match=r"a\.geojson: not valid JSON"):
        read_annotations(tmp_path / "a.geojson")
    (tmp_path / "a.xml").write_text("<ASAP_Annotations><Annot")
    with pytest.raises(RuntimeError, match=r"a\.xml: not valid XML"):
        read_annotations(tmp_path / "a.xml")
    (tmp_path / "b.xml").write_text("<Annotations/>")
    with pytest.raises(ValueError, match="ASAP_Annotations expected, got Annotations"):
        read_annotations(tmp_path / "b.xml")
    (tmp_path / "c.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="FeatureCollection"):
        read_annotations(tmp_path / "c.json")
    with pytest.raises(FileNotFoundError, match="no annotations at"):
        read_annotations(tmp_path / "none.xml")
    (tmp_path / "m.png").write_bytes(b"")
    with pytest.raises(ValueError, match="for masks take `open_region`"):
        read_annotations(tmp_path / "m.png")


def blobs(seed, count=4):
    """Random star-shaped polygons, one with a hole."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        t = np.sort(rng.uniform(0, 2 * np.pi, 30))
        r, center = rng.uniform(10, 40, 30), rng.uniform(20, [180, 130])
        made.append(shapely.Polygon(center + r[:, None] * np.stack([np.cos(t), np.sin(t)], 1)).buffer(0))
    made[0] = made[0].difference(made[0].centroid.buffer(6))
    return PolygonRegion(shapely.union_all(made))


def by_points(region, box, shape):
    """The slow way: ask for each center."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x = box.x + (columns + 0.5) * box.width / shape[1]
    y = box.y + (rows + 0.5) * box.height / shape[0]
    return shapely.contains_xy(region.geometry, x, y)


@pytest.mark.parametrize("seed", range(5))
def test_raster_is_what_the_centers_say(seed):
    region = blobs(seed)
    for box, shape in ((Box(0, 0, *SIZE), (150, 200)), (Box(-20, 30, 128, 96), (24, 32)), (Box(10, 5, 99, 77), (30, 41))):
        np.testing.assert_array_equal(region.raster(box, shape), by_points(region, box, shape))


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 4), st.integers(-10, 190), st.integers(-10, 140), st.integers(1, 90), st.integers(1, 70))
def test_a_tile_is_a_slice_of_the_slide(seed, x, y, width, height):
    region = blobs(seed)
    whole = np.zeros((170 + 70, 220 + 90), bool)
    whole[10:160, 10:210] = region.raster(Box(0, 0, *SIZE), (150, 200))
    inside_slide = np.zeros_like(whole)
    inside_slide[10:160, 10:210] = True
    cut = np.s_[y + 10 : y + 10 + height, x + 10 : x + 10 + width]
    tile = region.raster(Box(x, y, width, height), (height, width))
    np.testing.assert_array_equal(tile & inside_slide[cut], whole[cut])


def test_a_coarse_tile_is_a_slice_of_the_coarse_slide():
    region = blobs(1)
    whole = region.raster(Box(0, 0, 192, 144), (36, 48))
    for x, y in ((0, 0), (64, 48), (128, 96)):
        tile = region.raster(Box(x, y, 64, 48), (12, 16))
        np.testing.assert_array_equal(tile, whole[y // 4 : y // 4 + 12, x // 4 : x // 4 + 16])


def test_corners_on_centers_belong_to_one_side_only():
    """Two squares that share an edge through px centers: every px is in one of them."""
    left, right = (np.array([[a, 0.5], [b, 0.5], [b, 4.5], [a, 4.5]]) for a, b in ((0.5, 3.5), (3.5, 6.5)))
    box = Box(0, 0, 8, 6)
    a, b = (inside([ring], box, (6, 8)) for ring in (left, right))
    assert not (a & b).any()
    expected = np.zeros((6, 8), bool)
    expected[0:4, 0:6] = True
    np.testing.assert_array_equal(a | b, expected)


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_areas(seed):
    region = blobs(seed)
    corners = np.stack(np.meshgrid(np.arange(0, 200, 16), np.arange(0, 150, 16)), -1).reshape(-1, 2)
    found = region.shares(corners, 16)
    exact = [region.geometry.intersection(shapely.box(x, y, x + 16, y + 16)).area / 256 for x, y in corners]
    np.testing.assert_allclose(found, exact, atol=1e-12)
    fine = [region.raster(Box(int(x), int(y), 16, 16), (160, 160)).mean() for x, y in corners]
    np.testing.assert_allclose(found, fine, atol=0.01)
    assert found.sum() * 256 == pytest.approx(region.geometry.intersection(shapely.box(0, 0, 208, 160)).area)


def test_shares_by_hand():
    triangle = shapely.Polygon([(0, 0), (10, 0), (0, 10)])
    np.testing.assert_allclose(shares(triangle, np.array([[0, 0], [5, 5], [0, 5], [-5, 0]]), 5), [1, 0, 0.5, 0], atol=1e-12)
    assert len(rings_of(shapely.GeometryCollection([triangle, shapely.Point(1, 1)]))) == 1


@pytest.fixture(scope="module")
def ids():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 4, (10, 14)), np.ones((16, 16), np.int64))[:150, :200].astype(np.uint8)


def written(path, ids):
    if path.suffix == ".png":
        cv2.imwrite(str(path), ids)
    elif path.stem == "palette":
        image = Image.fromarray(ids, mode="P")
        image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
        image.save(path, compression="tiff_lzw")
    else:
        tifffile.imwrite(path, ids, tile=(64, 64) if path.stem == "tiled" else None, compression="zlib")
    return path


@pytest.mark.parametrize("name", ["mask.png", "tiled.tif", "strips.tif", "palette.tiff"])
def test_masks_of_any_kind_give_their_ids(tmp_path, ids, name):
    region = open_region(written(tmp_path / name, ids), SIZE, values=[2, 3])
    wanted = np.zeros((190, 240), bool)
    wanted[20:170, 20:220] = (ids == 2) | (ids == 3)
    for x, y, width, height in ((0, 0, 200, 150), (-20, -20, 240, 190), (37, 61, 70, 50), (300, 0, 10, 10)):
        tile = region.raster(Box(x, y, width, height), (height, width))
        expected = wanted[y + 20 : y + 20 + height, x + 20 : x + 20 + width] if x < 200 else np.zeros((10, 10), bool)
        np.testing.assert_array_equal(tile, expected)
    assert (region._whole is None) == (name == "tiled.tif")
    counted = region.shares(np.array([[0, 0], [190, 140]]), 32)
    np.testing.assert_allclose(counted, [wanted[20:52, 20:52].mean(), wanted[160:192, 210:242].sum() / 32**2])
    all_ids = open_region(tmp_path / name, SIZE)
    np.testing.assert_array_equal(all_ids.raster(Box(0, 0, 200, 150), (150, 200)), ids > 0)


def test_a_smaller_mask_is_stretched(tmp_path):
    small = np.array([[0, 1], [1, 0], [0, 0]], np.uint8)
    cv2.imwrite(str(tmp_path / "m.png"), small)
    region = open_region(tmp_path / "m.png", (8, 12))
    np.testing.assert_array_equal(region.raster(Box(0, 0, 8, 12), (12, 8)), np.kron(small, np.ones((4, 4))) > 0)
    with pytest.raises(ValueError, match=r"2 x 3 px, the slide has 8 x 20 \(width x height\)"):
        open_region(tmp_path / "m.png", (8, 20))
    with pytest.raises(ValueError, match="export it again"):
        open_region(tmp_path / "m.png", (1, 2))


def test_masks_that_cannot_be_trusted_are_refused(tmp_path, ids):
    cv2.imwrite(str(tmp_path / "m.jpg"), ids)
    with pytest.raises(ValueError, match="JPEG changes the ids"):
        open_region(tmp_path / "m.jpg", SIZE)
    Image.fromarray(ids).save(tmp_path / "m.tif", compression="jpeg")
    with pytest.raises(ValueError, match="JPEG changes the ids"):
        open_region(tmp_path / "m.tif", SIZE)
    cv2.imwrite(str(tmp_path / "c.png"), np.random.default_rng(0).integers(0, 9, (150, 200, 3)))
    with pytest.raises(ValueError, match="its channels differ"):
        open_region(tmp_path / "c.png", SIZE)
    (tmp_path / "b.png").write_bytes((tmp_path / "c.png").read_bytes()[:200])
    with pytest.raises(RuntimeError, match=r"b\.png: cannot be read"):
        open_region(tmp_path / "b.png", SIZE)
    with pytest.raises(FileNotFoundError, match="no mask at"):
        open_region(tmp_path / "none.png", SIZE)


def test_a_mask_that_was_cut_off_says_so(tmp_path):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8), tile=(64, 64))
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(RuntimeError, match=r"m.tif: cannot be read .*copy it again"):
        open_region(path, (256, 256)).raster(Box(0, 0, 256, 256), (256, 256))


def test_a_hole_beyond_its_shell_only_takes_away(tmp_path):
    shell, apart, over = square(0, 0, 200), square(300, 0, 100), square(150, 0, 100)
    read = read_annotations(geojson(tmp_path / "a.geojson", feature([shell, apart]), feature([shell, over])))
    assert [item.area.area for item in read.items] == [200 * 200, 200 * 200 - 50 * 100]
    assert read.repaired == ["#1", "#2"]


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


@pytest.mark.parametrize(
    ("properties", "names"),
    [("x", ()), ({"classification": 5}, ()), ({"classification": {"names": None}}, ()), (None, ()),
     ({"classification": {"names": ["Tumor", "Necrosis"]}}, ("Tumor: Necrosis", "Tumor"))],
)  # fmt: skip
def test_odd_properties_are_no_class(tmp_path, properties, names):
    path = geojson(tmp_path / "a.geojson", {**feature([OUTER]), "properties": properties})
    assert read_annotations(path).items[0].names == names


def test_a_place_without_geometry_and_an_odd_order(tmp_path):
    path = geojson(tmp_path / "a.geojson", feature([OUTER]), {"type": "Feature", "id": "none", "geometry": None})
    with pytest.raises(ValueError, match=r"1 of 2 annotations are no areas: none \(a place without coordinates\)"):
        read_annotations(path)
    corners = [("0", ("0", "0")), ("1", ("8", "0")), ("2", ("8", "8")), ("x", ("0", "8"))]
    assert read_annotations(asap(tmp_path / "a.xml", ("a", "Polygon", "T", corners))).items[0].area.area == 64
