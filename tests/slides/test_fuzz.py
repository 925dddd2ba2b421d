"""Slides damaged in hundreds of seeded ways: each gives a clean error or the right pixels, never a crash, a hang, or wrong ones.

Right means: a box whose stored bytes, and the tables they are decoded with, are as they were reads as it did. What a flipped bit
of a JPEG stream does to its own tile nobody can know, for the format has no checksum.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsol.slides import SlideError, open_slide

_HERE = Path(__file__)


def _beside(name):
    spec = importlib.util.spec_from_file_location(name, _HERE.with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzzing, jpeg_tiff = _beside("fuzzing"), _beside("jpeg_tiff")
APERIO = "Aperio Image Library v1\n448x320|AppMag = 20|MPP = 0.5"
PER_KIND = 6


def pyramid(path, rgb):
    with tifffile.TiffWriter(path) as tiff:
        for i in range(2):
            tags = {"resolution": (2e4 / 2**i,) * 2, "resolutionunit": "CENTIMETER", "metadata": None, "subfiletype": int(i > 0)}
            tiff.write(rgb[:: 2**i, :: 2**i], tile=(64, 64), compression="zlib", photometric="rgb", **tags)


def ome(path, rgb):
    size = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, rgb, tile=(64, 64), photometric="rgb", compression="zlib", metadata=size)


SOURCES = {
    "generic.tif": lambda path, rgb: jpeg_tiff.write_jpeg_tiff(path, rgb, levels=2),
    "aperio.svs": lambda path, rgb: jpeg_tiff.write_jpeg_tiff(path, rgb, levels=2, shared=True, description=APERIO),
    "deflate.tiff": pyramid,
    "channels.ome.tif": ome,
    "strips.tif": lambda path, rgb: Image.fromarray(rgb).save(path),
    "plain.png": lambda path, rgb: Image.fromarray(rgb).save(path),
    "plain.jpg": lambda path, rgb: Image.fromarray(rgb).save(path),
}


@pytest.fixture(scope="module")
def rgb():
    return cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (320, 448, 3), np.uint8), (0, 0), 2)


def verdicts(path, damaged, side):
    """(name of the damaged file, what is wrong with what was found) of all that are neither a clean error nor right."""
    (reference, *found), end = fuzzing.run([{"path": str(p), "mpp": 0.5, "side": side} for p in (path, *damaged)])
    assert "boxes" in reference, reference
    assert "SlideError" not in reference["boxes"].values()
    names = list(damaged)
    wrong = [(names[len(found)].name, end)] if len(found) < len(names) else []
    for one, ranges, seen in zip(names, damaged.values(), found, strict=False):
        if "error" in seen:
            if one.name not in seen["error"]:
                wrong.append((one.name, f"the message names no file: {seen['error']}"))
            continue
        claimed = {box for box, value in seen["boxes"].items() if value not in ("SlideError", reference["boxes"].get(box))}
        touched = fuzzing.touched(path, ranges, side, seen["facts"] != reference["facts"], reference["facts"]["size"])
        width, height = seen["facts"]["size"]
        for box in sorted(claimed - touched):
            x, y = (int(v) for v in box.split(",")) if "," in box else (0, 0)
            if x + side <= width and y + side <= height:  # else white beyond another edge
                wrong.append((one.name, f"box {box} reads other pixels; changed {ranges}; {seen['facts']}"))
    return wrong


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_phantoms(rgb, tmp_path, name):
    path = tmp_path / name
    SOURCES[name](path, rgb)
    damaged = {}
    for kind in fuzzing.KINDS:
        for seed in range(PER_KIND):
            data, ranges = fuzzing.damage(path.read_bytes(), kind, seed)
            one = tmp_path / f"{kind}{seed}-{name}"
            one.write_bytes(data)
            damaged[one] = ranges
    assert verdicts(path, damaged, 64) == []


def test_a_damaged_scan(shared_data, tmp_path):
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    damaged = {}
    for kind in fuzzing.KINDS:
        for seed in range(4):
            data, ranges = fuzzing.damage(path.read_bytes(), kind, seed)
            one = tmp_path / f"{kind}{seed}.svs"
            one.write_bytes(data)
            damaged[one] = ranges
    assert verdicts(path, damaged, 240) == []


def test_a_damaged_dicom_pyramid(shared_data, tmp_path):
    """One file of the folder is damaged, by turns in its header and anywhere."""
    files = sorted((shared_data / "slides" / "CMU-1-Small-Region-dicom").iterdir())
    damaged = {}
    for kind in ("cut", "flip", "zero", "noise"):
        for seed in range(4):
            victim, folder = files[seed % len(files)], tmp_path / f"{kind}{seed}"
            folder.mkdir()
            for file in files:
                (folder / file.name).symlink_to(file)
            data, ranges = fuzzing.damage(victim.read_bytes(), kind, seed)
            (folder / victim.name).unlink()
            (folder / victim.name).write_bytes(data)
            damaged[folder / files[0].name] = ranges
    assert verdicts(files[0], damaged, 720) == []


def test_the_harness_sees_crashes_hangs_and_wrong_pixels(rgb, tmp_path, monkeypatch):
    path = tmp_path / "plain.png"
    Image.fromarray(rgb).save(path)
    other = tmp_path / "other.png"
    Image.fromarray(255 - rgb).save(other)
    assert len(verdicts(path, {other: [(0, 1)]}, 64)) == 36  # 35 boxes and the whole
    job = {"path": str(path), "mpp": 0.5, "side": 64}
    found, end = fuzzing.run([job, {**job, "side": "a string"}])
    assert len(found) == 1
    assert "TypeError" in end or "exit 1" in end


def changed(path, values):
    """Writes whole numbers over the values of tags of the first directory, in place."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for code, value in values.items():
            tag = tiff.pages.first.tags[code]
            data[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = value.to_bytes(tag.valuebytecount, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("generic.tif", {256: 448 * 4}, "1792 x 320 px has 140 tiles of 64 x 64, but 35 places and 35 lengths"),
        ("generic.tif", {256: 320, 257: 448}, "level 1 is 224 x 160 px, of another shape than level 0, 320 x 448"),
        ("generic.tif", {259: 1}, "px in .* bytes without compression"),
        ("generic.tif", {322: 2**30}, "in tiles of 1073741824 x 64"),
        ("deflate.tiff", {284: 7}, "3 samples per px in color space 2, arranged in way 7"),
        ("deflate.tiff", {262: 1}, "3 samples per px in color space 1"),
        ("channels.ome.tif", {256: 320, 257: 448}, r"\(448, 320\) px by its OME-XML, \(320, 448\) by its pages"),
        ("strips.tif", {256: 400}, "400 x 320 px in 430080 bytes without compression"),
        ("strips.tif", {273: 4}, "said to lie where a directory lies"),
    ],
)
def test_contradictions_in_a_header_are_named(rgb, tmp_path, name, values, says):
    path = tmp_path / name
    SOURCES[name](path, rgb)
    changed(path, values)
    with pytest.raises(SlideError, match=says):
        open_slide(path, mpp=0.5)


def test_a_slide_larger_than_glass_is_refused(rgb, tmp_path):
    path = tmp_path / "plain.png"
    Image.fromarray(np.zeros((6000, 6000), np.uint8)).save(path)
    with open_slide(path, mpp=30.0) as slide:
        assert slide.size == (6000, 6000)
    with pytest.raises(SlideError, match="6000 x 6000 px of 50 um are 900 cm2, and no glass slide has over 500"):
        open_slide(path, mpp=50.0)


def test_a_flipped_bit_of_a_png_is_found(rgb, tmp_path):
    path = tmp_path / "plain.png"
    Image.fromarray(rgb).save(path)
    data = bytearray(path.read_bytes())
    data[-14] ^= 1  # in the checksum of the last data: decoding does not look at it
    path.write_bytes(data)
    with pytest.raises(SlideError, match="damaged, or cut off in copying"):
        open_slide(path, mpp=0.5)
