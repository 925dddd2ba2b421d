from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wsol.data import read_manifest, read_masks, write_manifest
from wsol.data.manifest import MANIFEST, MASKS


@pytest.fixture
def written(tmp_path, dataset):
    write_manifest(dataset(), tmp_path / "manifest.parquet", tmp_path / "masks.parquet")
    return tmp_path


def test_round_trip_keeps_rows_and_declarations(written, dataset):
    manifest = read_manifest(written / "manifest.parquet")
    pd.testing.assert_frame_equal(manifest.samples, dataset().samples)
    assert (manifest.name, manifest.kind, manifest.note, manifest.source) == ("toy", "images", "a note", "here")
    assert manifest.positive_index() == 1
    assert manifest.folds == [0]
    assert list(manifest.rows(0, "valcl")["sample"]) == ["s2", "s3"]
    assert list(manifest.rows(0, "valpx")["sample"]) == ["s3"]
    assert manifest.sample("s4").patient == "c"


def test_the_manifest_knows_nothing_of_masks(written):
    assert b"mask.png" not in (written / "manifest.parquet").read_bytes()
    assert list(pd.read_parquet(written / "manifest.parquet").columns) == list(MANIFEST)
    assert list(pd.read_parquet(written / "masks.parquet").columns) == list(MASKS)


def test_nothing_temporary_stays(written):
    assert sorted(p.name for p in written.iterdir()) == ["manifest.parquet", "masks.parquet"]


def test_same_dataset_same_bytes(written, dataset, tmp_path):
    write_manifest(dataset(), tmp_path / "again.parquet", tmp_path / "again-masks.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (written / "manifest.parquet").read_bytes()


def test_wrong_questions_name_what_there_is(written):
    manifest = read_manifest(written / "manifest.parquet")
    with pytest.raises(ValueError, match=r"no fold 7.*\[0\]"):
        manifest.rows(7, "train")
    with pytest.raises(ValueError, match="did you mean 'valcl'"):
        manifest.rows(0, "valc")
    with pytest.raises(ValueError, match="unknown sample 's99'"):
        manifest.sample("s99")


def test_missing_and_damaged_files_name_the_remedy(written):
    with pytest.raises(FileNotFoundError, match="wsol prepare"):
        read_manifest(written / "other.parquet")
    data = (written / "manifest.parquet").read_bytes()
    (written / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(RuntimeError, match=r"cut\.parquet: cannot be read.*wsol prepare"):
        read_manifest(written / "cut.parquet")
    with pytest.raises(RuntimeError, match="columns"):
        read_manifest(written / "masks.parquet")
    with pytest.raises(RuntimeError, match="columns"):
        read_masks(written / "manifest.parquet")


def broken(samples, **values):
    samples = samples.copy()
    for column, (row, value) in values.items():
        samples.loc[row, column] = value
    return samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": (0, "validation")}, "unknown role 'validation'"),
        ({"label": (0, 2)}, "labels must be 0 to 1"),
        ({"role": (2, "test")}, None),
        ({"role": (3, "train")}, "'s3' is valpx but not valcl"),
        ({"patient": (6, "z")}, "'s3' has rows that differ"),
        ({"slide": (0, "")}, "must be filled in"),
        ({"patient": (0, None)}, "must be filled in"),
    ],
)
def test_contradictions_are_refused(dataset, change, message):
    bad = dataset(samples=broken(dataset().samples, **change))
    if message is None:
        bad.check()
    else:
        with pytest.raises(ValueError, match=message):
            bad.check()


def test_doubles_and_strange_masks_are_refused(dataset):
    good = dataset()
    with pytest.raises(ValueError, match="stands twice"):
        dataset(samples=pd.concat([good.samples, good.samples.iloc[:1]])).check()
    with pytest.raises(ValueError, match="two masks"):
        dataset(masks=pd.concat([good.masks, good.masks.iloc[:1]])).check()
    with pytest.raises(ValueError, match="no row in the manifest"):
        dataset(masks=good.masks.replace("s3", "s33")).check()
    with pytest.raises(ValueError, match="without path"):
        dataset(masks=good.masks.replace("s3_mask.png", "")).check()
    with pytest.raises(ValueError, match="did you mean 'class'"):
        dataset(mask_means="clas").check()
    with pytest.raises(ValueError, match="unknown positive class 'tumour'; did you mean 'tumor'"):
        dataset(positive=["tumour"]).check()
    three = ["normal", "tumor", "necrosis"]
    dataset(task="multiclass", classes=three).check()
    for task, classes in (("binary", three), ("multiclass", three[:2]), ("multiclass", [*three[:2], "tumor"])):
        with pytest.raises(ValueError, match="a binary task has two different classes, a multiclass one more"):
            dataset(task=task, classes=classes).check()
    dataset(task="multilabel", classes=three).check()
    with pytest.raises(ValueError, match="one class is positive"):
        dataset(task="multilabel", classes=three, positive=["tumor", "necrosis"]).check()
    with pytest.raises(ValueError, match="unknown task 'multi-label'; did you mean 'multilabel'"):
        dataset(task="multi-label").check()


@pytest.mark.parametrize(
    ("labels", "task", "says"),
    [("0 1", "binary", "several labels, but the task is binary"), ("1 1", "multilabel", "no classes or lack its label"),
     ("7", "multilabel", "no classes or lack its label"), ("0", "multilabel", "no classes or lack its label")],
)  # fmt: skip
def test_labels_hold_the_label_and_only_classes(dataset, labels, task, says):
    samples = dataset().samples
    samples.loc[samples["sample"] == samples["sample"][0], ["label", "labels"]] = [0 if task == "binary" else 1, labels]
    with pytest.raises(ValueError, match=says):
        dataset(samples=samples, task=task).check()


def test_failed_write_leaves_the_old_file(written, dataset, monkeypatch):
    before = (written / "manifest.parquet").read_bytes()

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("wsol._files.os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(dataset(name="other"), written / "manifest.parquet", written / "masks.parquet")
    assert (written / "manifest.parquet").read_bytes() == before
    assert len(list(written.iterdir())) == 2


def test_types_of_columns(written):
    samples = read_manifest(written / "manifest.parquet").samples
    assert samples["label"].dtype == np.int64
    assert samples["mpp"].dtype == np.float64
