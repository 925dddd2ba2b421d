from __future__ import annotations

import numpy as np
import pytest

from wsol.data import image_shape, read_image


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_lossless_formats_come_back_exactly(picture, name):
    array = np.random.default_rng(1).integers(0, 256, (7, 9, 3), np.uint8)
    path = picture(name, array)
    assert (read_image(path) == array).all()
    assert read_image(path).flags.writeable
    assert image_shape(path) == (7, 9)


def test_gray_is_repeated_and_transparent_is_white(picture):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (read_image(picture("g.png", gray)) == gray[..., None]).all()
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    out = read_image(picture("t.png", rgba))
    assert out[0, 0].tolist() == [10, 20, 30]
    assert out[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg", "a.tif"])
def test_truncated_files_are_errors(picture, name, tmp_path):
    data = picture(name, shape=(200, 300)).read_bytes()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(RuntimeError, match=rf"cut-{name}: cannot be read .*copy it again"):
        read_image(cut)


def test_missing_and_deep_files(picture, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image at .*nowhere\.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="8 bits per channel"):
        read_image(picture("deep.png", np.zeros((3, 3), np.uint16)))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(RuntimeError, match=r"text\.png"):
        image_shape(tmp_path / "text.png")


def test_real_slide_and_data_reader_agree(shared_data):
    from wsol.slides import open_slide

    path = shared_data / "glas" / "images" / "train_1.png"
    with open_slide(path, mpp=0.62) as slide:
        assert (slide.thumbnail(0.62) == read_image(path)).all()
