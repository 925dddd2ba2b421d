"""A row of the sample sheet: its cells, checked one by one and against other rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsol._names import closest

if TYPE_CHECKING:
    from wsol.data.sources.sheet import Options

SPLITS = {"train": "train", "valcl": "valcl", "val": "valcl", "valpx": "valpx", "test": "test"}
MPP_RANGE = (0.02, 50.0)
SEVERAL = "|"
"""What stands between the labels of one sample."""
_NAMES = {
    "slides": (re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*"), "letters, digits and _ . + - (it becomes a file name)"),
    "images": (
        re.compile(r"\w[\w.+@(), -]*(/\w[\w.+@(), -]*)*"),
        "letters, digits, spaces and _ . + - @ ( ) , with / between parts (it becomes a file name)",
    ),
}


@dataclass(frozen=True)
class Row:
    """One row of the sheet, checked: `label` an index into the classes, `labels` all of them, "" or NaN where a cell is blank."""

    number: int
    sample: str
    path: Path
    label: int
    patient: str
    slide: str
    mpp: float
    mask: Path | None
    split: str
    labels: tuple[int, ...]
    x: float = math.nan
    y: float = math.nan

    @property
    def group(self) -> str:
        """What must stay together: the patient; where unknown, the slide."""
        return f"patient {self.patient}" if self.patient else f"slide {self.slide}"


def read_row(given: Options, number: int, cells: dict[str, str]) -> tuple[Row | None, list[str]]:
    """The row, or what is wrong in it."""
    wrong = []
    pattern, allowed = _NAMES[given.kind]
    if not pattern.fullmatch(cells["sample"]):
        wrong.append(f"sample {cells['sample']!r}: expected {allowed}")
    path = given.sheet.parent / cells["path"]
    if not cells["path"] or not (path.is_dir() if given.folders else path.is_file()):
        what = f"no {'folder' if given.folders else 'file'} at path {str(path)!r}; paths are relative to the sheet's folder"
        wrong.append(what if cells["path"] else "path is blank")
    labels = _labels(given, cells["label"], wrong)
    mask = given.sheet.parent / cells["mask"] if cells.get("mask") else None
    if mask is not None and not mask.is_file():
        wrong.append(f"no mask at {str(mask)!r}; leave the cell blank if there is none (a missing mask is never taken as empty)")
    mpp = _number(cells, "mpp", wrong)
    if not math.isnan(mpp) and not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        wrong.append(f"mpp {mpp:g}: um per px expected, such as 0.25 (40x) or 0.5 (20x)")
    x, y = (_number(cells, name, wrong) for name in ("x", "y"))  # where a region lies on its slide, level-0 px
    for name, value in (("x", x), ("y", y)):
        if not math.isnan(value) and (value != int(value) or value < 0):
            wrong.append(f"{name} {cells[name]}: a whole number of level-0 px expected")
    split = cells.get("split", "")
    if "split" in cells and split not in SPLITS:
        wrong.append(closest("split", split, SPLITS))
    if wrong:
        return None, wrong
    slide = cells.get("slide") or cells["sample"]
    positive = given.classes.index(given.positive[0])
    label = positive if positive in labels else labels[0]
    told = (cells.get("patient", ""), slide, mpp, mask, SPLITS.get(split, ""), labels, x, y)
    return Row(number, cells["sample"], path, label, *told), []


def _labels(given: Options, cell: str, wrong: list[str]) -> tuple[int, ...]:
    """The classes that a cell names, ascending."""
    names = [name.strip() for name in cell.split(SEVERAL)] if given.multilabel else [cell]
    several = f" (more than one per sample, as in {SEVERAL.join(given.classes[:2])}, with option multilabel: true)"
    wrong += [closest("label", n, given.classes) + "; labels are of `classes`" + several for n in names if n not in given.classes]
    if len(set(names)) < len(names):
        wrong.append(f"label {cell!r}: a class stands twice")
    return tuple(sorted(given.classes.index(n) for n in names if n in given.classes))


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


def across(found: Sequence[Row]) -> list[str]:
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
