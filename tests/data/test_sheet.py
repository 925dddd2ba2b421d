from __future__ import annotations

import math

import numpy as np
import pytest

from wsol.data import KINDS, SOURCES, check_splits, read_masks, write_manifest
from wsol.data.sources import images, slides

CLASSES = ["normal", "tumor"]


@pytest.fixture
def sheet(tmp_path, picture):
    """Writes sheet.csv (lines without header) beside twelve images a0 ... a11 and a mask; returns its path."""
    for i in range(12):
        picture(f"a{i}.png", shape=(4, 5))
    picture("m.png", np.eye(4, 5, dtype=np.uint8) * 3)

    def write(lines, header="sample,path,label,patient"):
        path = tmp_path / "sheet.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        return path

    return write


def plain(n=12):
    return [f"s{i},a{i}.png,{CLASSES[i % 2]},p{i // 2}" for i in range(n)]


def test_folds_are_grouped_by_patient(sheet):
    found = images.dataset(sheet(plain()), CLASSES, folds=3)
    found.check()
    check_splits(found.samples, "patient")
    assert (found.kind, found.split_unit, found.positive) == ("images", "patient", ["tumor"])
    assert sorted(found.samples["fold"].unique()) == [0, 1, 2]
    assert (found.samples["role"] != "valpx").all()  # no mask file, so nothing to tune on
    again = images.dataset(sheet(plain()), CLASSES, folds=3)
    assert found.samples.equals(again.samples)


def test_split_column_makes_one_fold(sheet):
    roles = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    path = sheet([f"{line},{role}" for line, role in zip(plain(), roles, strict=True)], "sample,path,label,patient,split")
    found = images.dataset(path, CLASSES)
    assert list(found.samples["role"]) == ["train"] * 6 + ["valcl"] * 3 + ["test"] * 3
    with pytest.raises(ValueError, match="patient 'p4' is in valcl and test"):
        check_splits(found.samples, found.split_unit)


def test_masks_known_empty_and_unknown(sheet, tmp_path):
    cells = {0: ("", "train"), 1: ("m.png", "train"), 2: ("", "val"), 3: ("m.png", "valpx"), 4: ("", "test"), 5: ("", "test")}
    lines = [f"s{i},a{i}.png,{CLASSES[i % 2]},p{i // 2},{mask},{split}" for i, (mask, split) in cells.items()]
    path = sheet([line.replace("m.png,train", "m2.png,train") for line in lines], "sample,path,label,patient,mask,split")
    with pytest.raises(ValueError, match=r"row 3: no mask at .*m2\.png.*never taken as empty"):
        images.dataset(path, CLASSES)
    path = sheet(lines, "sample,path,label,patient,mask,split")
    found = images.dataset(path, CLASSES, mask_values={"tumor": [3]})
    write_manifest(found, tmp_path / "manifest.parquet", tmp_path / "masks.parquet")
    masks = read_masks(tmp_path / "masks.parquet")
    assert {s: masks.kind(s) for s in masks.samples} == {"s1": "file", "s3": "file", "s0": "empty", "s2": "empty", "s4": "empty"}
    assert not masks.has("s5")  # a positive sample without mask: unknown
    assert masks.open("s3", shape=(4, 5)).sum() == 4
    assert list(found.samples.query("role == 'valcl'")["sample"]) == ["s2", "s3"]
    assert list(found.samples.query("role == 'valpx'")["sample"]) == ["s3"]
    drawn = images.dataset(
        sheet([line.replace("valpx", "val") for line in lines], "sample,path,label,patient,mask,split"), CLASSES
    )
    assert list(drawn.samples.query("role == 'valpx'")["sample"]) == ["s2", "s3"]
    loose = images.dataset(path, CLASSES, mask_means="any-foreground")
    assert list(loose.masks["sample"]) == ["s1", "s3"]
    assert loose.note


