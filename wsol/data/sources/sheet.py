"""The sample sheet: a CSV that lists one's own slides or images. Read strictly: each mistake is named with its row and a remedy.

Rows count as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsol._names import closest
from wsol.data.manifest import Dataset, masks_table, samples_table
from wsol.data.sources.sheet_rows import SEVERAL, Row, across, read_row
from wsol.data.splits import draw_valpx, grouped_split, roles

REQUIRED = ("sample", "path", "label")
OPTIONAL = ("patient", "slide", "x", "y", "mpp", "mask", "split")
_SHOWN = 20


@dataclass(frozen=True)
class Options:
    """Options of the sources `images` and `slides`; see `dataset` there. `folders`: a path is that of a folder."""

    kind: Literal["slides", "images"]
    sheet: Path
    classes: list[str]
    positive: list[str]
    mask_means: Literal["class", "any-foreground"]
    mask_values: Mapping[str, Sequence[int | str]] | None
    folds: int
    valpx: int
    seed: int
    multilabel: bool = False
    folders: bool = False
    mask_unit: Literal["px", "um"] = "px"

    def __post_init__(self) -> None:
        if not len(set(self.classes)) == len(self.classes) >= 2 or not all(isinstance(c, str) for c in self.classes):
            raise ValueError(
                f"classes: two different names or more expected, as in column `label`, e.g. [normal, tumor]; got {self.classes}"
            )
        if self.mask_means not in ("class", "any-foreground"):
            raise ValueError(closest("mask_means", self.mask_means, ("class", "any-foreground")))
        if self.mask_unit not in ("px", "um"):
            raise ValueError(closest("mask_unit", self.mask_unit, ("px", "um")))
        for name in (*self.positive, *(self.mask_values or {})):
            if name not in self.classes:
                raise ValueError(closest("class", name, self.classes))
        if self.multilabel and (len(self.positive) > 1 or any(SEVERAL in c for c in self.classes)):
            raise ValueError(
                f"multilabel: one positive class, and no class with {SEVERAL!r} in its name, expected; got positive "
                f"{self.positive}, classes {self.classes}"
            )
        if not self.positive:
            raise ValueError(f"positive: name one of the classes {self.classes}; of two, the second is it if none is named")

    @property
    def foreground(self) -> list[int | str]:
        """What is foreground: ids of mask images, class names of polygons; [] for all above 0 and all areas."""
        values = self.mask_values or {}
        names = self.positive if self.mask_means == "class" else self.classes
        return sorted({v if isinstance(v, str) else int(v) for name in names for v in values.get(name, ())}, key=str)


def options(
    kind: Literal["slides", "images"],
    sheet: str | Path,
    classes: Sequence[str],
    positive: Sequence[str] | None,
    mask_means: Any,
    mask_values: Mapping[str, Sequence[int | str]] | None,
    folds: int,
    valpx: int,
    seed: int,
    multilabel: bool = False,
    mask_unit: Any = "px",
) -> Options:
    """Options with defaults filled in."""
    names = list(classes)
    second = names[1:] if len(names) == 2 else []
    chosen = second if positive is None else [positive] if isinstance(positive, str) else list(positive)
    return Options(kind, Path(sheet), names, chosen, mask_means, mask_values, folds, valpx, seed, multilabel, mask_unit=mask_unit)


def build(given: Options, found: Sequence[Row] | None = None) -> Dataset:
    """The dataset that the sheet describes, or the rows `found` in it.

    Warns where patients are unknown: then only slides are kept apart.
    """
    sheet = read_sheet(given) if found is None else found
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
    masks = [
        {"sample": r.sample, "mask": str(r.mask), "kind": "file", "values": given.foreground, "um": _um(given, r)}
        for r in sheet
        if r.mask
    ]
    masks += [{"sample": r.sample, "mask": "", "kind": "empty", "values": []} for r in sheet if r.sample in empty]
    return Dataset(
        name=given.sheet.stem,
        kind=given.kind,
        task="multilabel" if given.multilabel else "binary" if len(given.classes) == 2 else "multiclass",
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
    some = any(row.mask for row in sheet)
    masked = [some and (row.mask is not None or row.sample in empty) for row in sheet]
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
            sheet[i].mpp, "label": sheet[i].label, "labels": " ".join(map(str, sheet[i].labels)), "fold": fold, "role": role,
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
    header, lines = _cells(path)
    errors: list[str] = []
    found = []
    for number, cells in lines:
        if not any(cells):
            continue
        if len(cells) != len(header):
            errors.append(f"row {number}: {len(header)} cells expected, got {len(cells)}; put cells that hold a comma in quotes")
            continue
        row, wrong = read_row(given, number, dict(zip(header, cells, strict=True)))
        errors += [f"row {number}: {what}" for what in wrong]
        if row is not None:
            found.append(row)
    errors += across(found)
    if not found and not errors:
        errors.append("row 2: the sheet has no rows; list one sample per row")
    if errors:
        more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
        raise ValueError(f"{path}: " + "\n  ".join(["", *errors[:_SHOWN], *more] if len(errors) > 1 else errors))
    return found


def _cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the cells of each row with its number."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            _check_header(path, header)
            return header, [(number, [cell.strip() for cell in cells]) for number, cells in enumerate(reader, 2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}: no text in UTF-8 ({error}); in a spreadsheet, save it as 'CSV UTF-8 (comma delimited)', not as a workbook"
        ) from error


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) == 1 and (other := [mark for mark in ";\t|" if mark in header[0]]):
        raise ValueError(
            f"{path}: its columns are separated by {other[0]!r}, a comma is expected: in a spreadsheet, save it as 'CSV UTF-8 "
            "(comma delimited)'; where that writes semicolons, set a decimal point in the regional settings, or replace them"
        )
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


def _empty(given: Options, sheet: Sequence[Row]) -> set[str]:
    """Samples whose label says that they hold no foreground."""
    if given.mask_means != "class":
        return set()
    return {row.sample for row in sheet if row.mask is None and given.classes[row.label] not in given.positive}


def _um(given: Options, row: Row) -> float:
    """Um per px of level 0, for polygons whose coordinates are um; NaN for px."""
    if given.mask_unit == "px":
        return math.nan
    if row.mask is None or row.mask.suffix.lower() not in (".geojson", ".json", ".xml") or math.isnan(row.mpp):
        raise ValueError(
            f"{given.sheet}: row {row.number}: `mask_unit: um` is for polygons (.geojson, .xml) of slides whose `mpp` the "
            f"sheet has; got mask {row.mask}, mpp {row.mpp:g}"
        )
    return row.mpp


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
