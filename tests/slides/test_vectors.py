"""Files of features as TRIDENT and CLAM lay them out are read alike, and ours are read by their rules."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from wsol.slides import Box, SlideError, open_slide, read_vectors, write_vectors

COORDS = np.array([[0, 0], [512, 0], [0, 512], [1536, 1024]])
FEATURES = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


def write(path, features=FEATURES, coords=COORDS, where="coords", **attributes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features
        placed = file.create_dataset("coords", data=coords)
        (placed if where == "coords" else file).attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("said", "side", "guessed"),
    [
        (
            {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20},
            512,
            False,
        ),  # TRIDENT
        ({"patch_size": 256, "patch_level": 1, "downsample": 2.0, "level_dim": (9, 9)}, 512, False),  # CLAM's patches
        ({"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}, 1024, False),
        ({"patch_size": 512, "patch_level": 0}, 512, False),
        ({}, 512, True),  # CLAM's features
    ],
)
@pytest.mark.parametrize("stacked", [False, True])
def test_layouts(tmp_path, said, side, guessed, stacked):
    path = write(tmp_path / "features_uni" / "a.h5", FEATURES[None] if stacked else FEATURES, **said)
    found = read_vectors(path)
    np.testing.assert_array_equal(found.coords, COORDS)
    np.testing.assert_array_equal(found.features(), FEATURES)
    np.testing.assert_array_equal(found.features(slice(1, 3)), FEATURES[1:3])
    assert (found.width, found.side, found.guessed) == (8, side, guessed)
    assert (found.encoder, found.mpp) == ("features_uni", None)
    assert found.size == (1536 + side, 1024 + side)


def test_ours_say_all_of_it(tmp_path):
    known = {"tile_px": 256, "side": 512, "mpp": 0.5, "level0_mpp": 0.25, "encoder": "net:abc", "name": "s1"}
    write_vectors(tmp_path / "s1.h5", iter([FEATURES[:3], FEATURES[3:]]), COORDS, **known)
    found = read_vectors(tmp_path / "s1.h5")
    assert (found.encoder, found.mpp, found.side, found.guessed) == ("net:abc", 0.25, 512, False)
    np.testing.assert_array_equal(found.features(), FEATURES)
    with h5py.File(tmp_path / "s1.h5") as file:  # what TRIDENT looks for
        assert file["features"].shape == (4, 8)
        assert file["coords"].attrs["patch_size_level0"] == 512
        assert file["coords"].attrs["patch_size"] == 256
    with pytest.raises(ValueError, match="features of 3 tiles for 4 coordinates"):
        write_vectors(tmp_path / "s2.h5", iter([FEATURES[:3]]), COORDS, **known)
    assert [p.name for p in tmp_path.iterdir()] == ["s1.h5"]


def test_alone_they_are_a_white_slide(tmp_path):
    path = write(tmp_path / "a.h5", patch_size_level0=512)
    with pytest.raises(SlideError, match="set the `mpp` column"):
        open_slide(path)
    with open_slide(path, mpp=0.25) as slide:
        assert (slide.size, slide.mpp) == ((2048, 1536), 0.25)
        assert (slide.read(Box(0, 0, 64, 32), 0.5) == 255).all()


def test_what_is_laid_out_otherwise_is_named(tmp_path):
    with pytest.raises(SlideError, match="no features at"):
        read_vectors(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(SlideError, match=r"text\.h5: cannot be read"):
        read_vectors(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["embeddings"] = FEATURES
    with pytest.raises(SlideError, match=r"features and coords of numbers expected, got \['embeddings \(float32\)'\]"):
        read_vectors(tmp_path / "other.h5")
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("features")
        file["coords"] = COORDS
    with pytest.raises(SlideError, match=r"got \['coords \(int64\)', 'features \(a group\)'\]"):
        read_vectors(tmp_path / "group.h5")
    with pytest.raises(SlideError, match=r"'features \(\|S1\)'\]"):
        read_vectors(write(tmp_path / "text.h5", np.array([[b"x"]] * 4)))
    with pytest.raises(SlideError, match=r"got \(4, 8\) and \(3, 2\)"):
        read_vectors(write(tmp_path / "less.h5", coords=COORDS[:3]))
    with pytest.raises(SlideError, match="nothing says how large a tile is"):
        read_vectors(write(tmp_path / "one.h5", FEATURES[:1], COORDS[:1]))
    whole = write(tmp_path / "whole.h5", patch_size_level0=512).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match=r"cut\.h5: cannot be read"):
        read_vectors(tmp_path / "cut.h5")
    bad = FEATURES.copy()
    bad[2, 3] = np.nan
    with pytest.raises(SlideError, match="1 features are not finite"):
        read_vectors(write(tmp_path / "nan.h5", bad, patch_size_level0=512)).features()
