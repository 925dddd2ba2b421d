"""Files of one slide, opened by those who will open them: OpenSlide, shapely, pandas."""

from __future__ import annotations

import json

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
from shapely.geometry import shape

from wsol.cli import scoring
from wsol.cli.heatmap import heatmap
from wsol.cli.prepare import prepare
from wsol.cli.schema import Heatmap, Prepare
from wsol.cli.scoring import Scale, laid, score, score_surface
from wsol.data import MapReader, MapWriter, StoredMap, read_manifest
from wsol.slides import Box

SCALES = [
    Scale("fitted", rectified=True, low=0.1, high=0.9),
    Scale("probability"),
    Scale("temperature", temperature=0.3),
    Scale("per-image"),
    Scale("per-slide", ranges={"s": (0.0, 1.0)}),
]


def smooth(size, seed=0):
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=size).astype(np.float32), (0, 0), 2.5)
    return field / field.std()


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.kind)
@pytest.mark.parametrize("seen", [(300, 405), (40, 61)])
def test_a_surface_read_in_parts_is_the_score(scale, seen):
    covered = np.random.default_rng(1).random((20, 30)) < 0.8
    stored = StoredMap(smooth((20, 30)), 1, Box(0, 0, 960, 640), (610, 905), covered, "whole", 0.0)
    whole = score(stored, scale, seen, "s")
    surface = score_surface(stored, scale, seen, "s")
    assert surface.shape == whole.shape
    for top, left in ((0, 0), (17, 5), (seen[0] - 1, seen[1] - 1)):
        part = surface.read((top, seen[0]), (left, seen[1]))
        np.testing.assert_allclose(part, whole[top:, left:], atol=3e-6)


def test_a_large_mask_is_counted_in_bands_of_rows(monkeypatch):
    stored = StoredMap(smooth((20, 30)), 1, Box(0, 0, 960, 640), (610, 905), None, "whole", 0.0)
    mask = np.random.default_rng(2).random((610, 905)) < 0.3
    ((whole, same),) = laid(stored, SCALES[0], mask)
    assert np.shares_memory(same, mask)
    np.testing.assert_array_equal(same, mask)
    monkeypatch.setattr(scoring, "WHOLE_PX", 905 * 4 * 70)
    parts = list(laid(stored, SCALES[0], mask))
    assert [len(values) for values, _ in parts] == [70] * 8 + [50]
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), mask)
    np.testing.assert_allclose(np.concatenate([values for values, _ in parts]), whole, atol=3e-6)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(folder of the files, the score at 4 um per px, the slide) of a made-up map of a phantom slide."""
    root = tmp_path_factory.mktemp("heatmap")
    options = {"slides": 6, "patients": 3, "size": 1100, "out": str(root / "slides")}
    prepare(Prepare(name="t", source="phantom", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    row = next(read_manifest(root / "m.parquet").rows(0, "test").itertuples(index=False))
    covered = np.ones((35, 35), bool)
    covered[:, 30:] = False
    with MapWriter(root / "maps.h5", {}) as writer:
        frame = Box(0, 0, 1120, 1120)  # 35 cells of 32 px, beyond the slide
        writer.add("cam", row.sample, smooth((35, 35)), target=1, frame=frame, size=(1100, 1100), coverage=covered)
    scale = Scale("fitted", low=-1.0, high=2.0)
    facts = {"samples": {}, "threshold": {"value": 0.5}, "scale": scale.to_dict(), "class": "tumor"}
    (root / "scores.json").write_text(json.dumps({"methods": {"cam": facts}}))
    heatmap(
        Heatmap(mpp=2.0), manifest=root / "m.parquet", masks=root / "k.parquet", maps=root / "maps.h5",
        scores=root / "scores.json", out=root / "out" / "index.json",
    )  # fmt: skip
    with MapReader(root / "maps.h5") as reader:
        seen = score(reader.read("cam", row.sample), scale, (275, 275), row.sample)
    return root / "out", seen, row


def test_the_index_names_what_is_there(drawn):
    folder, _, row = drawn
    files = json.loads((folder / "index.json").read_text())[row.sample]["cam"]
    assert files == {"overlay": "cam.png", "geojson": "cam.geojson", "ome_tiff": "cam.ome.tiff", "regions": "cam.csv"}
    assert sorted(p.name for p in folder.iterdir()) == sorted([*files.values(), "index.json"])


def test_the_pyramid_opens_in_openslide_at_its_size(drawn):
    folder, seen, _ = drawn
    with openslide.OpenSlide(str(folder / "cam.ome.tiff")) as slide:
        assert slide.dimensions == (275, 275)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2.0)
        values = np.asarray(slide.read_region((0, 0), 0, (275, 275)))[..., 0]
    assert np.abs(values - np.round(seen * 255)).max() <= 1


def test_regions_lie_where_the_score_is_high(drawn):
    folder, seen, _ = drawn
    features = json.loads((folder / "cam.geojson").read_text())["features"]
    polygons = [shape(f["geometry"]) for f in features]
    assert len(polygons) > 2
    assert all(p.is_valid for p in polygons)
    union = shapely.union_all(polygons)
    rows, columns = np.mgrid[:275, :275]
    inside = shapely.contains_xy(union, (columns + 0.5) * 4, (rows + 0.5) * 4)
    assert (inside != (seen >= 0.5)).mean() < 1e-3
    assert union.area == pytest.approx((seen >= 0.5).sum() * 16, rel=0.01)
    assert {f["properties"]["classification"]["name"] for f in features} == {"tumor (cam)"}


def test_the_table_has_a_row_per_region(drawn):
    folder, seen, _ = drawn
    table = pd.read_csv(folder / "cam.csv")
    features = json.loads((folder / "cam.geojson").read_text())["features"]
    assert set(table["id"]) == {f["id"] for f in features}
    assert table["area_mm2"].sum() == pytest.approx((seen >= 0.5).sum() * 4 / 1e6, rel=0.01)  # px of 2 um
    assert table["max_score"].max() == pytest.approx(seen.max(), abs=1e-4)
    weighted = (table["area_mm2"] * table["mean_score"]).sum() / table["area_mm2"].sum()
    assert weighted == pytest.approx(seen[seen >= 0.5].mean(), rel=0.01)


def test_the_overlay_is_the_slide_with_heat(drawn):
    picture = cv2.imread(str(drawn[0] / "cam.png"))
    assert picture.shape[0] == 275
    assert picture.shape[1] > 275  # the legend
