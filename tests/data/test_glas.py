from __future__ import annotations

import shutil

import numpy as np
import pytest

from wsol.data import Masks, check_splits, read_image, read_manifest, read_masks, write_manifest
from wsol.data.pixels import read_mask
from wsol.data.sources import glas, glas_patient


@pytest.fixture
def glas_root(shared_data):
    return shared_data / "glas"


@pytest.fixture
def official(tmp_path, glas_root):
    """A tiny tree as the released zip has it: BMP files in its one subfolder, the released header of Grade.csv."""
    home = tmp_path / glas.RELEASED[0]
    home.mkdir()
    for mask in (glas_root / "orig").glob("*_anno.bmp"):
        for name in (mask.name, mask.name.replace("_anno", "")):
            shutil.copyfile(mask.with_name(name), home / name)
    lines = (glas_root / "Grade.csv").read_text().splitlines()[1:]
    table = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for line in lines:
        patient, name, grade = line.split(",")
        table.append(f"{name}, {patient},{grade}, adenomatous")
    (home / "Grade.csv").write_text("\r\n".join(table) + "\r\n")
    return tmp_path


def test_fold_0_of_the_survey(glas_root):
    dataset = glas.dataset(glas_root)
    dataset.check()
    check_splits(dataset.samples, dataset.split_unit)
    sizes = dataset.samples[dataset.samples["fold"] == 0].groupby(["role", "label"]).size()
    assert {role: tuple(sizes[role]) for role in ("train", "valcl", "valpx", "test")} == {
        "train": (29, 38), "valcl": (8, 10), "valpx": (3, 3), "test": (37, 43),
    }  # fmt: skip
    assert dataset.samples["fold"].nunique() == 5
    assert dataset.samples["mpp"].unique().tolist() == [0.62]
    assert (dataset.split_unit, dataset.mask_means, dataset.positive) == ("image", "any-foreground", ["malignant"])
    assert "77 to 79 of 80 test images come from a patient of the training set" in dataset.note
    with pytest.raises(ValueError, match="is in train and"):
        check_splits(dataset.samples, "patient")


def test_patients_are_apart_in_glas_patient(glas_root):
    dataset = glas_patient.dataset(glas_root)
    dataset.check()
    check_splits(dataset.samples, "patient")
    assert dataset.samples["sample"].nunique() == 165
    tests = dataset.samples[dataset.samples["role"] == "test"]
    assert sorted(tests["sample"]) == sorted(dataset.samples["sample"].unique())
    assert tests["patient"].nunique() == 16
    assert not tests.groupby("patient")["fold"].nunique().gt(1).any()
    assert tests.groupby(["fold", "label"]).size().min() >= 10
    chosen = dataset.samples[dataset.samples["role"] == "valpx"].groupby(["fold", "label"]).size()
    assert chosen.tolist() == [3] * 10
    assert "leak" not in dataset.note


def test_the_official_layout_gives_the_same_pixels_and_labels(official, glas_root, tmp_path):
    dataset = glas.dataset(official, folds=glas_root / "folds", strict_counts=False)
    images = glas.read_glas(official, strict_counts=False)
    reference = glas.read_glas(glas_root)
    assert set(images) == {p.name.removesuffix("_anno.bmp") for p in (glas_root / "orig").glob("*_anno.bmp")}
    write_manifest(dataset, tmp_path / "manifest.parquet", tmp_path / "masks.parquet")
    masks: Masks = read_masks(tmp_path / "masks.parquet")
    assert read_manifest(tmp_path / "manifest.parquet").rows(0, "test")["sample"].isin(images).all()
    for name, image in images.items():
        assert (image.patient, image.label) == (reference[name].patient, reference[name].label)
        pixels = read_image(image.path)
        assert (pixels == read_image(reference[name].path)).all()
        found = masks.open(name, shape=pixels.shape[:2])
        assert 0 < found.mean() < 1
        assert (found == (read_mask(reference[name].mask) > 0)).all()
        assert len(np.unique(read_mask(image.mask))) > 2  # instance ids, one value per gland


def test_incomplete_sets_say_what_is_missing(official, glas_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"files of GlaS are missing, the first is .*train_1\.bmp"):
        glas.dataset(official, folds=glas_root / "folds")
    grade = official / glas.RELEASED[0] / "Grade.csv"
    grade.write_text(
        "\n".join(line for line in grade.read_text().splitlines() if line.startswith(("name", "testA_1,", "testA_2,")))
    )
    with pytest.raises(ValueError, match=r"GlaS has .*'train': 85.* but Grade.csv lists {'testA': 2}"):
        glas.read_glas(official)
    (official / glas.RELEASED[0] / "testA_1_anno.bmp").unlink()
    with pytest.raises(FileNotFoundError, match="testA_1_anno"):
        glas.read_glas(official, strict_counts=False)
    with pytest.raises(FileNotFoundError, match=r"no folds .*jeromerony/survey_wsl_histology"):
        glas.dataset(glas_root, folds=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no Grade\.csv in .*warwick_qu_dataset"):
        glas.dataset(tmp_path / "nowhere")


def test_tables_that_contradict_each_other(official, glas_root, tmp_path):
    folds = tmp_path / "folds"
    shutil.copytree(glas_root / "folds" / "fold-0", folds / "fold-0", copy_function=shutil.copyfile)
    for folder in (folds, *folds.rglob("*")):
        folder.chmod(0o755)
    labels = folds / "fold-0" / "test" / "class_labels.txt"
    labels.write_text(labels.read_text().replace("testA_1.bmp,0", "testA_1.bmp,1"))
    with pytest.raises(ValueError, match=r"testA_1 is malignant in fold 0 \(test\) but benign in Grade\.csv"):
        glas.dataset(official, folds=folds, strict_counts=False)
    labels.write_text("x/testA_1.bmp,2\n")
    with pytest.raises(ValueError, match=r"class_labels\.txt: line 1"):
        glas.dataset(official, folds=folds, strict_counts=False)
    grade = official / glas.RELEASED[0] / "Grade.csv"
    grade.write_text(grade.read_text().replace(" benign", " benin", 1))
    with pytest.raises(ValueError, match=r"Grade\.csv: line 2"):
        glas.read_glas(official, strict_counts=False)
