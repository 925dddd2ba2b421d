"""Masks as polygons give the numbers of the same masks as images, without an image of the slide's size being made."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsol.cli.config import Evaluate, Heatmap, Prepare
from wsol.cli.evaluate import evaluate
from wsol.cli.files import read_json, write_json
from wsol.cli.floors import fit_floors
from wsol.cli.heatmap import heatmap
from wsol.cli.prepare import prepare
from wsol.data import MapWriter, read_manifest, read_masks
from wsol.slides import Box

KEY = {"dataset": "tiny", "model": "gap", "checkpoint": "last", "fold": 0, "seed": 0, "set": "fast", "split": "test"}
WIDTH, HEIGHT = 96, 64
RING, HOLE = [(8, 4), (56, 4), (56, 40), (8, 40)], [(16, 8), (32, 8), (32, 24), (16, 24)]


def asap(ring, hole):
    def one(points, group, name):
        corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(points))
        return f'<Annotation Name="{name}" Type="Polygon" PartOfGroup="{group}"><Coordinates>{corners}</Coordinates></Annotation>'

    drawn = one(ring, "_0", "a") + one(hole, "_2", "b")
    return f"<ASAP_Annotations><Annotations>{drawn}</Annotations></ASAP_Annotations>"


def qupath(ring, hole):
    closed = [[*ring, ring[0]], [*hole, hole[0]]]
    shape = {"type": "Polygon", "coordinates": closed}
    other = {"type": "Polygon", "coordinates": [[(80, 40), (96, 40), (96, 64), (80, 64), (80, 40)]]}
    named = [(shape, "Tumor"), (other, "Stroma")]
    features = [{"type": "Feature", "geometry": g, "properties": {"classification": {"name": n}}} for g, n in named]
    return json.dumps({"type": "FeatureCollection", "features": features})


@pytest.fixture
def study(tmp_path):
    """Eight slides of 96 x 64 px; `kind` is how the mask of tumors is written. Their tumor is a rectangle with a hole."""

    def build(kind):
        root = tmp_path / kind
        root.mkdir()
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[4:40, 8:56] = 1
        mask[8:24, 16:32] = 0
        Image.fromarray(mask).save(root / "mask.png")
        tifffile.imwrite(root / "mask.tif", mask, tile=(16, 32), compression="zlib")
        (root / "mask.xml").write_text(asap(RING, HOLE))
        (root / "mask.geojson").write_text(qupath(RING, HOLE))
        rows = []
        for i, split in enumerate(["train", "train", "val", "val", "test", "test", "test", "test"]):
            pixels = np.random.default_rng(i).integers(100, 250, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(root / f"s{i}.png")
            label = ["normal", "tumor"][i % 2]
            rows.append([f"s{i}", f"s{i}.png", label, f"p{i}", split, 4.0, f"mask.{kind}" if label == "tumor" else ""])
        with open(root / "sheet.csv", "w", newline="") as file:
            csv.writer(file).writerows([["sample", "path", "label", "patient", "split", "mpp", "mask"], *rows])
        options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
        if kind == "geojson":
            options["mask_values"] = {"tumor": ["Tumor"]}
        prepare(Prepare(name="tiny", source="slides", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
        return root

    return build


def scored(root):
    generator = np.random.default_rng(0)
    for split in ("valcl", "test"):
        for row in read_manifest(root / "m.parquet").rows(0, split).itertuples(index=False):
            made = {"map_class": "positive", "methods": [{"id": "cam", "method": "cam", "options": {}}]}
            with MapWriter(root / split / f"{row.sample}.h5", made) as writer:
                values = generator.normal(row.label, 1, (8, 12)).astype(np.float32)
                writer.add("cam", row.sample, values, target=1, size=(HEIGHT, WIDTH), frame=Box(0, 0, WIDTH, HEIGHT))
                writer.predict(row.sample, [-2.0, 2.0] if row.label else [2.0, -2.0])
    write_json(root / "run.json", {"supervision": "slide label", "masks": 0})
    evaluate(
        Evaluate(bootstrap=20), manifest=root / "m.parquet", masks=root / "k.parquet", maps=root / "test",
        validation=root / "valcl", record=root / "run.json", key=KEY, scores=root / "scores.json",
        curves=root / "curves.parquet",
    )  # fmt: skip
    return read_json(root / "scores.json")


@pytest.mark.parametrize("kind", ["xml", "geojson", "tif"])
@pytest.mark.parametrize("banded", [False, True])
def test_the_same_numbers_as_from_an_image(study, kind, banded, monkeypatch):
    image, drawn = study("png"), study(kind)
    if banded:  # as masks of slides are read: band by band
        monkeypatch.setattr("wsol.cli.scoring.WHOLE_PX", 1000)
    one, two = scored(image), scored(drawn)
    assert one["methods"]["cam"]["groups"]["all"]["prevalence"] == (48 * 36 - 16 * 16) / (2 * WIDTH * HEIGHT)
    for scores in (one, two):
        del scores["provenance"], scores["methods"]["cam"]["seconds"]
    assert one == two
    assert two["masks_opened"] == {"validation": 1, "scored": 2}


def test_floors_and_overlays_see_polygons(study):
    fitted, pictures = [], []
    for root in (study("png"), study("xml")):
        scored(root)
        fit_floors(manifest=root / "m.parquet", masks=root / "k.parquet", out=root / "floors.json", fold=0, mpp=8.0)
        fitted.append(read_json(root / "floors.json")["regression"]["weight"])
        where = {"manifest": root / "m.parquet", "masks": root / "k.parquet", "maps": root / "test/s5.h5"}
        heatmap(Heatmap(mpp=4.0), scores=root / "scores.json", out=root / "pictures/index.json", **where)
        pictures.append((root / "pictures/cam.png").read_bytes())
    assert fitted[0] == pytest.approx(fitted[1])  # at half the size edges of this mask lie between px: both ways are the same
    assert pictures[0] == pictures[1]


def test_a_band_is_a_band_of_the_whole(study):
    root = study("xml")
    truth = read_masks(root / "k.parquet")
    whole = truth.open("s1", shape=(HEIGHT, WIDTH))
    assert (whole == np.asarray(Image.open(root / "mask.png"))).all()
    bands = truth.bands("s1", (HEIGHT, WIDTH))
    assert (bands.shape, bands.size) == ((HEIGHT, WIDTH), HEIGHT * WIDTH)
    assert (np.concatenate([bands[0:7], bands[7:50], bands[50:99], bands[70:80]]) == whole).all()
    part = truth.part("s1", (HEIGHT, WIDTH), Box(-8, 20, 40, 60), (60, 40))
    assert (part[:44, 8:] == whole[20:, :32]).all()
    assert not part[44:].any()
    assert not part[:, :8].any()
    with pytest.raises(ValueError, match=r"drawn in polygons and has no size of its own; give shape=\(H, W\)"):
        truth.open("s1")


@pytest.mark.parametrize("most", [16, 1 << 24])
def test_a_tiled_mask_is_read_in_parts(study, monkeypatch, most):
    root = study("tif")
    truth, whole = read_masks(root / "k.parquet"), np.asarray(Image.open(root / "mask.png")) > 0
    monkeypatch.setattr("wsol.slides.mask_region._BAND", most)
    monkeypatch.setattr("wsol.data.masks.read_mask", None)
    bands = truth.bands("s1", (HEIGHT, WIDTH))
    assert (np.concatenate([bands[0:7], bands[7:50], bands[50:99]]) == whole).all()
    small = truth.part("s1", (HEIGHT, WIDTH), Box(0, 0, WIDTH, HEIGHT), (HEIGHT // 2, WIDTH // 2))
    assert (small == whole[1::2, 1::2]).all()
    assert truth.opened == {"s1"}


def test_a_tiled_mask_of_another_size_is_refused(study):
    truth = read_masks(study("tif") / "k.parquet")
    with pytest.raises(ValueError, match="is 64 x 96 px"):
        truth.bands("s1", (2 * HEIGHT, 2 * WIDTH))


def test_a_hundred_thousand_px_wide_mask_is_never_held(study):
    """At level 0 it would take 10 GB; bands and parts of it take what they are."""
    truth, shape = read_masks(study("xml") / "k.parquet"), (100_000, 100_000)
    bands = truth.bands("s1", shape)
    assert bands[39:41].sum() == 48
    small = truth.part("s1", shape, Box(0, 0, 100_000, 100_000), (1000, 1000))
    assert small.shape == (1000, 1000)
    assert truth.part("s1", shape, Box(0, 0, 64, 48), (48, 64)).sum() == 48 * 36 - 16 * 16


def test_what_lies_beyond_the_slide_or_has_other_ids_is_no_empty_mask(study):
    truth = read_masks(study("xml") / "k.parquet")
    with pytest.raises(ValueError, match=r"nothing that .*mask.xml draws lies on it, 4 x 3 px .* `mask_unit: um`"):
        truth.region("s1", (4, 3))
    root = study("png")
    truth = read_masks(root / "k.parquet")
    truth.table.loc[truth.table["sample"] == "s1", "values"] = "[2, 3]"
    with pytest.raises(ValueError, match=r"holds the ids \[1\] and none of \[2, 3\], which `mask_values` says"):
        truth.open("s1")


def test_polygons_in_um(study, tmp_path):
    """At 4 um per px, coordinates are four times those in px."""
    root = study("xml")
    (root / "mask.xml").write_text(asap([(4 * x, 4 * y) for x, y in RING], [(4 * x, 4 * y) for x, y in HOLE]))
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"], "mask_unit": "um"}
    where = {"manifest": root / "m.parquet", "masks": root / "k.parquet"}
    prepare(Prepare(name="tiny", source="slides", options=options), **where)
    assert (read_masks(root / "k.parquet").open("s1", shape=(HEIGHT, WIDTH)) == np.asarray(Image.open(root / "mask.png"))).all()
    (root / "sheet.csv").write_text((root / "sheet.csv").read_text().replace(",4.0,", ",,"))
    with pytest.raises(
        ValueError, match=r"row 3: `mask_unit: um` is for polygons .* whose `mpp` the sheet has; got mask .*mask.xml, mpp nan"
    ):
        prepare(Prepare(name="tiny", source="slides", options=options), **where)
