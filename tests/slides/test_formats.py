"""One image in every format there is: the same pixels, the same resolution, or a clear word."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from wsol.slides import Box, SlideError, open_slide, write_ome_tiff

_spec = importlib.util.spec_from_file_location("jpeg_tiff", Path(__file__).with_name("jpeg_tiff.py"))
_jpeg_tiff = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_jpeg_tiff)
write_jpeg_tiff = _jpeg_tiff.write_jpeg_tiff

BOXES = [Box(0, 0, 100, 80), Box(-10, 700, 90, 100), Box(300, 200, 333, 77), Box(1000, 0, 50, 50), Box(2000, 0, 5, 5)]


def expected(rgb, box):
    """White around the image, by a pad wider than any box."""
    padded = np.pad(rgb, ((2500, 2500), (2500, 2500), (0, 0)), constant_values=255)
    return padded[box.y + 2500 : box.y + 2500 + box.height, box.x + 2500 : box.x + 2500 + box.width]


def check(path, rgb, mpp=0.5):
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(mpp)
        assert slide.size == rgb.shape[1::-1]
        for box in BOXES:
            np.testing.assert_array_equal(slide.read(box, slide.mpp), expected(rgb, box))
        coarse = cv2.resize(rgb[:400, :800], (100, 50), interpolation=cv2.INTER_AREA)
        if len(slide.downsamples) == 1:
            np.testing.assert_array_equal(slide.read(Box(0, 0, 800, 400), 8 * slide.mpp), coarse)
        return type(slide._reader).__name__


CM = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "metadata": None}
STRIPS = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "deflate": {"rowsperstrip": 50, "compression": "zlib"},
    "predictor": {"rowsperstrip": 50, "compression": "zlib", "predictor": True},
    "planes": {"rowsperstrip": 50, "planarconfig": "separate"},
    "big-endian": {"rowsperstrip": 50, "compression": "zlib", "byteorder": ">"},
}


def _write_strips(path, stained, how):
    options = {"photometric": "rgb", **CM, **STRIPS[how]}
    data = stained.transpose(2, 0, 1) if how == "planes" else stained
    tifffile.imwrite(path, data, **options)
    return path


@pytest.mark.parametrize("how", STRIPS)
@pytest.mark.parametrize("large", [False, True])
def test_images_in_strips(tmp_path, stained, monkeypatch, how, large):
    """Small ones are decoded whole, large ones strip by strip: the same pixels."""
    monkeypatch.setattr("wsol.slides.slide.MOST_PX", 10_000 if large else 2**25)
    monkeypatch.setattr("wsol.slides.tiffpages.STRIP_BYTES", 100_000)
    path = _write_strips(tmp_path / "s.tif", stained, how)
    assert openslide.OpenSlide.detect_format(path) is None
    assert check(path, stained) == ("TiffPages" if large else "Plain")


def test_gray_and_transparent_strips(tmp_path, stained, monkeypatch):
    monkeypatch.setattr("wsol.slides.slide.MOST_PX", 10_000)
    tifffile.imwrite(tmp_path / "gray.tif", stained[..., 1], photometric="minisblack", compression="zlib", **CM)
    check(tmp_path / "gray.tif", np.repeat(stained[..., 1:2], 3, axis=2))
    alpha = np.zeros((*stained.shape[:2], 1), np.uint8)
    alpha[:, 500:] = 255
    rgba = np.concatenate([stained, alpha], axis=2)
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], rowsperstrip=64, **CM)
    check(tmp_path / "rgba.tif", np.where(alpha > 0, stained, 255).astype(np.uint8))


def test_large_strips_without_a_decoder_go_to_pillow(tmp_path, stained, monkeypatch):
    monkeypatch.setattr("wsol.slides.slide.MOST_PX", 10_000)
    Image.fromarray(stained).save(tmp_path / "s.tif", compression="tiff_lzw", resolution=2e4, resolution_unit="cm")
    assert check(tmp_path / "s.tif", stained) == "Plain"


def test_a_single_level_is_read_coarsely_in_bounded_memory(tmp_path):
    """144 megapixels, 432 MB as RGB, in one strip: a thumbnail and a tile take less than 250 MB."""
    path = tmp_path / "huge.tif"
    tifffile.memmap(path, shape=(12_000, 12_000, 3), dtype=np.uint8, photometric="rgb", **CM)[-100:] = 200
    code = f"""
import resource, numpy as np
from wsol.slides import Box, open_slide
import tifffile, wsol.slides.tiffpages
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_slide({str(path)!r}) as slide:
    assert slide.downsamples == (1.0,)
    part = slide.read(Box(10_000, 11_850, 200, 200), 0.5)
    small = slide.thumbnail(50.0)  # 100 px become one
