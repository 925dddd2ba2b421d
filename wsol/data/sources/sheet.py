"""The sample sheet: a CSV that lists one's own slides or images. Read strictly: each mistake is named with its row and a remedy.

Rows count as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsol._names import closest
from wsol.data.manifest import Dataset, masks_table, samples_table
from wsol.data.splits import draw_valpx, grouped_split, roles

REQUIRED = ("sample", "path", "label")
OPTIONAL = ("patient", "slide", "x", "y", "mpp", "mask", "split")
SPLITS = {"train": "train", "valcl": "valcl", "val": "valcl", "valpx": "valpx", "test": "test"}
MPP_RANGE = (0.02, 50.0)
_NAMES = {
    "slides": (re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*"), "letters, digits and _ . + - (it becomes a file name)"),
    "images": (
        re.compile(r"\w[\w.+@(), -]*(/\w[\w.+@(), -]*)*"),
        "letters, digits, spaces and _ . + - @ ( ) , with / between parts (it becomes a file name)",
    ),
}
_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One row of the sheet, checked: `label` an index into the classes, "" or NaN where a cell is blank."""

    number: int
    sample: str
    path: Path
    label: int
    patient: str
    slide: str
    mpp: float
    mask: Path | None
    split: str

    @property
    def group(self) -> str:
        """What must stay together: the patient; where unknown, the slide."""
        return f"patient {self.patient}" if self.patient else f"slide {self.slide}"


@dataclass(frozen=True)
class Options:
    """Options of the sources `images` and `slides`; see `dataset` there."""

    kind: Literal["slides", "images"]
    sheet: Path
    classes: list[str]
    positive: list[str]
    mask_means: Literal["class", "any-foreground"]
    mask_values: Mapping[str, Sequence[int]] | None
    folds: int
    valpx: int
    seed: int

    def __post_init__(self) -> None:
        if not len(set(self.classes)) == len(self.classes) >= 2 or not all(isinstance(c, str) for c in self.classes):
            raise ValueError(
                f"classes: two different names or more expected, as in column `label`, e.g. [normal, tumor]; got {self.classes}"
            )
        if self.mask_means not in ("class", "any-foreground"):
            raise ValueError(closest("mask_means", self.mask_means, ("class", "any-foreground")))
        for name in (*self.positive, *(self.mask_values or {})):
            if name not in self.classes:
                raise ValueError(closest("class", name, self.classes))
        if not self.positive:
            raise ValueError(f"positive: name one of the classes {self.classes}; of two, the second is it if none is named")

    @property
    def foreground(self) -> list[int]:
        """The ids of a mask file that are foreground; [] for all above 0."""
        values = self.mask_values or {}
        names = self.positive if self.mask_means == "class" else self.classes
        return sorted({int(v) for name in names for v in values.get(name, ())})


def options(
    kind: Literal["slides", "images"],
    sheet: str | Path,
    classes: Sequence[str],
    positive: Sequence[str] | None,
    mask_means: Any,
    mask_values: Mapping[str, Sequence[int]] | None,
    folds: int,
    valpx: int,
    seed: int,
) -> Options:
    """Options with defaults filled in."""
    names = list(classes)
    second = names[1:] if len(names) == 2 else []
    chosen = second if positive is None else [positive] if isinstance(positive, str) else list(positive)
    return Options(kind, Path(sheet), names, chosen, mask_means, mask_values, folds, valpx, seed)


