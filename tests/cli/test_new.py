"""A folder and a CSV become a study that its own checks pass; what is wrong is said at once, and nothing is written."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from wsol.cli.cohort import files_in, survey
from wsol.cli.config import ConfigError, load_config
from wsol.cli.label_table import mpp_of
from wsol.cli.main import app
from wsol.cli.new import new
from wsol.cli.plan import plan
from wsol.cli.rehearsal import rehearse
from wsol.data.sources.phantom import Slide, write_slide

ROOT = Path(__file__).parents[2]


def table(path, rows, header=("file", "label", "patient")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def pictures(folder, names, side=64, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        pixels = np.random.default_rng([seed, i]).integers(0, 255, (side, side + 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Six slides of 0.5 um per px, one without a resolution, and one that was cut off."""
    folder = tmp_path_factory.mktemp("glass")
    for i in range(6):
        write_slide(Slide(f"s{i}", bool(i % 2), 512, i, 0, "easy", 0.2), folder)
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "bare.tif")
    whole = (folder / "s0.tiff").read_bytes()
    (folder / "cut.tiff").write_bytes(whole[: len(whole) // 3])
    return folder


SIX = [(f"s{i}", ["normal", "tumor"][i % 2], f"p{i}") for i in range(6)]


def test_a_study_of_slides_passes_its_own_checks_and_can_be_planned(slides, tmp_path):
    made = new(tmp_path / "my study", slides=slides, labels=table(tmp_path / "l.csv", SIX))
    assert (made["samples"], made["classes"], made["patients"]) == (6, {"normal": 3, "tumor": 3}, 6)
    assert made["positive"] == "tumor"
    study = load_config(Path(made["study"]))
    assert study.prepare.name == "my-study"
    assert study.prepare.options["folds"] == 3  # as many as the rarest class has patients
    assert rehearse(study) == []
    assert sum(map(len, plan(study).slides.values())) >= 6
    sheet = list(csv.DictReader((tmp_path / "my study/sheet.csv").read_text().splitlines()))
    assert {row["sample"]: (row["label"], row["patient"]) for row in sheet} == {s: (c, p) for s, c, p in SIX}
    assert sorted(os.listdir(tmp_path / "my study")) == ["sheet.csv", "study.yaml"]
    assert any("cut.tiff: no label" in text for text in made["left_out"])


def test_the_printed_command_plans_the_study(slides, tmp_path):
    labels = table(tmp_path / "l.csv", SIX)
    script = "import sys; from wsol.cli.main import main; sys.argv[0] = 'wsol'; main()"
    command = [sys.executable, "-c", script, "new", "mine", "--slides", str(slides), "--labels", str(labels)]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    line = told.splitlines()[-1].strip()
    assert line.startswith("snakemake --cores")
    where = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(f"{line} --dry-run", shell=True, cwd=tmp_path, capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^tile +6$", done.stdout + done.stderr, flags=re.MULTILINE)


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(slides, tmp_path):
    rows = [
        *SIX,
        ("s7", "tumor", "p7"),
        ("bare", "tumor", "p8"),
        ("cut", "tumor", "p9"),
        ("s1.tiff", "tumor", "p1"),
        ("s2", "", ""),
    ]
    with pytest.raises(ConfigError) as error:
        new(tmp_path / "x", slides=slides, labels=table(tmp_path / "l.csv", rows))
    said = str(error.value)
    for part in (
        "row 8 of the labels: no file 's7'", "no resolution in the file; give --mpp", "cut.tiff", "s1.tiff is the file of row 3",
        "row 12 of the labels: label is blank", "--skip leaves out",
    ):  # fmt: skip
        assert part in said
    assert not (tmp_path / "x").exists()
    made = new(tmp_path / "x", slides=slides, labels=table(tmp_path / "l.csv", rows), skip=True)
    assert made["samples"] == 6
    assert sum("s7" in text or "bare" in text or "cut" in text for text in made["left_out"]) == 3


def test_a_resolution_that_no_file_has_is_given_by_hand(slides, tmp_path):
    rows = [*SIX, ("bare.tif", "tumor", "p8")]
    new(tmp_path / "x", slides=slides, labels=table(tmp_path / "l.csv", rows), mpp=1.5)
    with open(tmp_path / "x/sheet.csv", newline="") as file:
        mpps = {row["sample"]: row["mpp"] for row in csv.DictReader(file)}
    assert mpps == {**{s: "" for s, _, _ in SIX}, "bare": "1.5"}  # files that say it are believed
    assert load_config(tmp_path / "x/study.yaml").tile.mpp == 1.5  # not finer than the coarsest


def test_images_of_many_classes_with_masks_and_columns_of_other_names(tmp_path):
    folder = pictures(tmp_path / "i", [f"{c}{i}.png" for c in "abc" for i in range(3)])
    masks = tmp_path / "m"
    masks.mkdir()
    Image.fromarray(np.full((64, 80), 255, np.uint8)).save(masks / "b1_mask.png")
    rows = [(f"b/{c}{i}.PNG", c, f"{c}{i}") for c in "abc" for i in range(3)]
    labels = table(tmp_path / "l.csv", rows, header=("Filename", "Diagnosis", "Case_ID"))
    with pytest.raises(ConfigError, match="which of a, b, c is positive"):
        new(tmp_path / "x", slides=folder, labels=labels)
    with pytest.raises(ValueError, match="did you mean"):
        new(tmp_path / "x", slides=folder, labels=labels, positive="bb")
    made = new(tmp_path / "x", slides=folder, labels=labels, positive="b", masks=masks)
    study = yaml.safe_load((tmp_path / "x/study.yaml").read_text())
    assert study["prepare"]["options"]["classes"] == ["a", "c", "b"]
    assert (study["prepare"]["source"], study["train"]["crop"]) == ("images", 64)
    assert made["kind"] == "images"
    with open(tmp_path / "x/sheet.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sample"] for row in rows if row["mask"]] == ["b1"]


def test_files_are_found_by_path_name_stem_and_first_part(tmp_path):
    pictures(tmp_path / "s/one", ["x.1.png", "same.png"])
    pictures(tmp_path / "s/two", ["same.png", "TCGA-A.uuid.png"], seed=1)
    rows = [("x", "a", "1"), ("one/same.png", "a", "2"), ("TCGA-A", "b", "3"), ("same", "b", "4")]
    found = survey(tmp_path / "s", table(tmp_path / "l.csv", rows))
    assert [row["sample"] for row in found.rows] == ["x.1", "same", "TCGA-A.uuid"]
    assert found.problems[0] == "row 5 of the labels: 'same' may be one/same.png or two/same.png; give its path"
    both = survey(tmp_path / "s", table(tmp_path / "l.csv", [("one/same.png", "a", "1"), ("two/same.png", "b", "2")]))
    assert [row["sample"] for row in both.rows] == ["one-same.png", "two-same.png"]


def test_a_folder_of_dicom_files_is_one_slide_and_links_are_followed(tmp_path):
    (tmp_path / "real/scan").mkdir(parents=True)
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / "real/scan" / name).touch()
    (tmp_path / "s").mkdir()
    (tmp_path / "s/linked").symlink_to(tmp_path / "real")
    assert files_in(tmp_path / "s") == [tmp_path / "s/linked/scan/1.dcm"]
    found = survey(tmp_path / "s", table(tmp_path / "l.csv", [("scan", "a", "1")]))
    assert not any("no file" in problem for problem in found.problems)  # matched by its folder, though it cannot be opened


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("a.png", "x", "1"), ("b.png", "x", "2")], "two different labels"),
        ([("a.png", "x", "1"), ("b.png", "y", "2")], "label 'x' has 1 patients; 3 are needed"),
    ],
)
def test_too_few_classes_or_patients(tmp_path, rows, says):
    found = survey(pictures(tmp_path / "s", ["a.png", "b.png"]), table(tmp_path / "l.csv", rows))
    assert any(says in problem for problem in found.problems)


