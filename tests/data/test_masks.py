from __future__ import annotations

import numpy as np
import pytest

from wsol.data import read_masks, write_manifest
from wsol.data.manifest import masks_table
from wsol.data.pixels import read_mask

IDS = np.array([[0, 1, 2], [5, 2, 0]], np.uint8)


@pytest.fixture
def masks(tmp_path, dataset, picture):
    def build(values=(), name="s3_mask.png", array=IDS):
        path = picture(name, array)
        table = masks_table(
            [
                {"sample": "s3", "mask": str(path), "kind": "file", "values": list(values)},
                {"sample": "s4", "mask": "", "kind": "empty", "values": []},
            ]
        )
        write_manifest(dataset(masks=table), tmp_path / "manifest.parquet", tmp_path / "masks.parquet")
        return read_masks(tmp_path / "masks.parquet")

    return build


def test_values_say_what_is_foreground(masks):
    assert (masks().open("s3") == (IDS > 0)).all()
    assert (masks([2, 5]).open("s3") == np.isin(IDS, [2, 5])).all()


def test_known_empty_has_the_shape_asked_for(masks):
    found = masks()
    assert found.kind("s4") == "empty"
    empty = found.open("s4", shape=(4, 7))
    assert empty.shape == (4, 7)
    assert empty.dtype == bool
    assert not empty.any()
    with pytest.raises(ValueError, match="give shape"):
        found.open("s4")


def test_no_mask_is_not_an_empty_mask(masks):
    found = masks()
    assert found.samples == ["s3", "s4"]
    assert not found.has("s0")
    with pytest.raises(ValueError, match="'s0' has no mask"):
        found.open("s0", shape=(2, 3))


def test_missing_file_is_an_error_never_an_empty_mask(masks, tmp_path):
    found = masks()
    (tmp_path / "s3_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"'s3'.*s3_mask\.png is missing"):
        found.open("s3", shape=(2, 3))


def test_wrong_size_names_both(masks):
    with pytest.raises(ValueError, match=r"'s3'.*2 x 3 px.*4 x 3 is expected"):
        masks().open("s3", shape=(4, 3))


def test_opened_masks_are_recorded(masks):
    found = masks()
    found.has("s3")
    assert found.opened == set()
    found.open("s3")
    assert found.opened == {"s3"}


@pytest.mark.parametrize("name", ["m.png", "m.bmp", "m.tif"])
def test_formats_keep_ids(picture, name):
    assert (read_mask(picture(name, IDS)) == IDS).all()


def test_palette_rgb_and_wide_ids(tmp_path, picture):
    from PIL import Image

    palette = Image.fromarray(IDS).convert("P")
    palette.putdata(IDS.ravel().tolist())
    palette.putpalette([200, 10, 10] * 256)
    palette.save(tmp_path / "p.png")
    assert (read_mask(tmp_path / "p.png") == IDS).all()
    assert (read_mask(picture("rgb.png", np.repeat(IDS[..., None], 3, 2))) == IDS).all()
    wide = IDS.astype(np.uint16) * 300
    assert (read_mask(picture("wide.png", wide)) == wide).all()
    assert (read_mask(picture("bits.png", IDS > 1)) == (IDS > 1)).all()


def test_lossy_and_colored_masks_are_refused(picture):
    with pytest.raises(ValueError, match="JPEG changes the ids"):
        read_mask(picture("m.jpg", IDS))
    with pytest.raises(ValueError, match="channels differ"):
        read_mask(picture("c.png", np.random.default_rng(0).integers(0, 9, (4, 4, 3), np.uint8)))


def test_a_large_mask_is_no_bomb(picture, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    assert read_mask(picture("m.png", IDS)).shape == (2, 3)
    assert Image.MAX_IMAGE_PIXELS == 2