def build(given: Options) -> Dataset:
    """The dataset that the sheet describes. Warns where patients are unknown: then only slides are kept apart."""
    sheet = read_sheet(given)
    unknown = [row.number for row in sheet if not row.patient]
    unit: Literal["patient", "slide", "image"] = "patient"
    if unknown:
        own = all(row.slide == row.sample for row in sheet)
        unit = "image" if own and given.kind == "images" else "slide"
        warnings.warn(
            f"{given.sheet}: {len(unknown)} rows name no patient (the first is row {unknown[0]}): one patient may then be on "
            f"both sides of a split, and numbers carry the badge of split unit {unit!r}. Fill in the `patient` column",
            UserWarning,
            stacklevel=3,
        )
    empty = _empty(given, sheet)
    masks = [{"sample": r.sample, "mask": str(r.mask), "kind": "file", "values": given.foreground} for r in sheet if r.mask]
    masks += [{"sample": r.sample, "mask": "", "kind": "empty", "values": []} for r in sheet if r.sample in empty]
    return Dataset(
        name=given.sheet.stem,
        kind=given.kind,
        task="binary" if len(given.classes) == 2 else "multiclass",
        classes=given.classes,
        positive=given.positive,
        mask_means=given.mask_means,
        split_unit=unit,
        samples=samples_table(rows(given, sheet)),
        masks=masks_table(masks),
        source=f"sample sheet {given.sheet}",
        note="The mask marks any foreground, not the positive class." if given.mask_means == "any-foreground" else "",
    )