assert (part[:50] == 0).all() and (part[50:150] == 200).all() and (part[150:] == 255).all()
assert (small[:-1] == 0).all() and (small[-1] == 200).all() and small.shape == (120, 120, 3)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    spent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert spent.returncode == 0, spent.stderr
    assert float(spent.stdout) < 250


def _ome(path, data, axes, *, levels=1, unit="µm", size=0.5, **options):
    metadata = {"axes": axes, "PhysicalSizeX": size, "PhysicalSizeXUnit": unit, "PhysicalSizeY": size, "PhysicalSizeYUnit": unit}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(data, subifds=levels - 1, metadata=metadata, **options)
        for i in range(1, levels):
            half = cv2.resize(data, None, fx=2**-i, fy=2**-i, interpolation=cv2.INTER_AREA)
            tiff.write(half, subfiletype=1, metadata=None, **options)
    return path


OME = {
    "tiles": {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"},
    "strips": {"photometric": "rgb"},
    "predictor": {"photometric": "rgb", "tile": (128, 64), "compression": "zlib", "predictor": True},
}


@pytest.mark.parametrize("how", OME)
def test_ome_tiff_with_its_pyramid(tmp_path, stained, how):
    path = _ome(tmp_path / "s.ome.tif", stained, "YXS", levels=3, **OME[how])
    assert check(path, stained) == "TiffPages"
    with open_slide(path) as slide:
        assert slide.downsamples == (1.0, 2.0, 4.0)
        half = cv2.resize(stained, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(slide.read(Box(100, 60, 200, 120), 1.0), half[30:90, 50:150])


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_ome_tiff_of_three_channel_pages(tmp_path, stained, tile):
    """OpenSlide would show the red channel, in gray."""
    path = _ome(tmp_path / "s.ome.tif", stained.transpose(2, 0, 1), "CYX", photometric="minisblack", tile=tile)
    assert check(path, stained) == "TiffPages"


@pytest.mark.parametrize("kind", ["420", "444", "rgb", "gray"])
def test_ome_tiff_of_jpeg_tiles(tmp_path, stained, kind):
    """As QuPath writes them; OpenSlide decodes the same level 0."""
    sizes = 'SizeX="1024" SizeY="768" SizeZ="1" SizeT="1" Type="uint8" PhysicalSizeX="0.5" PhysicalSizeY="0.5"'
    samples = 1 if kind == "gray" else 3
    channel = f'<Channel ID="Channel:0:0" SamplesPerPixel="{samples}"/><TiffData/>'
    order = f'DimensionOrder="XYCZT" SizeC="{samples}"'
    pixels = f'<Pixels ID="Pixels:0" {order} {sizes}>{channel}</Pixels>'
    schema = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    xml = f'<?xml version="1.0"?><OME {schema}><Image ID="Image:0">{pixels}</Image></OME>'
    path = write_jpeg_tiff(tmp_path / "s.ome.tif", stained, kind=kind, shared=True, description=xml)
    with openslide.OpenSlide(path) as handle:
        pixels = np.asarray(handle.read_region((0, 0), 0, handle.dimensions).convert("RGB"))
    assert check(path, pixels) == "TiffPages"


def test_ome_tiff_of_planes_in_one_page(tmp_path, stained):
    path = _ome(tmp_path / "s.ome.tif", stained.transpose(2, 0, 1), "SYX", photometric="rgb", planarconfig="separate")
    assert check(path, stained) == "TiffPages"


@pytest.mark.parametrize(("unit", "size"), [("µm", 0.5), ("nm", 500), ("mm", 0.0005)])
def test_ome_units(tmp_path, stained, unit, size):
    check(_ome(tmp_path / "s.ome.tif", stained, "YXS", unit=unit, size=size, photometric="rgb"), stained)


def test_ome_stacks_and_deep_pixels_are_refused(tmp_path, stained):
    stack = np.stack([stained[..., 0]] * 4)
    with pytest.raises(SlideError, match=r"one plane of RGB or gray expected, got axes ZYX of \(4, 768, 1024\)"):
        open_slide(_ome(tmp_path / "z.ome.tif", stack, "ZYX", photometric="minisblack"))
    with pytest.raises(SlideError, match="got axes CYX"):
        open_slide(_ome(tmp_path / "c.ome.tif", stack, "CYX", photometric="minisblack"))
    with pytest.raises(SlideError, match="8 bit per channel expected, got uint16"):
        open_slide(_ome(tmp_path / "d.ome.tif", stained.astype(np.uint16), "YXS", photometric="rgb"))


def test_ome_without_a_size_asks_for_the_column(tmp_path, stained):
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, stained, photometric="rgb", metadata={"axes": "YXS"}, ome=True)
    with pytest.raises(SlideError, match="no resolution in the file; set the `mpp` column"):
        open_slide(path)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25


def test_our_own_heat_map_is_read_back(tmp_path):
    score = np.random.default_rng(0).random((300, 520)).astype(np.float32)
    write_ome_tiff(score, tmp_path / "map.ome.tif", 4.0)
    check(tmp_path / "map.ome.tif", np.round(score * 255).astype(np.uint8)[..., None].repeat(3, 2), mpp=4.0)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_cut_ome_tiff_is_refused(tmp_path, stained, share):
    path = _ome(tmp_path / "s.ome.tif", stained, "YXS", levels=3, **OME["tiles"])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(SlideError, match=r"s\.ome\.tif: .*copy it again"):
        open_slide(path, mpp=0.5)


@pytest.mark.parametrize("large", [False, True])
def test_a_cut_image_in_strips_is_refused(tmp_path, stained, monkeypatch, large):
    monkeypatch.setattr("wsol.slides.slide.MOST_PX", 10_000 if large else 2**25)
    path = _write_strips(tmp_path / "s.tif", stained, "strips")
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(SlideError, match=r"s\.tif: .*copy it again"):
        open_slide(path)


def test_a_damaged_strip_is_named_when_read(tmp_path, stained, monkeypatch):
    monkeypatch.setattr("wsol.slides.slide.MOST_PX", 10_000)
    path = _write_strips(tmp_path / "s.tif", stained, "deflate")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[offset : offset + 20] = bytes(20)
    path.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"strip or tile 3: .*copy it again"):
            slide.read(Box(0, 150, 10, 10), 0.5)
        np.testing.assert_array_equal(slide.read(Box(0, 200, 900, 50), 0.5), stained[200:250, :900])