def test_valpx_needs_a_mask(sheet):
    lines = ["a,a0.png,normal,p,,train", "b,a1.png,tumor,q,,train", "c,a2.png,tumor,r,,valpx", "d,a3.png,tumor,s,,test"]
    with pytest.raises(ValueError, match="row 4: split valpx is for samples with a mask"):
        images.dataset(sheet(lines, "sample,path,label,patient,mask,split"), CLASSES)


def test_unknown_patients_warn_and_change_the_unit(sheet):
    lines = [f"s{i},a{i}.png,{CLASSES[i % 2]}" for i in range(12)]
    with pytest.warns(UserWarning, match=r"12 rows name no patient \(the first is row 2\).*split unit 'image'"):
        found = images.dataset(sheet(lines, "sample,path,label"), CLASSES, folds=3)
    assert found.split_unit == "image"
    assert (found.samples["patient"] == "").all()
    with pytest.warns(UserWarning, match="1 rows name no patient"):
        found = slides.dataset(sheet([*plain()[:-1], "s11,a11.png,tumor,"]), CLASSES, folds=3)
    assert found.split_unit == "slide"
    check_splits(found.samples, "slide")
    lines = [f"s{i},a{i}.png,{CLASSES[i // 2 % 2]},slide{i // 2}" for i in range(12)]
    with pytest.warns(UserWarning, match="split unit 'slide'"):
        found = images.dataset(sheet(lines, "sample,path,label,slide"), CLASSES, folds=3)
    check_splits(found.samples, "slide")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s0,a1.png,normal,p", "row 3: sample 's0' stands in row 2 already"),
        ("s1,a0.png,normal,p", r"row 3: .*a0\.png is the file of row 2 already"),
        ("s1,a99.png,normal,p", r"row 3: no file at path .*a99\.png.*relative to the sheet"),
        ("s1,,normal,p", "row 3: path is blank"),
        ("s1,a1.png,tumour,p", "row 3: unknown label 'tumour'; did you mean 'tumor'"),
        ("s1,a1.png,,p", "row 3: unknown label ''"),
        ("s1,a1.png,normal", "row 3: 4 cells expected, got 3"),
        (",a1.png,normal,p", "row 3: sample ''"),
        ("../s1,a1.png,normal,p", r"row 3: sample '\.\./s1'"),
    ],
)
def test_mistakes_are_named_with_their_row(sheet, line, message):
    with pytest.raises(ValueError, match=message):
        images.dataset(sheet([plain()[0], line]), CLASSES)


@pytest.mark.parametrize(
    ("header", "cell", "message"),
    [
        ("mpp", "72", "row 2: mpp 72: um per px expected"),
        ("mpp", "fine", "row 2: mpp 'fine': a number expected"),
        ("x", "1.5", r"row 2: x 1\.5: a whole number"),
        ("mask", "m.geojson", r"no mask at .*m\.geojson"),
        ("split", "validate", "row 2: unknown split 'validate'; did you mean 'val"),
        ("split", "", "row 2: unknown split ''"),
        ("masks", "m.png", "unknown column 'masks'; did you mean 'mask'"),
        ("label", "tumor", "the column 'label' stands twice"),
    ],
)
def test_optional_columns_are_strict_too(sheet, header, cell, message):
    with pytest.raises(ValueError, match=message):
        images.dataset(sheet([f"{plain()[0]},{cell}"], f"sample,path,label,patient,{header}"), CLASSES)


def test_whole_sheet_mistakes(sheet, tmp_path):
    with pytest.raises(FileNotFoundError, match="no sample sheet at"):
        images.dataset(tmp_path / "no.csv", CLASSES)
    with pytest.raises(ValueError, match="columns path, label are missing"):
        images.dataset(sheet([], "sample,patient"), CLASSES)
    with pytest.raises(ValueError, match="the sheet has no rows"):
        images.dataset(sheet([]), CLASSES)
    with pytest.raises(ValueError, match="slide 'A' is of patient 'q' here but of 'p' in row 2"):
        images.dataset(sheet(["s,a0.png,normal,p,A", "t,a1.png,tumor,q,A"], "sample,path,label,patient,slide"), CLASSES)
    with pytest.raises(ValueError, match=r"there are 2 patients.*`split` column"):
        images.dataset(sheet(plain(4)), CLASSES)
    with pytest.raises(ValueError, match=r"(?s)row 2: .*row 3: .*and 10 more"):
        images.dataset(sheet([f"s{i},zz.png,normal,{i}" for i in range(30)]), CLASSES)


