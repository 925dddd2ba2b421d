"""GlaS with the survey's folds, to compare with published numbers: patients stand on both sides of its splits.

Sirinukunwattana et al., Gland segmentation in colon histology images: the GlaS challenge contest, Medical Image Analysis 35
(2017). The folds are those of Rony et al., Deep weakly-supervised learning methods for classification and localization in
histology images: a survey, MELBA 2023.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wsol.data.manifest import ROLES, Dataset, masks_table, samples_table

paper = "Sirinukunwattana et al. 2017"
CLASSES = ["benign", "malignant"]
COUNTS = {"train": 85, "testA": 60, "testB": 20}
MPP = 0.62
RELEASED = ("Warwick_QU_Dataset_(Released_2016_07_08)", "Warwick QU Dataset (Released 2016_07_08)")
NOTE = (
    "GlaS: the label is the grade of the image, the mask is any gland; "
    "both classes hold glands, so maps of one class are scored on glands of both."
)


@dataclass(frozen=True)
class Image:
    """One image of GlaS: its name, files, patient and label (index into `CLASSES`)."""

    sample: str
    path: Path
    mask: Path
    patient: str
    label: int


def dataset(root: str | Path, folds: str | Path = "survey", strict_counts: bool = True) -> Dataset:
    """GlaS, split as the survey did: five folds over the official training set, each tested on the whole official test set.

    Args:
        root: the folder of the released zip (`train_1.bmp`, `train_1_anno.bmp`, `Grade.csv`; also when they lie in its one
            subfolder), or a folder with `images/`, `masks/` (PNG) and `Grade.csv`.
        folds: "survey": the folder `folds` in `root`; or the path of such a folder. It holds `fold-0/train/class_labels.txt` and
            so on, as in the survey's repository (jeromerony/survey_wsl_histology, `folds/wsol-done-right-splits/GLAS`).
        strict_counts: the complete set of 85 + 60 + 20 images is required; False takes the images that are there.

    Raises:
        FileNotFoundError: a folder, an image, a mask or a fold is missing; the message says where to get it.
        ValueError: tables contradict each other.
    """
    root = Path(root)
    images = read_glas(root, strict_counts)
    folder = root / "folds" if str(folds) == "survey" else Path(folds)
    rows = []
    for fold, role, sample, label in _read_folds(folder):
        if sample not in images:
            if strict_counts:
                raise ValueError(f"{folder}: sample {sample!r} of fold {fold} ({role}) is no image of GlaS in {root}")
            continue
        if images[sample].label != label:
            raise ValueError(
                f"{folder}: {sample} is {CLASSES[label]} in fold {fold} ({role}) but {CLASSES[images[sample].label]} in "
                f"Grade.csv; one of the files is damaged"
            )
        rows.append(sample_row(images[sample], fold, role))
    if not rows:
        raise ValueError(
            f"none of the {len(images)} images in {root} is named by the folds in {folder}; give the folder of another copy"
        )
    return assemble(
        "glas",
        images,
        rows,
        split_unit="image",
        source=f"GlaS in {root}, folds of the survey",
        note=f"{NOTE} {_leak(rows)}".strip(),
    )


def assemble(
    name: str, images: Mapping[str, Image], rows: list[dict[str, Any]], *, split_unit: Any, source: str, note: str
) -> Dataset:
    """The dataset of `rows`; every image has its mask in a file."""
    used = dict.fromkeys(row["sample"] for row in rows)
    masks = ({"sample": s, "mask": str(images[s].mask), "kind": "file", "values": []} for s in used)
    return Dataset(
        name=name,
        kind="images",
        task="binary",
        classes=list(CLASSES),
        positive=["malignant"],
        mask_means="any-foreground",
        split_unit=split_unit,
        samples=samples_table(rows),
        masks=masks_table(masks),
        source=source,
        note=note,
    )


def sample_row(image: Image, fold: int, role: str) -> dict[str, Any]:
    """One row of the manifest."""
    return {
        "sample": image.sample, "slide": image.sample, "patient": image.patient, "path": str(image.path), "mpp": MPP,
        "label": image.label, "fold": fold, "role": role,
    }  # fmt: skip


def read_glas(root: Path, strict_counts: bool = True) -> dict[str, Image]:
    """The images of GlaS by name, in natural order, with both files of each checked to be there."""
    home = next((h for h in (root, *(root / r for r in RELEASED)) if (h / "Grade.csv").is_file()), None)
    if home is None:
        raise FileNotFoundError(
            f"no Grade.csv in {root} nor in a subfolder {RELEASED[0]!r}; get GlaS "
            f"(warwick_qu_dataset_released_2016_07_08.zip, research use only), "
            "unpack it, and give that folder as `root`"
        )
    files = _layout(home)
    images = {}
    missing = []
    for name, (patient, label) in sorted(_read_grades(home / "Grade.csv").items(), key=lambda item: _natural(item[0])):
        path, mask = files(name)
        absent = [p for p in (path, mask) if not p.is_file()]
        if absent and (strict_counts or len(absent) == 1):
            missing += absent
        elif not absent:
            images[name] = Image(name, path, mask, patient, label)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} files of GlaS are missing, the first is {missing[0]}; unpack the zip again (strict_counts: false "
            f"takes what is there)"
        )
    found = Counter(name.split("_")[0] for name in images)
    if strict_counts and dict(found) != COUNTS:
        raise ValueError(
            f"{home}: GlaS has {COUNTS} images but Grade.csv lists {dict(found)}; it is incomplete: unpack the zip again "
            f"(strict_counts: false takes what is there)"
        )
    return images


def _layout(home: Path) -> Callable[[str], tuple[Path, Path]]:
    """How a name becomes the paths of its image and its mask."""
    if (home / "images").is_dir() or (home / "masks").is_dir():
        return lambda name: (home / "images" / f"{name}.png", home / "masks" / f"{name}.png")
    return lambda name: (home / f"{name}.bmp", home / f"{name}_anno.bmp")


def _read_grades(path: Path) -> dict[str, tuple[str, int]]:
    """(patient, label) by name. Header and values carry stray spaces; a second grade is not the label."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [cell.strip().lower() for cell in next(reader, [])]
        columns = {"name": "name", "patient": "patient id", "grade": "grade (glas)" if "grade (glas)" in header else "grade"}
        lacking = [c for c in columns.values() if c not in header]
        if lacking:
            raise ValueError(f"{path}: columns name, patient ID and grade (or grade (GlaS)) expected, got {header}")
        grades = {}
        for line, cells in enumerate(reader, 2):
            if not any(cell.strip() for cell in cells):
                continue
            row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            name, patient, grade = (row.get(c, "") for c in columns.values())
            if not name or not patient or grade not in CLASSES or name in grades:
                raise ValueError(f"{path}: line {line}: a new name, a patient and one of {CLASSES} expected, got {cells}")
            grades[name] = (patient, CLASSES.index(grade))
    return grades