def test_an_image_too_large_for_memory_says_how_to_go_on(tmp_path, stained, monkeypatch):
    Image.fromarray(stained).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SlideError, match=r"a\.png: too large to be decoded whole .*vips tiffsave"):
        open_slide(tmp_path / "a.png", mpp=0.5)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 500_000)  # Pillow would warn up to twice that
    with open_slide(tmp_path / "a.png", mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.thumbnail(0.5), stained)


def test_inches_of_a_plain_image_are_those_of_print(tmp_path, stained):
    Image.fromarray(stained).save(tmp_path / "a.tif", dpi=(25400, 25400))  # 1 um per px, if it were meant
    with pytest.raises(SlideError, match="no resolution in the file"):
        open_slide(tmp_path / "a.tif")


def test_sides_that_differ_ask_for_the_column(tmp_path, stained):
    options = {"photometric": "rgb", "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(tmp_path / "plain.tif", stained, resolution=(2e4, 4e4), **options)
    tifffile.imwrite(tmp_path / "tiled.tif", stained, resolution=(2e4, 4e4), tile=(64, 64), **options)
    for name in ("plain.tif", "tiled.tif"):
        with pytest.raises(SlideError, match=r"0\.5 um per px in x but 0\.25 in y; set the `mpp` column"):
            open_slide(tmp_path / name)
        with open_slide(tmp_path / name, mpp=0.5) as slide:
            assert slide.mpp == 0.5


@pytest.mark.parametrize("how", ["strips", "big-endian", "gray", "big-endian gray", "tiled", "png"])
def test_more_than_8_bits_are_refused_and_not_cut(tmp_path, stained, how):
    """Their upper half alone is black where 12 of 16 bits are used, and of bytes in the other order it is noise."""
    deep, path = stained.astype(np.uint16) * 16, tmp_path / ("s.png" if how == "png" else "s.tif")
    if how == "png":
        cv2.imwrite(str(path), deep)
    else:
        options = {"byteorder": ">" if "big" in how else "<", "tile": (64, 64) if how == "tiled" else None}
        gray = "gray" in how
        tifffile.imwrite(path, deep[..., 0] if gray else deep, photometric="minisblack" if gray else "rgb", **options)
    with pytest.raises(SlideError, match=r"8 (bit per channel )?expected"):
        open_slide(path, mpp=0.5)


@pytest.mark.parametrize(("dots", "mpp"), [(600, None), (50_800, 0.5)])
def test_inches_of_a_tiled_tiff_are_those_of_print_unless_they_are_fine(tmp_path, stained, dots, mpp):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, stained, tile=(64, 64), photometric="rgb", resolution=(dots, dots), resolutionunit="INCH")
    if mpp is None:
        with pytest.raises(SlideError, match="no resolution in the file; set the `mpp` column"):
            open_slide(path)
    else:
        assert open_slide(path).mpp == pytest.approx(mpp)