def rows(given: Options, sheet: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of the manifest: by the `split` column, or in folds grouped by patient and stratified by label."""
    labels = [row.label for row in sheet]
    empty = _empty(given, sheet)
    # With no mask file at all there is nothing to tune on, and no validation sample is set apart for it.
    masked = [any(r.mask for r in sheet) and (row.mask is not None or row.sample in empty) for row in sheet]
    if any(row.split for row in sheet):
        placed = _by_column(given, sheet, labels, masked)
    else:
        try:
            fold_of = grouped_split([row.group for row in sheet], labels, given.folds, np.random.default_rng(given.seed))
            placed = list(roles(fold_of, labels, valpx=given.valpx, eligible=masked, seed=given.seed))
        except ValueError as error:
            raise ValueError(f"{given.sheet}: {error}, or add a `split` column (train, val, test)") from error
    return [
        {
            "sample": sheet[i].sample, "slide": sheet[i].slide, "patient": sheet[i].patient, "path": str(sheet[i].path), "mpp":
            sheet[i].mpp, "label": sheet[i].label, "fold": fold, "role": role,
        }
        for i, fold, role in placed
    ]  # fmt: skip


def read_sheet(given: Options) -> list[Row]:
    """All rows of the sheet, checked.

    Raises:
        FileNotFoundError: there is no sheet.
        ValueError: one line per mistake, with row number and remedy.
    """
    path = given.sheet
    if not path.is_file():
        raise FileNotFoundError(f"no sample sheet at {path}; a CSV with the columns sample, path, label, patient is expected")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header)
        lines = [(number, [cell.strip() for cell in cells]) for number, cells in enumerate(reader, 2)]
    errors: list[str] = []
    found = []
    for number, cells in lines:
        if not any(cells):
            continue
        if len(cells) != len(header):
            errors.append(f"row {number}: {len(header)} cells expected, got {len(cells)}; put cells that hold a comma in quotes")
            continue
        row, wrong = _row(given, number, dict(zip(header, cells, strict=True)))
        errors += [f"row {number}: {what}" for what in wrong]
        if row is not None:
            found.append(row)
    errors += _across(found)
    if not found and not errors:
        errors.append("row 2: the sheet has no rows; list one sample per row")
    if errors:
        more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
        raise ValueError(f"{path}: " + "\n  ".join(["", *errors[:_SHOWN], *more] if len(errors) > 1 else errors))
    return found


def _check_header(path: Path, header: list[str]) -> None:
    for name in header:
        if name not in REQUIRED + OPTIONAL:
            raise ValueError(f"{path}: " + closest("column", name, REQUIRED + OPTIONAL))
        if header.count(name) > 1:
            raise ValueError(f"{path}: the column {name!r} stands twice; keep one")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise ValueError(
            f"{path}: the columns {', '.join(missing)} are missing; the header must name sample, path, label and patient"
        )


def _row(given: Options, number: int, cells: dict[str, str]) -> tuple[Row | None, list[str]]:
    """The row, or what is wrong in it."""
    wrong = []
    pattern, allowed = _NAMES[given.kind]
    if not pattern.fullmatch(cells["sample"]):
        wrong.append(f"sample {cells['sample']!r}: expected {allowed}")
    path = given.sheet.parent / cells["path"]
    if not cells["path"] or not path.is_file():
        wrong.append(
            f"no file at path {str(path)!r}; paths are relative to the sheet's folder" if cells["path"] else "path is blank"
        )
    if cells["label"] not in given.classes:
        wrong.append(closest("label", cells["label"], given.classes) + "; labels are of `classes` (several are not supported)")
    mask = given.sheet.parent / cells["mask"] if cells.get("mask") else None
    if mask is not None and mask.suffix.lower() in (".geojson", ".json", ".xml"):
        wrong.append(f"mask {cells['mask']!r}: polygons are not read yet; draw them into a PNG or TIFF of level 0's size")
    elif mask is not None and not mask.is_file():
        wrong.append(f"no mask at {str(mask)!r}; leave the cell blank if there is none (a missing mask is never taken as empty)")
    mpp = _number(cells, "mpp", wrong)
    if not math.isnan(mpp) and not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        wrong.append(f"mpp {mpp:g}: um per px expected, such as 0.25 (40x) or 0.5 (20x)")
    for name in ("x", "y"):  # where a region lies on its slide, level-0 px
        if not math.isnan(value := _number(cells, name, wrong)) and (value != int(value) or value < 0):
            wrong.append(f"{name} {cells[name]}: a whole number of level-0 px expected")
    split = cells.get("split", "")
    if "split" in cells and split not in SPLITS:
        wrong.append(closest("split", split, SPLITS))
    if wrong:
        return None, wrong
    slide = cells.get("slide") or cells["sample"]
    label = given.classes.index(cells["label"])
    return Row(number, cells["sample"], path, label, cells.get("patient", ""), slide, mpp, mask, SPLITS.get(split, "")), []


def _number(cells: Mapping[str, str], name: str, wrong: list[str]) -> float:
    text = cells.get(name, "")
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value) or (text and math.isnan(value)):
        wrong.append(f"{name} {text!r}: a number expected, or a blank cell")
        return math.nan
    return value


def _across(found: Sequence[Row]) -> list[str]:
    """What is wrong between rows."""
    errors = []
    samples: dict[str, Row] = {}
    files: dict[Path, Row] = {}
    slides: dict[str, Row] = {}
    for row in found:
        if (other := samples.setdefault(row.sample, row)) is not row:
            errors.append(
                f"row {row.number}: sample {row.sample!r} stands in row {other.number} already; give each sample its own name"
            )
        if (other := files.setdefault(row.path.resolve(), row)) is not row:
            errors.append(
                f"row {row.number}: {row.path} is the file of row {other.number} already; a file listed twice could be "
                f"trained on and tested on"
            )
        if (other := slides.setdefault(row.slide, row)).patient != row.patient:
            errors.append(
                f"row {row.number}: slide {row.slide!r} is of patient {row.patient!r} here but of {other.patient!r} in row "
                f"{other.number}; a slide has one patient"
            )
    return errors


def _empty(given: Options, sheet: Sequence[Row]) -> set[str]:
    """Samples whose label says that they hold no foreground."""
    if given.mask_means != "class":
        return set()
    return {row.sample for row in sheet if row.mask is None and given.classes[row.label] not in given.positive}


def _by_column(given: Options, sheet: Sequence[Row], labels: Sequence[int], masked: Sequence[bool]) -> list[tuple[int, int, str]]:
    """One fold, as the sheet says; without any `valpx` row, some are drawn from the validation samples that have masks."""
    placed = [(i, 0, "valcl" if row.split == "valpx" else row.split) for i, row in enumerate(sheet)]
    named = [i for i, row in enumerate(sheet) if row.split == "valpx"]
    bare = [sheet[i].number for i in named if sheet[i].mask is None and sheet[i].sample not in _empty(given, sheet)]
    if bare:
        raise ValueError(f"{given.sheet}: row {bare[0]}: split valpx is for samples with a mask; fill in its mask, or write val")
    held = [i for i, _, role in placed if role == "valcl"]
    named = named or draw_valpx(held, labels, given.valpx, masked, np.random.default_rng([given.seed, 0]))
    return placed + [(i, 0, "valpx") for i in named]
