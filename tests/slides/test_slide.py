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

from wsol.slides import Box, SlideError, open_slide

_spec = importlib.util.spec_from_file_location("slides_conftest", Path(__file__).with_name("conftest.py"))
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
write_slide = _conftest.write_slide


def test_reads_level_0_exactly(slide_path, stained):
    with open_slide(slide_path) as slide:
        assert slide.size == (1024, 768)
        assert slide.mpp == pytest.approx(0.5)
        assert slide.downsamples == (1.0, 2.0, 4.0)
        np.testing.assert_array_equal(slide.read(Box(190, 90, 300, 200), 0.5), stained[90:290, 190:490])


def test_reads_at_a_coarser_mpp(slide_path, stained):
    with open_slide(slide_path) as slide:
        coarse = slide.read(Box(200, 100, 320, 160), 2.0)
    mean = stained[100:260, 200:520].reshape(40, 4, 80, 4, 3).mean(axis=(1, 3))
    assert coarse.shape == (40, 80, 3)
    assert np.abs(coarse - mean).max() <= 2  # the pyramid rounds twice


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.7, 1.0, 3.3])
def test_shape_follows_from_mpp(slide_path, mpp):
    box = Box(10, 20, 333, 111)
    with open_slide(slide_path) as slide:
        assert slide.read(box, mpp).shape == (round(111 * 0.5 / mpp), round(333 * 0.5 / mpp), 3) == (*slide.shape_at(box, mpp), 3)


@pytest.mark.parametrize("suffix", [".tiff", ".png"])
def test_outside_is_white(tmp_path, stained, suffix):
    path = tmp_path / f"s{suffix}"
    write_slide(path, stained) if suffix == ".tiff" else Image.fromarray(stained).save(path)
    with open_slide(path, mpp=0.5) as slide:
        patch = slide.read(Box(-32, 700, 64, 128), 0.5)
        far = slide.read(Box(5000, 5000, 8, 8), 0.5)
    np.testing.assert_array_equal(patch[:68, 32:], stained[700:, :32])
    assert (patch[:, :32] == 255).all()
    assert (patch[68:] == 255).all()
    assert (far == 255).all()


