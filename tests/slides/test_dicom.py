from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from wsol.slides import Box, open_slide
from wsol.slides.dicom import mislabeled, rgb_of_ybr


def test_colors_are_those_of_the_jpeg_frame(shared_data):
    """The header of these files says RGB, their frames are JFIF: libjpeg by itself is right."""
    path = shared_data / "slides" / "CMU-1-Small-Region-dicom" / "level-0-frames-0-30.dcm"
    data = path.read_bytes()
    start = data.find(b"\xff\xd8\xff")  # frame 0: 500 x 500 px
    frame = simplejpeg.decode_jpeg(data[start : data.find(b"\xff\xd9", start) + 2])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 500, 500), slide.mpp), frame)
        assert (slide.read(Box(-20, -20, 20, 20), slide.mpp) == 255).all()


def test_colors_are_those_of_the_same_slide_as_svs(shared_data):
    """Twice compressed, but of one color: through OpenSlide alone the means lie 100 and more apart."""
    folder = shared_data / "slides"
    box = Box(600, 900, 512, 512)
    with open_slide(folder / "CMU-1-Small-Region-dicom" / "level-1-frames-0-9.dcm") as dicom:
        ours = dicom.read(box, dicom.mpp).astype(int)
    with open_slide(folder / "CMU-1-Small-Region.svs") as svs:
        theirs = svs.read(box, svs.mpp).astype(int)
    assert np.abs(ours - theirs).mean() < 6
    assert np.abs((ours - theirs).mean(axis=(0, 1))).max() < 1


@pytest.mark.parametrize("quality", [30, 85, 100])
def test_ybr_as_libjpeg_converts_it(quality):
    """Every pixel of a JPEG without subsampling: Pillow can decode it with and without the transform."""
    rgb = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    stream = simplejpeg.encode_jpeg(rgb, quality=quality, colorsubsampling="444")
    with Image.open(io.BytesIO(stream)) as image:
        image.draft("YCbCr", None)
        ybr = np.asarray(image)
        assert image.mode == "YCbCr"
    np.testing.assert_array_equal(rgb_of_ybr(ybr), simplejpeg.decode_jpeg(stream))


def _dicom(path, frame):
    """Only what is looked at: the pixel data element with an empty table of offsets."""
    items = b"".join(b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in (b"", frame))
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + items)
    return path


def _jpeg(**options):
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file, "JPEG", **options)
    return file.getvalue()


def test_only_what_is_surely_ycbcr_counts(tmp_path):
    path = tmp_path / "a.dcm"
    assert mislabeled(_dicom(path, _jpeg(subsampling="4:4:4")), "RGB")  # JFIF
    assert not mislabeled(_dicom(path, _jpeg(subsampling="4:2:0")), "YBR_FULL_422")
    assert not mislabeled(_dicom(path, _jpeg(keep_rgb=True)), "RGB")
    bare = _jpeg(subsampling="4:2:0")
    bare = bare[:2] + bare[20:]  # without the JFIF segment
    assert b"JFIF" not in bare
    assert mislabeled(_dicom(path, bare), "RGB")
    bare = _jpeg(subsampling="4:4:4")
    assert not mislabeled(_dicom(path, bare[:2] + bare[20:]), "RGB")  # the header's word against a guess
    assert not mislabeled(_dicom(path, b"\xff\x4f\xff\x51 JPEG 2000"), "RGB")
    path.write_bytes(b"no pixel data here")
    assert not mislabeled(path, "RGB")
