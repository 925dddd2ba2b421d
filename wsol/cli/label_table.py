"""The CSV of labels of `wsol new`, as spreadsheets and people write it: its columns found, its mistakes named by row."""

from __future__ import annotations

import csv
import io
import math
import shlex
from pathlib import Path

COLUMNS = {
    "file": ("path", "file", "filename", "file_name", "slide", "slide_id", "image", "image_id", "sample", "name", "id"),
    "label": ("label", "class", "diagnosis", "target"),
    "patient": ("patient", "patient_id", "case", "case_id", "subject", "subject_id"),
    "mpp": ("mpp",),
    "split": ("split",),
    "mask": ("mask",),
}
"""What is looked for in the CSV of labels -> the columns that may hold it, the first that is there counts."""

NEEDED = ("file", "label")
SEPARATORS = (",", ";", "\t")
"""A comma first; a spreadsheet whose decimal mark is a comma writes semicolons."""

WORKBOOKS = {b"PK": "an .xlsx workbook", b"\xd0\xcf\x11\xe0": "an .xls workbook"}
SAVE = "in a spreadsheet, save it as 'CSV UTF-8 (comma delimited)'"


def read_labels(labels: Path) -> list[tuple[int, dict[str, str]]]:
    """(row number, what -> its cell) of each row that is not blank; rows count as a spreadsheet shows them, the header is row 1.

    Args:
        labels: CSV in UTF-8, with or without a byte order mark, separated by commas, semicolons or tabs. `COLUMNS` has the
            columns that are understood; "file" and "label" must be there.

    Raises:
        FileNotFoundError: no such CSV.
        ValueError: another encoding, no such columns, or no rows.
    """
    if not labels.is_file():
        raise FileNotFoundError(f"no CSV at {labels}; --labels names a table with a column of files and one of labels")
    text = _text(labels)
    try:
        tables = [list(csv.reader(io.StringIO(text, newline=""), delimiter=mark)) for mark in SEPARATORS]
    except csv.Error as error:
        raise ValueError(f"{labels}: cannot be read as a table ({error}); {SAVE}") from error
    header, *lines = next((one for one in tables if one and not _missing(one[0])), max(tables, key=_width)) or [[]]
    if missing := _missing(header):
        wanted = "; ".join(f"{what}: one of {', '.join(COLUMNS[what])}" for what in missing)
        have = ", ".join(map(str.strip, header)) or "none"
        raise ValueError(f"{labels}: no column of {' and '.join(missing)} ({wanted}); it has {have}")
    chosen = _columns(header)
    rows = [
        (number, {what: cells[at].strip() if at < len(cells) else "" for what, at in chosen.items()})
        for number, cells in enumerate(lines, 2)
    ]
    if not (rows := [(number, told) for number, told in rows if any(told.values())]):
        raise ValueError(f"{labels}: no rows below its header; list one file per row")
    return rows


def mpp_of(cell: str) -> float:
    """The um per px that a cell says, maybe with a decimal comma; NaN where it is blank.

    Raises:
        ValueError: no number, or none that a scan can have.
    """
    if not cell:
        return math.nan
    try:
        mpp = float(cell.replace(",", "."))
    except ValueError:
        mpp = math.nan
    if not 0.02 <= mpp <= 1000:
        raise ValueError(f"column 'mpp': a number of um per px is expected, such as 0.25, or nothing; got {cell!r}")
    return mpp


def _text(labels: Path) -> str:
    """What is in the file. ValueError where it is not text in UTF-8."""
    raw = labels.read_bytes()
    for start, what in WORKBOOKS.items():
        if raw.startswith(start):
            raise ValueError(f"{labels}: it is {what}, a CSV is expected; {SAVE}")
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row, byte = raw[: error.start].count(b"\n") + 1, raw[error.start]
        where = "" if wide else f" (byte {byte:#04x} in row {row})"
        wide_or_latin = "UTF-16" if wide else "LATIN1"
        raise ValueError(f"{labels}: its text is not in UTF-8{where}; {_remedy(labels, wide_or_latin)}") from error
    if wide:
        raise ValueError(f"{labels}: its text is not in UTF-8; {_remedy(labels, 'UTF-16')}")
    return text


def _remedy(labels: Path, encoding: str) -> str:
    return f"{SAVE}, or, if it is {encoding}: iconv -f {encoding} -t UTF-8 {shlex.quote(str(labels))} > labels-utf8.csv"


def _columns(header: list[str]) -> dict[str, int]:
    """What -> the place of the column that holds it."""
    places = {name.strip().lower(): i for i, name in enumerate(header)}
    return {what: places[found] for what, names in COLUMNS.items() if (found := next((n for n in names if n in places), None))}


def _missing(header: list[str]) -> list[str]:
    return [what for what in NEEDED if what not in _columns(header)]


def _width(table: list[list[str]]) -> int:
    return len(table[0]) if table else 0