def test_the_same_slide_under_two_names_is_seen(tmp_path):
    folder = pictures(tmp_path / "s", ["a.png", "b.png"])
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    labels = table(tmp_path / "l.csv", [("a.png", "x", "1"), ("b.png", "y", "2"), ("c.png", "y", "3")])
    found = survey(folder, labels)
    assert found.problems[0].startswith("c.png holds the same bytes as a.png")
    assert [row["sample"] for row in survey(folder, labels, skip=True).rows] == ["a", "b"]


def test_a_resolution_that_contradicts_the_file_is_noted(slides, tmp_path):
    rows = [(*row, "0.5" if i else "0.25") for i, row in enumerate(SIX)]
    found = survey(slides, table(tmp_path / "l.csv", rows, header=("file", "label", "patient", "mpp")))
    assert found.notes == ["s0.tiff: 0.25 um per px by the labels, 0.5 by the file, which is believed"]
    assert found.rows[0]["mpp"] == ""


def test_patients_that_nobody_names_are_noted(tmp_path):
    found = survey(pictures(tmp_path / "s", ["a.png"]), table(tmp_path / "l.csv", [("a.png", "x")], header=("file", "label")))
    assert "1 of 1 samples name no patient (the first: a)" in found.notes[0]


def test_no_folder_no_csv_no_column(tmp_path):
    with pytest.raises(FileNotFoundError, match="--slides names"):
        survey(tmp_path / "none", tmp_path / "l.csv")
    folder = pictures(tmp_path / "s", ["a.png"])
    with pytest.raises(FileNotFoundError, match="--labels names"):
        survey(folder, tmp_path / "none.csv")
    with pytest.raises(ValueError, match="no column of label"):
        survey(folder, table(tmp_path / "l.csv", [], header=("file", "grade of it")))
    (tmp_path / "s/a.png").unlink()
    with pytest.raises(ValueError, match="no slide and no image"):
        survey(folder, tmp_path / "l.csv")


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six images of two classes, and the rows that label them."""
    folder = pictures(tmp_path_factory.mktemp("six"), [f"{c}{i}.png" for c in "ab" for i in range(3)])
    return folder, [(f"{c}{i}", c, f"{c}{i}") for c in "ab" for i in range(3)]


@pytest.mark.parametrize("name", ["yes", "null", "1e3", "0x1F", "2024-01-01", "true"])
def test_a_study_may_have_a_name_that_yaml_reads_as_something_else(six, tmp_path, name):
    folder, rows = six
    labels = table(tmp_path / "l.csv", [(file, {"a": "no", "b": "yes"}[label], patient) for file, label, patient in rows])
    study = load_config(Path(new(tmp_path / name, slides=folder, labels=labels)["study"]))
    assert study.prepare.name == name
    assert (study.prepare.options["classes"], study.prepare.options["positive"]) == (["no", "yes"], "yes")


def test_paths_and_labels_of_any_script_are_read_back(six, tmp_path):
    folder, rows = six
    labels = table(
        tmp_path / "l.csv", [(file, {"a": "gesund", "b": "Krebs 🔬"}[label], patient) for file, label, patient in rows]
    )
    study = load_config(Path(new(tmp_path / "müller 🔬", slides=folder, labels=labels, positive="Krebs 🔬")["study"]))
    assert study.prepare.options["classes"] == ["gesund", "Krebs 🔬"]
    assert study.prepare.options["sheet"] == str(tmp_path / "müller 🔬/sheet.csv")
    assert study.prepare.name == "m-ller--"


def test_a_study_of_slides_trains_in_the_memory_of_a_laptop(slides, tmp_path):
    made = new(tmp_path / "x", slides=slides, labels=table(tmp_path / "l.csv", SIX))
    train = load_config(Path(made["study"])).train
    assert (train.batch_size, train.tiles_per_bag) == (2, 8)
    told = Path(made["study"]).read_text()
    assert "batch_size * tiles_per_bag * tile_px^2" in told
    assert "--resources mem_mb=" in told


def test_a_resolution_that_is_no_number_is_named_once_per_row(six, tmp_path):
    folder, rows = six
    labels = table(tmp_path / "l.csv", [(*row, "abc") for row in rows], header=("file", "label", "patient", "mpp"))
    found = survey(folder, labels).problems
    assert found[:6] == [
        f"row {i} of the labels: column 'mpp': a number of um per px is expected, such as 0.25, or nothing; got 'abc'"
        for i in range(2, 8)
    ]
    for cell in ("-1", "0", "nan", "inf", "1e9"):
        with pytest.raises(ValueError, match=f"column 'mpp': .* got '{cell}'"):
            mpp_of(cell)
    assert (mpp_of("0,25"), mpp_of("0.5")) == (0.25, 0.5)


def test_where_no_row_can_be_used_leaving_them_out_is_no_advice(six, tmp_path):
    folder, rows = six
    labels = table(tmp_path / "l.csv", [(f"other-{file}-scan", *more) for file, *more in rows])
    for skip in (False, True):
        with pytest.raises(ConfigError, match="no file 'other-a0-scan'") as error:
            new(tmp_path / "x", slides=folder, labels=labels, skip=skip)
        assert "--skip" not in str(error.value)
        assert "is positive?" not in str(error.value)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\N{ZERO WIDTH NO-BREAK SPACE}"])
def test_the_separators_and_byte_order_marks_of_spreadsheets_are_read(six, tmp_path, mark, start):
    folder, rows = six
    lines = [("file", "label", "patient", "mpp"), *((*row, '"0,5"' if mark == "," else "0,5") for row in rows), ("", "", "", "")]
    (tmp_path / "l.csv").write_text(start + "\r\n".join(map(mark.join, lines)), encoding="utf-8")
    found = survey(folder, tmp_path / "l.csv")
    assert (found.problems, found.classes) == ([], {"a": 3, "b": 3})
    assert {row["mpp"] for row in found.rows} == {"0.5"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "file,label\na0,müde\n".encode("latin-1"),
            r"l\.csv: its text is not in UTF-8 \(byte 0xfc in row 2\); .* save it as 'CSV UTF-8",
        ),
        ("file,label\na0,b\n".encode("utf-16"), r"l\.csv: its text is not in UTF-8; .*iconv -f UTF-16 -t UTF-8 "),
        ("file,label\na0,b\n".encode("utf-16-le"), r"l\.csv: its text is not in UTF-8; .*iconv -f UTF-16"),
        (b"PK\x03\x04rest", r"l\.csv: it is an \.xlsx workbook, a CSV is expected"),
        (b"file,label\n", r"l\.csv: no rows below its header"),
        (b"file,label\n,\n\n", r"l\.csv: no rows below its header"),
        (b"", r"l\.csv: no column of file and label .* it has none"),
        (b"file;grade\na0;b\n", r"no column of label .* it has file, grade"),
        (b"file|label\na0|b\n", r"no column of file and label .* it has file\|label"),
        (b'file,label\n"' + b"a" * 200_000, r"l\.csv: cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_a_remedy(six, tmp_path, content, says):
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        survey(six[0], tmp_path / "l.csv")


def test_rows_count_as_a_spreadsheet_shows_them(six, tmp_path):
    (tmp_path / "l.csv").write_text("file,label\n\na0,a\n\nzz,b\n")
    assert survey(six[0], tmp_path / "l.csv").problems[0].startswith("row 5 of the labels: no file 'zz'")


def test_a_study_is_not_overwritten_without_being_told_to(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/study.yaml").write_text("mine")
    with pytest.raises(ValueError, match="--force overwrites"):
        new(tmp_path / "x", slides=tmp_path, labels=tmp_path)
    assert (tmp_path / "x/study.yaml").read_text() == "mine"


def test_json_is_for_scripts_and_words_are_not_in_it(tmp_path):
    folder = pictures(tmp_path / "i", [f"{c}{i}.png" for c in "ab" for i in range(3)])
    labels = table(tmp_path / "l.csv", [(f"{c}{i}", c, f"{c}{i}") for c in "ab" for i in range(3)])
    words = ["new", str(tmp_path / "x"), "--slides", str(folder), "--labels", str(labels), "--json"]
    made = json.loads(CliRunner().invoke(app, words).stdout)
    assert made["classes"] == {"a": 3, "b": 3}
    assert made["next"].endswith(str(tmp_path / "x/study.yaml"))