def test_strips_equal_one_read(slide_path, monkeypatch):
    with open_slide(slide_path) as slide:
        whole = slide.thumbnail(2.0)
        monkeypatch.setattr("wsol.slides.slide.MOST_PX", 10_000)
        np.testing.assert_array_equal(slide.thumbnail(2.0), whole)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_plain_images(tmp_path, stained, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(stained).save(path, **({"quality": 95} if suffix == ".jpg" else {}))
    with open_slide(path, mpp=0.62) as slide:
        assert slide.mpp == 0.62
        error = np.abs(slide.read(Box(0, 0, 1024, 768), 0.62).astype(int) - stained)
    assert error.mean() < (4 if suffix == ".jpg" else 1e-9)


def test_transparent_is_white(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", mpp=0.5) as slide:
        pixels = slide.thumbnail(0.5)
    assert (pixels[:4] == 0).all()
    assert (pixels[4:] == 255).all()


def test_no_mpp_names_the_column(tmp_path, stained):
    path = write_slide(tmp_path / "s.tiff", stained, mpp=None)
    with pytest.raises(SlideError, match=r"s\.tiff: .*set the `mpp` column"):
        open_slide(path)
    with pytest.raises(SlideError, match="`mpp` column"):
        open_slide(path, mpp=float("nan"))
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25


def test_absurd_mpp(tmp_path, stained):
    path = write_slide(tmp_path / "print.tiff", stained, mpp=25400 / 72)
    with pytest.raises(SlideError, match=r"352\.778 um per px is no microscope's"):
        open_slide(path)
    with pytest.raises(SlideError, match="0 um per px"):
        open_slide(path, mpp=0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_slide(tmp_path, slide_path, share):
    data = slide_path.read_bytes()
    path = tmp_path / "cut.tiff"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SlideError, match=r"cut\.tiff: .*(truncated|damaged).*copy it again"):
        open_slide(path)


def test_truncated_level_0_is_found_on_opening(tmp_path, stained):
    """OpenSlide hashes the coarsest level on opening, here the first in the file; it would find the cut only on reading there."""
    options = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "s.tiff") as tiff:
        tiff.write(np.ascontiguousarray(stained[::4, ::4]), subfiletype=1, **options)
        tiff.write(stained, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **options)
    data = (tmp_path / "s.tiff").read_bytes()
    (tmp_path / "cut.tiff").write_bytes(data[: int(len(data) * 0.9)])
    openslide.OpenSlide(str(tmp_path / "cut.tiff")).close()
    with pytest.raises(SlideError, match=rf"truncated: its tiles .* the file ends at {int(len(data) * 0.9)}"):
        open_slide(tmp_path / "cut.tiff", mpp=0.5)


def test_truncated_image(tmp_path, stained):
    Image.fromarray(stained).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(SlideError, match=r"a\.png: cannot be read"):
        open_slide(tmp_path / "a.png", mpp=0.5)


def test_damaged_tile_is_named_when_read(tmp_path, slide_path):
    data = bytearray(slide_path.read_bytes())
    data[len(data) // 8 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 8)
    path = tmp_path / "holes.tiff"
    path.write_bytes(data)
    with pytest.raises(SlideError, match=r"holes\.tiff"), open_slide(path, mpp=0.5) as slide:
        slide.read(Box(0, 0, *slide.size), 0.5)


def test_not_a_slide(tmp_path):
    (tmp_path / "notes.svs").write_text("not a slide")
    with pytest.raises(SlideError, match="no slide format"):
        open_slide(tmp_path / "notes.svs")
    with pytest.raises(FileNotFoundError, match="sample sheet"):
        open_slide(tmp_path / "gone.svs")


def test_closed_slide(slide_path):
    with open_slide(slide_path) as slide:
        pass
    slide.close()
    with pytest.raises(ValueError, match="is closed"):
        slide.thumbnail(8.0)


def test_box_and_mpp_are_checked(slide_path):
    with pytest.raises(ValueError, match="positive width"):
        Box(0, 0, 0, 5)
    with open_slide(slide_path) as slide, pytest.raises(ValueError, match="um per px"):
        slide.read(Box(0, 0, 10, 10), 0.0)


def test_real_slide(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        assert slide.size == (2220, 2967)
        assert slide.mpp == pytest.approx(0.499)
        fine, coarse = slide.read(Box(800, 800, 400, 400), slide.mpp), slide.read(Box(800, 800, 400, 400), 2 * slide.mpp)
    np.testing.assert_array_equal(coarse, cv2.resize(fine, (200, 200), interpolation=cv2.INTER_AREA))


def test_real_dicom_pyramid(shared_data):
    files = sorted((shared_data / "slides" / "CMU-1-Small-Region-dicom").rglob("*.dcm"))
    with open_slide(files[0]) as dicom, open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as svs:
        assert dicom.mpp == pytest.approx(svs.mpp, rel=0.01)
        assert len(dicom.downsamples) > 1


def test_face_imports_no_reader():
    code = "import sys, wsol.slides; print(sorted({'openslide', 'cv2', 'torch', 'pandas', 'skimage'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_face_has_everything():
    import wsol.slides

    for name in wsol.slides.__all__:
        assert not isinstance(getattr(wsol.slides, name), type(sys)), name


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_a_cut_pyramid_is_not_taken_for_a_plain_image_when_mpp_is_given(tmp_path, share):
    """Its first level may still be whole: OpenSlide refuses it, and a plain TIFF reader would open it without a word."""
    from wsol.data.sources.phantom_tiff import write_pyramid

    write_pyramid(np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), dtype=np.uint8), tmp_path / "whole.tiff", 0.5)
    whole = (tmp_path / "whole.tiff").read_bytes()
    (tmp_path / "cut.tiff").write_bytes(whole[: int(len(whole) * share)])
    with open_slide(tmp_path / "whole.tiff", mpp=0.5) as slide:
        assert slide.size == (1024, 1024)
    with pytest.raises(SlideError, match=r"cut\.tiff: .*(truncated|damaged)"):
        open_slide(tmp_path / "cut.tiff", mpp=0.5)
