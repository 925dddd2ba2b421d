"""The sheet of a comparison: which samples there are, where their masks lie, and which part of the image a map covers.

Rows count as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsol._names import closest

if TYPE_CHECKING:
    from wsol.data import Masks
    from wsol.slides import Box

COLUMNS = ("sample", "patient", "slide", "label", "mask", "split", "path", "mpp", "x", "y", "width", "height")
ELSEWHERE = ("map", "prediction", "target", "threshold", "threshold_source")
"""Columns of the same sheet that `wsol audit` reads and a comparison does not."""

SPLITS = {"": "test", "test": "test", "val": "valcl", "valcl": "valcl", "valpx": "valcl", "train": "train"}
FRAME = ("x", "y", "width", "height")
_SHOWN = 20


@dataclass(frozen=True)
class Entry:
    """A row of the sheet, checked.

    Attributes:
        number: of the row.
        sample: its name.
        patient: "" where unknown.
        slide: the sample where the sheet has none.
        label: "" where the sheet has no labels.
        split: "test", "valcl" or "train".
        mask: file, or None.
        path: of the image, or None.
        mpp: um per px of the image, NaN where unknown.
        frame: the part of the image that foreign maps cover, level-0 px; None: all of it.
        maps: cells of the columns `map:NAME`, by name.
    """

    number: int
    sample: str
    patient: str
    slide: str
    label: str
    split: str
    mask: Path | None
    path: Path | None
    mpp: float
    frame: Box | None
    maps: Mapping[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """What is drawn as one: the patient; where unknown, the slide."""
        return self.patient or self.slide


def read_entries(sheet: Path, names: Sequence[str]) -> list[Entry]:
    """All rows of a sheet of foreign maps.

    Args:
        sheet: CSV with the column sample, and any of `COLUMNS` and `map:NAME`. Paths are relative to it.
        names: of the maps whose columns `map:NAME` are needed.

    Raises:
        FileNotFoundError: no sheet.
        ValueError: one line per mistake, with its row and the remedy.
    """
    if not sheet.is_file():
        raise FileNotFoundError(f"no sheet at {sheet}; a CSV with the columns sample, patient, label, mask, split is expected")
    with open(sheet, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [cell.strip() for cell in next(reader, [])]
        lines = [(number, [cell.strip() for cell in cells]) for number, cells in enumerate(reader, 2)]
    _check_header(sheet, header, names)
    errors: list[str] = []
    found: dict[str, Entry] = {}
    for number, cells in lines:
        if not any(cells):
            continue
        if len(cells) != len(header):
            errors.append(f"row {number}: {len(header)} cells expected, got {len(cells)}; put cells that hold a comma in quotes")
            continue
        entry, wrong = _entry(sheet, number, dict(zip(header, cells, strict=True)))
        if (other := found.setdefault(entry.sample, entry)) is not entry:
            wrong.append(f"sample {entry.sample!r} stands in row {other.number} already; give each sample its own name")
        errors += [f"row {number}: {what}" for what in wrong]
    if not found and not errors:
        errors.append("row 2: the sheet has no rows; list one sample per row")
    errors += _across(list(found.values()))
    if errors:
        more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
        raise ValueError(f"{sheet}: " + "\n  ".join(["", *errors[:_SHOWN], *more] if len(errors) > 1 else errors))
    return list(found.values())


def _check_header(sheet: Path, header: Sequence[str], names: Sequence[str]) -> None:
    columns = [f"map:{name}" for name in names]
    for name in header:
        if name not in COLUMNS + ELSEWHERE and not name.startswith("map:"):
            raise ValueError(f"{sheet}: {closest('column', name, [*COLUMNS, *columns, 'map:NAME'])}")
        if header.count(name) > 1:
            raise ValueError(f"{sheet}: the column {name!r} stands twice; keep one")
    for name in ("sample", *columns):
        if name not in header:
            raise ValueError(f"{sheet}: the column {name!r} is missing; add it, or name the folder of these maps")
    given = [name for name in FRAME if name in header]
    if given and len(given) < len(FRAME):
        raise ValueError(f"{sheet}: the columns x, y, width and height go together; got only {', '.join(given)}")


def _entry(sheet: Path, number: int, cells: Mapping[str, str]) -> tuple[Entry, list[str]]:
    """The row, and what is wrong in it."""
    wrong = [] if cells["sample"] else ["sample is blank; give each row a name"]
    files: dict[str, Path | None] = {}
    for name in ("mask", "path"):
        files[name] = sheet.parent / cells[name] if cells.get(name) else None
        if (file := files[name]) is not None and not file.is_file():
            wrong.append(f"no file at {name} {str(file)!r}; paths are relative to the sheet's folder")
    split = cells.get("split", "")
    if split not in SPLITS:
        wrong.append(closest("split", split, [s for s in SPLITS if s]))
    mpp = _number(cells.get("mpp", ""))
    if cells.get("mpp") and not 0.02 <= mpp <= 50:
        wrong.append(f"mpp {cells['mpp']!r}: um per px expected, such as 0.25 (40x) or 0.5 (20x)")
    entry = Entry(
        number, cells["sample"], cells.get("patient", ""), cells.get("slide") or cells["sample"], cells.get("label", ""),
        SPLITS.get(split, "test"), files["mask"], files["path"], mpp, _frame(cells, wrong),
        {name.removeprefix("map:"): cell for name, cell in cells.items() if name.startswith("map:")},
    )  # fmt: skip
    return entry, wrong


def _frame(cells: Mapping[str, str], wrong: list[str]) -> Box | None:
    from wsol.slides import Box

    given = [cells.get(name, "") for name in FRAME]
    if not any(given):
        return None
    values = [_number(text) for text in given]
    if not all(math.isfinite(v) and v == int(v) for v in values) or min(values[2:]) < 1:
        wrong.append(f"x, y, width, height {', '.join(given)}: whole level-0 px expected, width and height at least 1")
        return None
    return Box(*(int(v) for v in values))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _across(entries: Sequence[Entry]) -> list[str]:
    """What is wrong between rows."""
    blank = [e for e in entries if not e.label]
    if not blank or len(blank) == len(entries):
        return []
    return [f"row {blank[0].number}: label is blank, and other rows have one; fill in all labels, or leave the column out"]


def shared_patients(entries: Sequence[Entry]) -> list[str]:
    """Patients that stand in validation and in test: what is chosen on the first has seen them."""
    sides = [{e.patient for e in entries if e.patient and e.split == split} for split in ("valcl", "test")]
    return sorted(sides[0] & sides[1])


def read_truth(sheet: Path, entries: Sequence[Entry], foreground: Sequence[int], negative: Sequence[str]) -> Masks:
    """The masks of a sheet; nothing is opened yet. A blank mask of a `negative` label is known to be empty, any other unknown.

    Args:
        sheet: where they are listed.
        entries: its rows.
        foreground: ids of a mask that are foreground; none for all above 0.
        negative: labels of samples that hold nothing to find.

    Raises:
        ValueError: a `negative` label that no sample has.
    """
    from wsol.data import Masks
    from wsol.data.manifest import masks_table

    labels = sorted({e.label for e in entries if e.label})
    for name in negative:
        if name not in labels:
            raise ValueError(closest("negative label", name, labels))
    rows = [{"sample": e.sample, "mask": str(e.mask), "kind": "file", "values": list(foreground)} for e in entries if e.mask]
    rows += [
        {"sample": e.sample, "mask": "", "kind": "empty", "values": []} for e in entries if not e.mask and e.label in negative
    ]
    return Masks(sheet, masks_table(rows))