def _read_folds(folder: Path) -> list[tuple[int, str, str, int]]:
    """(fold, role, sample, label) of every line. Only the base names count: the lists name BMP files whatever the layout."""
    homes = sorted(folder.glob("fold-*"), key=lambda p: _natural(p.name)) if folder.is_dir() else []
    if not homes:
        raise FileNotFoundError(
            f"no folds (fold-0/train/class_labels.txt ...) in {folder}; copy folds/wsol-done-right-splits/GLAS of "
            f"jeromerony/survey_wsl_histology "
            "there or give its path as the option `folds`; the source `glas-patient` needs no such files"
        )
    found = []
    for home in homes:
        for role in ROLES:
            path = home / role / "class_labels.txt"
            if not path.is_file():
                raise FileNotFoundError(f"no {path}; every fold needs {', '.join(ROLES)}")
            for line, text in enumerate(path.read_text().splitlines(), 1):
                name, _, label = (part.strip() for part in text.rpartition(","))
                if not text.strip():
                    continue
                if label not in ("0", "1") or not name:
                    raise ValueError(f"{path}: line {line}: a path and 0 or 1 expected, got {text!r}")
                found.append((int(home.name.removeprefix("fold-")), role, PurePosixPath(name).stem, int(label)))
    return found


def _leak(rows: list[dict[str, Any]]) -> str:
    """The sentence that says how many test images come from a patient that was trained on."""
    shares = []
    for fold in sorted({row["fold"] for row in rows}):
        trained = {row["patient"] for row in rows if row["fold"] == fold and row["role"] == "train"}
        tested = [row["patient"] in trained for row in rows if row["fold"] == fold and row["role"] == "test"]
        shares.append((sum(tested), len(tested)))
    low, high, total = min(s[0] for s in shares), max(s[0] for s in shares), max(s[1] for s in shares)
    if high == 0:
        return ""
    count = f"{low}" if low == high else f"{low} to {high}"
    return f"The survey's folds leak: {count} of {total} test images come from a patient of the training set; see glas-patient."


def _natural(name: str) -> tuple[str, int]:
    """train_2 before train_10."""
    stem, _, number = name.replace("-", "_").rpartition("_")
    return ({"train": "0"}.get(stem, stem), int(number)) if number.isdigit() else (name, 0)
