from __future__ import annotations

import h5py
import numpy as np
import pytest

from wsol.data import MapReader, MapWriter
from wsol.slides import Box

RAW = np.array([[-1.5, 0.0, 2.0], [3.0, -4.0, 0.25]], np.float32)


def write(path, *entries, **common):
    with MapWriter(path, {"model": "m", "methods": [{"id": "cam"}]}) as writer:
        for method, sample, array in entries:
            writer.add(method, sample, array, target=1, size=(64, 96), **common)
    return path


def test_round_trip(tmp_path):
    coverage = np.array([[True, False, True], [True, True, False]])
    path = tmp_path / "deep" / "maps.h5"
    with MapWriter(path, {"model": "m", "list": [1, 2]}) as writer:
        writer.add(
            "grad-cam", "a", RAW, target=1, frame=Box(-3, 0, 96, 64), size=(64, 96), coverage=coverage, drawn="tile", seconds=0.5
        )
        writer.add("cam", "a", RAW * 2, target=0, size=(64, 96))
        writer.predict("a", [0.1, -0.2])
    with MapReader(path) as reader:
        assert reader.provenance == {"model": "m", "list": [1, 2]}
        assert reader.methods == ["grad-cam", "cam"]  # as added
        found = reader.read("grad-cam", "a")
        assert found.array.dtype == np.float32
        assert (found.array == RAW).all()
        assert (found.coverage == coverage).all()
        assert (found.target, found.frame, found.size, found.drawn, found.seconds) == (
            1,
            Box(-3, 0, 96, 64),
            (64, 96),
            "tile",
            0.5,
        )
        plain = reader.read("cam", "a")
        assert (plain.frame, plain.coverage, plain.drawn) == (None, None, "whole")
        assert np.isnan(plain.seconds)
        assert reader.logits("a").tolist() == np.array([0.1, -0.2], np.float32).tolist()


@pytest.mark.parametrize("sample", ["a/b", "train_1", "ü %2F.tif", ".", "..", "a@2x3"])
def test_any_sample_name(tmp_path, sample):
    path = write(tmp_path / "m.h5", ("cam", sample, RAW), ("cam", "zz", RAW), coverage=np.ones((2, 3), bool))
    with MapReader(path) as reader:
        assert reader.samples("cam") == [sample, "zz"]
        assert (reader.read("cam", sample).array == RAW).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused_by_name(tmp_path, bad):
    array = RAW.copy()
    array[0, 1] = bad
    with pytest.raises(ValueError, match="method 'layer-cam', sample 'x7': 1 of 6 values are NaN or infinite"):
        write(tmp_path / "m.h5", ("layer-cam", "x7", array))
    assert list(tmp_path.iterdir()) == []


def test_float64_beyond_float32_is_infinite_too(tmp_path):
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="NaN or infinite"):
        write(tmp_path / "m.h5", ("cam", "a", np.full((2, 2), 1e300)))


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "m.h5", ("cam", "a", RAW))
    before = path.read_bytes()

    def fail():
        with MapWriter(path, {}) as writer:
            writer.add("cam", "b", RAW, target=0, size=(1, 1))
            assert path.read_bytes() == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.h5"]


@pytest.mark.parametrize(
    ("entry", "options", "message"),
    [
        (("_logits", "b", RAW), {}, "does not begin with _"),
        (("a/b", "b", RAW), {}, "holds no /"),
        (("cam", "b", RAW[None]), {}, r"a map \(h, w\) expected, got shape \(1, 2, 3\)"),
        (("cam", "b", RAW[:0]), {}, "a map"),
        (("cam", "", RAW), {}, "no name"),
        (("cam", "b", RAW), {"drawn": "tiles"}, "did you mean 'tile'"),
        (("cam", "b", RAW), {"coverage": np.ones((3, 2), bool)}, r"coverage bool \(2, 3\) expected"),
        (("cam", "b", RAW), {"coverage": np.ones((2, 3))}, "coverage bool"),
    ],
)
def test_wrong_entries_are_refused(tmp_path, entry, options, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "m.h5", entry, **options)


def test_doubles_and_wrong_logits(tmp_path):
    with pytest.raises(ValueError, match="sample 'a': stands in"):
        write(tmp_path / "m.h5", ("cam", "a", RAW), ("cam", "a", RAW))
    for logits in ([np.nan, 1.0], [[1.0]]):
        with pytest.raises(ValueError, match="logits of sample 'a'"), MapWriter(tmp_path / "m.h5", {}) as writer:
            writer.predict("a", logits)


def test_coverage_is_stored_once_per_resolution(tmp_path):
    cover, fine = np.array([[True, False, True]] * 2), np.ones((4, 6), bool)
    with MapWriter(tmp_path / "m.h5", {}) as writer:
        for method in ("cam", "grad-cam"):
            writer.add(method, "a", RAW, target=0, size=(8, 8), coverage=cover)
        writer.add("layer-cam", "a", np.ones((4, 6)), target=0, size=(8, 8), coverage=fine)
        with pytest.raises(ValueError, match="coverage differs"):
            writer.add("hirescam", "a", RAW, target=0, size=(8, 8), coverage=~cover)
    with h5py.File(tmp_path / "m.h5") as file:
        assert sorted(file["_coverage"]) == ["a", "a@4x6"]
    with MapReader(tmp_path / "m.h5") as reader:
        assert (reader.read("grad-cam", "a").coverage == cover).all()
        assert (reader.read("layer-cam", "a").coverage == fine).all()


def test_large_maps_are_packed(tmp_path):
    big = np.zeros((500, 500), np.float32)
    big[3, 4] = -7
    path = write(tmp_path / "m.h5", ("cam", "a", big))
    assert path.stat().st_size < big.nbytes / 20
    with MapReader(path) as reader:
        assert (reader.read("cam", "a").array == big).all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_named_with_its_remedy(tmp_path, share):
    path = write(tmp_path / "maps.h5", *[("cam", f"s{i}", RAW) for i in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RuntimeError, match=r"maps\.h5: cannot be read .*delete it and run `wsol localize`"):
        MapReader(path)


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="wsol localize"):
        MapReader(tmp_path / "no.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(RuntimeError, match="no provenance"):
        MapReader(tmp_path / "other.h5")
    path = write(tmp_path / "m.h5", ("grad-cam", "train_1", RAW))
    with MapReader(path) as reader:
        with pytest.raises(ValueError, match="unknown method 'gradcam'; did you mean 'grad-cam'"):
            reader.read("gradcam", "train_1")
        with pytest.raises(ValueError, match="unknown sample 'train_2'; did you mean 'train_1'"):
            reader.read("grad-cam", "train_2")
        with pytest.raises(ValueError, match="logits: unknown sample"):
            reader.logits("train_1")
    with pytest.raises(ValueError, match="is not open"):
        MapWriter(path, {}).add("cam", "a", RAW, target=0, size=(1, 1))