def test_options_are_checked(sheet):
    with pytest.raises(ValueError, match="classes: two different names"):
        images.dataset(sheet(plain()), ["a", "a"])
    with pytest.raises(ValueError, match="unknown class 'tumour'; did you mean 'tumor'"):
        images.dataset(sheet(plain()), CLASSES, positive=["tumour"])
    with pytest.raises(ValueError, match="unknown class 'x'"):
        images.dataset(sheet(plain()), CLASSES, mask_values={"x": [1]})
    with pytest.raises(ValueError, match="did you mean 'class'"):
        images.dataset(sheet(plain()), CLASSES, mask_means="clas")
    with pytest.raises(ValueError, match=r"positive: name one of the classes \['normal', 'tumor', 'necrosis'\]"):
        images.dataset(sheet(plain()), [*CLASSES, "necrosis"])


def test_more_than_two_classes_one_per_sample(sheet):
    names = [*CLASSES, "necrosis"]
    lines = [f"s{i},a{i}.png,{names[i % 3]},p{i // 3}" for i in range(12)]
    found = images.dataset(sheet(lines), names, positive=["necrosis"], folds=4)
    found.check()
    labels = found.samples.drop_duplicates("sample").set_index("sample")["label"]
    assert (found.task, found.positive) == ("multiclass", ["necrosis"])
    assert labels.to_dict() == {f"s{i}": i % 3 for i in range(12)}
    assert set(found.masks["sample"]) == {f"s{i}" for i in range(12) if i % 3 != 2}  # no necrosis: known to be empty
    assert images.dataset(sheet(plain()), CLASSES, folds=3).task == "binary"
    with pytest.raises(ValueError, match=r"unknown label 'tumor;necrosis'.*multilabel: true"):
        images.dataset(sheet([*lines[:-1], "s11,a11.png,tumor;necrosis,p3"]), names, positive=["tumor"])


def test_listing_has_the_rows_of_the_dataset(sheet):
    path = sheet(plain())
    listed = slides.listing(path, CLASSES, folds=3)
    assert all(math.isnan(row.pop("mpp")) for row in listed)
    assert listed == slides.dataset(path, CLASSES, folds=3).samples.drop(columns="mpp").to_dict("records")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "sample,path,label\nM\u00fcller,a0.png,normal\n".encode("cp1252"),
            r"sheet\.csv: no text in UTF-8 .*save it as 'CSV UTF-8",
        ),
        ("sample,path,label\ns,a0.png,normal\n".encode("utf-16"), "no text in UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xe9", "not as a workbook"),
        (b"sample;path;label;patient\ns0;a0.png;normal;p\n", "its columns are separated by ';', a comma is expected"),
        (b"sample\tpath\tlabel\n", r"separated by '\\t'"),
    ],
)
def test_a_sheet_of_another_kind_says_how_to_save_it(sheet, text, says):
    path = sheet(plain())
    path.write_bytes(text)
    with pytest.raises(ValueError, match=says):
        slides.listing(path, CLASSES)


def test_slide_names_become_file_names(sheet):
    with pytest.raises(ValueError, match="sample 'a/b'"):
        slides.listing(sheet(["a/b,a0.png,normal,p"]), CLASSES)


def test_every_source_has_a_kind_and_resolves():
    from wsol._names import resolve

    assert set(KINDS) == set(SOURCES)
    for name, kind in KINDS.items():
        module = resolve("source", name, SOURCES, "wsol.data")
        assert callable(module.dataset)
        assert callable(getattr(module, "listing", None)) == (kind == "slides")


def test_listing_is_cheap():
    import subprocess
    import sys

    code = (
        "import sys, wsol.data.sources.slides, wsol.data.sources.phantom; "
        "print({'torch', 'pandas', 'cv2', 'openslide'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
