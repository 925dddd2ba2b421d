"""Images that were cut from slides: by the sheet or by their names they become one sample per slide."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from wsol.data import check_splits, read_masks, write_manifest
from wsol.data.sources import tiles
from wsol.slides import Box, open_slide

CLASSES = ["normal", "tumor"]
COLORS = np.array([[200, 150, 180], [120, 60, 140], [90, 200, 90], [30, 30, 200]], np.uint8)


@pytest.fixture
def cut(tmp_path):
    """Six slides of two by two images of 32 px, image k of one color; odd slides are tumor, with masks on image 1."""

    def build(**changes):
        lines = ["sample,path,label,patient,slide,x,y,mpp,mask,split"]
        for i, split in enumerate(["train"] * 2 + ["val"] * 2 + ["test"] * 2):
            for k in range(4):
                x, y = 32 * (k % 2), 32 * (k // 2)
                path = tmp_path / f"slide{i}" / f"tile_{x}_{y}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(np.full((32, 32, 3), COLORS[k], np.uint8)).save(path)
                Image.fromarray(np.full((32, 32), k == 1, np.uint8)).save(tmp_path / f"slide{i}" / f"mask{k}.png")
                cells = {
                    "sample": f"s{i}/{k}", "path": f"slide{i}/{path.name}", "label": CLASSES[i % 2], "patient": f"p{i}",
                    "slide": f"s{i}", "x": x, "y": y, "mpp": 0.5, "mask": f"slide{i}/mask{k}.png" if i % 2 else "",
                    "split": split,
                }  # fmt: skip
                lines.append(",".join(str(v) for v in {**cells, **changes.get(f"s{i}/{k}", {})}.values()))
        sheet = tmp_path / "sheet.csv"
        sheet.write_text("\n".join(lines) + "\n")
        return sheet

    return build


@pytest.fixture
def folders(cut, tmp_path):
    """The same slides, listed as folders."""
    cut()
    lines = ["sample,path,label,patient,mpp,split"]
    for i, split in enumerate(["train"] * 2 + ["val"] * 2 + ["test"] * 2):
        lines.append(f"s{i},slide{i},{CLASSES[i % 2]},p{i},0.5,{split}")
    sheet = tmp_path / "folders.csv"
    sheet.write_text("\n".join(lines) + "\n")
    return sheet


PATTERN = r"tile_(?P<x>\d+)_(?P<y>\d+)\.png"


def whole():
    picture = np.empty((64, 64, 3), np.uint8)
    for k in range(4):
        picture[32 * (k // 2) :, 32 * (k % 2) :] = COLORS[k]
    return picture


def test_the_sheet_puts_slides_together(cut, tmp_path):
    found = tiles.dataset(cut(), CLASSES, tmp_path / "out")
    found.check()
    check_splits(found.samples, "patient")
    assert (found.kind, found.split_unit) == ("slides", "patient")
    rows = found.samples[found.samples["role"] != "valpx"].set_index("sample")
    assert list(rows.index) == [f"s{i}" for i in range(6)]
    assert list(rows["label"]) == [0, 1] * 3
    assert (rows["mpp"] == 0.5).all()
    with open_slide(rows.loc["s1", "path"], mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 64, 64), 0.5), whole())
    write_manifest(found, tmp_path / "m.parquet", tmp_path / "k.parquet")
    truth = read_masks(tmp_path / "k.parquet")
    assert [truth.kind(f"s{i}") for i in range(6)] == ["empty", "file"] * 3
    mask = truth.open("s1", shape=(64, 64))
    assert mask[:32, 32:].all()
    assert mask.sum() == 32 * 32
    listed = tiles.listing(cut(), CLASSES, tmp_path / "out")
    assert listed == found.samples.to_dict("records")


def test_names_put_slides_together(folders, tmp_path):
    found = tiles.dataset(folders, CLASSES, tmp_path / "out", pattern=PATTERN)
    for row in found.samples.itertuples():
        with open_slide(row.path) as slide:
            np.testing.assert_array_equal(slide.read(Box(0, 0, 64, 64), 0.5), whole())
    counted = tiles.dataset(folders, CLASSES, tmp_path / "out", pattern=PATTERN, step=2, coords_mpp=0.25)
    with open_slide(counted.samples["path"][0]) as slide:
        assert (slide.size, slide.mpp) == ((128, 128), 0.25)
        np.testing.assert_array_equal(slide.read(Box(0, 0, 128, 128), 0.5), whole())
    assert (counted.samples["mpp"] == 0.25).all()


def test_what_was_put_together_is_said(folders, tmp_path):
    (tmp_path / "slide1" / "tile_32_32.png").unlink()
    found = tiles.dataset(folders, CLASSES, tmp_path / "out", pattern=PATTERN)
    assert found.source.endswith(
        "folders.csv: 6 slides, each of 3 to 4 images, 64 px wide, 64 px high, 75 to 100 % covered, 32 px from image to image "
        "(level-0 px)"
    )


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r".*(?P<x>[0-9]+)_(?P<y>[0-9]+)\.png", r"tile_32_0\.png: pattern .* takes x=2 from 32: let something that is no digit"),
        (r".*_(?P<x>[0-9]+)_(?P<y>[0-9])[0-9]*\.png", r"tile_0_32\.png: pattern .* takes y=3 from 32"),
        (r".*_(?P<x>[0-9]+)?_(?P<y>[a-z0-9.]+)", r"tile_0_0\.png: pattern .* takes y='0\.png': a whole number from 0 expected"),
        (r"tile(?P<x>_[0-9]+)_(?P<y>[0-9]+)\.png", "takes x='_0'"),
        (r".*_(?P<x>5)?[0-9]+_(?P<y>[0-9]+)\.png", "takes x=None"),
    ],
)
def test_a_pattern_that_takes_no_whole_number_is_refused(folders, tmp_path, pattern, says):
    with pytest.raises(ValueError, match=says):
        tiles.dataset(folders, CLASSES, tmp_path / "out", pattern=pattern)


def test_numbers_of_fixed_length_may_touch(folders, tmp_path):
    for i in range(6):
        for x, y in ((0, 0), (32, 0), (0, 32), (32, 32)):
            (tmp_path / f"slide{i}" / f"tile_{x}_{y}.png").rename(tmp_path / f"slide{i}" / f"t{x:03d}{y:03d}.png")
    found = tiles.dataset(folders, CLASSES, tmp_path / "out", pattern=r"t(?P<x>[0-9]{3})(?P<y>[0-9]{3})\.png")
    with open_slide(found.samples["path"][0]) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 64, 64), 0.5), whole())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": 0, "y": 0}, r"slide 's1': .*tile_0_0\.png \(x 0, y 0\) and .*tile_0_32\.png \(x 0, y 0\) lie on each other"),
        ({"x": 7, "y": 7}, r"images of 32 x 32 px are cut at least 1/4 of that apart"),
        ({"x": 900000, "y": 900000}, r"with x 900000, y 900000 the slide has 900032 x 900032 px of 0\.5 um, 45 x 45 cm"),
        ({"x": 900000}, r"with x 900000, y 32 the slide has 900032 x 64 px"),
    ],
)
def test_places_that_cannot_be_right_are_refused(cut, tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        tiles.dataset(cut(**{"s1/2": change}), CLASSES, tmp_path / "out")


def test_any_positive_image_makes_a_positive_slide(cut, tmp_path):
    sheet = cut(**{"s2/3": {"label": "tumor", "mask": "slide2/mask1.png"}})
    with pytest.raises(ValueError, match=r"slide 's2': its images differ in label: \['0', '1'\].*label: any"):
        tiles.dataset(sheet, CLASSES, tmp_path / "out")
    found = tiles.dataset(sheet, CLASSES, tmp_path / "out", label="any")
    assert list(found.samples[found.samples["role"] != "valpx"]["label"]) == [0, 1, 1, 1, 0, 1]
    write_manifest(found, tmp_path / "m.parquet", tmp_path / "k.parquet")
    mask = read_masks(tmp_path / "k.parquet").open("s2", shape=(64, 64))
    assert mask[32:, 32:].all()
    assert mask.sum() == 32 * 32


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": ""}, "slide 's1': row 8 has no x or y"),
        ({"mpp": 1.0}, "its images differ in mpp"),
        ({"split": "test"}, "its images differ in split"),
        ({"mask": ""}, "row 8 is positive and has no mask, others have"),
        ({"slide": "s 1"}, r"slide 's 1': letters, digits"),
        ({"mask": "slide0/../sheet.png"}, "no mask at"),
    ],
)
def test_images_that_disagree_are_named(cut, tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        tiles.dataset(cut(**{"s1/2": change}), CLASSES, tmp_path / "out")


def test_what_cannot_be_put_together_says_why(cut, folders, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"row 2: no image below .*slide0 has a name like"):
        tiles.dataset(folders, CLASSES, out, pattern=r"(?P<x>\d+)-(?P<y>\d+)\.png")
    with pytest.raises(ValueError, match="groups named x and y expected"):
        tiles.dataset(folders, CLASSES, out, pattern=r"tile_(\d+)_(\d+)\.png")
    with pytest.raises(ValueError, match="no regular expression"):
        tiles.dataset(folders, CLASSES, out, pattern=r"tile_(")
    with pytest.raises(ValueError, match="did you mean 'any'"):
        tiles.dataset(cut(), CLASSES, out, label="anny")
    with pytest.raises(ValueError, match=r"row 2: no file at path .*slide0"):
        tiles.dataset(folders, CLASSES, out)
    with pytest.raises(ValueError, match=r"not below coords_mpp; got 0\.5 and 1"):
        tiles.dataset(cut(), CLASSES, out, coords_mpp=1.0)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "slide1" / "mask2.png")
    with pytest.raises(ValueError, match=r"mask2\.png is \(8, 8\) \(H, W\) px but its image .* is \(32, 32\)"):
        tiles.dataset(tmp_path / "sheet.csv", CLASSES, out)
