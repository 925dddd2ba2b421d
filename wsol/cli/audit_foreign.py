"""Results of any other tool as the plain rows that an audit looks at: a sheet, and maps and masks where there are some.

Unlike a comparison, an audit takes the sheet as it is: a sample that stands in two splits or a file that is gone is a finding,
not an error.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol._names import closest
from wsol.cli.audit_files import digests, map_facts, mask_facts, spread

if TYPE_CHECKING:
    from wsol.evaluation import Claim, MapFacts, MaskFacts, PixelCounts, Placed, Study

COLUMNS = (
    "sample", "split", "label", "patient", "slide", "path", "map", "mask", "prediction", "target", "threshold",
    "threshold_source",
)  # fmt: skip
"""Columns of the sheet; only `sample` is needed, and `map:NAME` is a method called NAME (a floor, where
NAME is one of `wsol.slides.FLOORS`). Paths are relative to the sheet. Labels,
predictions and targets are the same words. A sample may have several rows."""

ELSEWHERE = ("mpp", "x", "y", "width", "height")
"""Columns that other verbs read."""

SPLITS = {
    "": "test", "test": "test", "testing": "test", "train": "train", "training": "train", "val": "valcl", "valid": "valcl",
    "validation": "valcl", "valcl": "valcl", "valpx": "valpx",
}  # fmt: skip
"""Words of the column `split` -> role."""

POSITIVE = ("1", "positive", "tumor", "tumour", "malignant", "cancer", "metastasis", "metastatic")
"""Labels that are taken for positive where nobody says which are."""

SOURCES = {
    "": "", "unknown": "",
    "test": "test oracle", "test masks": "test oracle", "oracle": "test oracle", "test oracle": "test oracle",
    "validation": "validation masks", "validation masks": "validation masks", "val": "validation masks",
    "valpx": "validation masks",
    "fixed": "fixed", "otsu": "otsu", "per-image otsu": "per-image otsu", "label-free": "label-free", "conformal": "conformal",
    "prevalence-matched": "prevalence-matched",
}  # fmt: skip
"""Words of the column `threshold_source` -> source."""


@dataclass(frozen=True)
class Row:
    """A row of the sheet: cells by column, and its role."""

    cells: Mapping[str, str]
    role: str
    threshold: float | None

    @property
    def sample(self) -> str:
        """Its name."""
        return self.cells["sample"]


@dataclass(frozen=True)
class Files:
    """Where maps and masks are: method -> sample -> file, and sample -> file; samples without one are missing."""

    maps: Mapping[str, Mapping[str, Path]]
    masks: Mapping[str, Path]


def read_foreign(sheet: Path, maps: Path | None, masks: Path | None, positive: Sequence[str], limit: int) -> Study:
    """What a sheet, its maps and its masks say.

    Raises:
        FileNotFoundError: no sheet, or no such folder.
        ValueError: a mistake in the sheet with its row, or two files of one name in a folder.
    """
    from wsol.evaluation import Study

    rows = read_rows(sheet)
    files = _files(sheet, rows, maps, masks)
    labels = {r.cells.get("label", "") for r in rows}
    chosen = frozenset(positive or [label for label in labels if label.lower() in POSITIVE])
    truth = _masks(rows, files, chosen, limit)
    facts, counts = _maps(rows, files, truth, limit)
    return Study(
        samples=_placed(sheet, rows),
        positive=chosen,
        mask_means="class" if chosen else "",
        foreign=True,
        claims=_claims(rows, files, truth, counts),
        maps=facts if files.maps else None,
        masks=truth if files.masks else None,
    )


def read_rows(sheet: Path) -> list[Row]:
    """All rows of the sheet.

    Raises:
        FileNotFoundError: no sheet.
        ValueError: an unknown column, split or threshold source, a blank sample, a threshold that is no number; with its row.
    """
    if not sheet.is_file():
        raise FileNotFoundError(f"no sheet at {sheet}; a CSV with the columns sample, split, label, patient is expected")
    with open(sheet, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = names
        lines = [(i, {k: (v or "").strip() for k, v in cells.items() if isinstance(k, str)}) for i, cells in enumerate(reader, 2)]
    for name in names:
        if name not in COLUMNS + ELSEWHERE and not name.startswith("map:"):
            raise ValueError(f"{sheet}: {closest('column', name, [*COLUMNS, 'map:NAME'])}")
    if "sample" not in names:
        raise ValueError(f"{sheet}: the column 'sample' is missing; it names each image")
    if not lines:
        raise ValueError(f"{sheet}: the sheet has no rows; list one sample per row")
    return [_row(sheet, number, cells) for number, cells in lines]


def _row(sheet: Path, number: int, cells: dict[str, str]) -> Row:
    where = f"{sheet}: row {number}: "
    if not cells["sample"]:
        raise ValueError(where + "sample is blank; give each row a name")
    split, source, text = (cells.get(name, "") for name in ("split", "threshold_source", "threshold"))
    if split.lower() not in SPLITS:
        raise ValueError(where + closest("split", split, [s for s in SPLITS if s]))
    if source.lower() not in SOURCES:
        raise ValueError(where + closest("threshold source", source, [s for s in SOURCES if s]))
    try:
        threshold = float(text) if text else None
    except ValueError:
        raise ValueError(where + f"threshold {text!r}: a number expected, or a blank cell") from None
    return Row({**cells, "threshold_source": SOURCES[source.lower()]}, SPLITS[split.lower()], threshold)


def _placed(sheet: Path, rows: Sequence[Row]) -> list[Placed]:
    from wsol.evaluation import Placed

    images = {r.cells["path"]: str((sheet.parent / r.cells["path"]).resolve()) for r in rows if r.cells.get("path")}
    known = digests(set(images.values()))
    return [
        Placed(
            r.sample, r.role, 0, r.cells.get("label", ""), r.cells.get("patient", ""), r.cells.get("slide", ""),
            images.get(r.cells.get("path", ""), ""), known.get(images.get(r.cells.get("path", ""), ""), ""),
        )
        for r in rows
    ]  # fmt: skip


def _files(sheet: Path, rows: Sequence[Row], maps: Path | None, masks: Path | None) -> Files:
    """Maps and masks by column or by folder; a cell goes before the folder."""
    found: dict[str, dict[str, Path]] = {}
    for r in rows:
        for name, cell in r.cells.items():
            if cell and (name == "map" or name.startswith("map:")):
                found.setdefault(name.removeprefix("map:"), {})[r.sample] = sheet.parent / cell
    if maps is not None:
        found[maps.name] = _in_folder(maps, rows)
    told = {r.sample: sheet.parent / r.cells["mask"] for r in rows if r.cells.get("mask")}
    return Files(found, {**(_in_folder(masks, rows) if masks is not None else {}), **told})


def _in_folder(folder: Path, rows: Sequence[Row]) -> dict[str, Path]:
    """Sample -> its file, by name without ending."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; name the folder that holds one file per sample")
    stems: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in stems:
            raise ValueError(f"{folder}: {stems[stem].name} and {path.name} are files of one sample; keep one")
        stems[stem] = path
    names = {r.sample: (r.sample, Path(r.sample).with_suffix("").as_posix(), Path(r.sample).stem) for r in rows}
    return {sample: stems[name] for sample, tries in names.items() if (name := next((t for t in tries if t in stems), ""))}


def _masks(rows: Sequence[Row], files: Files, positive: frozenset[str], limit: int) -> dict[str, MaskFacts]:
    """Facts of the masks of validation and test samples; negatives without a file are known to be empty."""
    held = {r.sample: r.cells.get("label", "") for r in rows if r.role != "train"}
    opened = set(spread([s for s in held if s in files.masks], limit))
    found = {s: mask_facts(s, files.masks[s], (), s in opened) for s in held if s in files.masks}
    empty = [s for s, label in held.items() if s not in found and positive and label and label not in positive]
    return found | {s: mask_facts(s, None, ()) for s in empty}


def _maps(
    rows: Sequence[Row], files: Files, truth: Mapping[str, MaskFacts], limit: int
) -> tuple[list[MapFacts], dict[str, list[PixelCounts]]]:
    """Facts of some test maps of each method, and, where all of them were read as scores in [0, 1] with masks, their counts."""
    from wsol.slides import FLOORS

    facts: list[MapFacts] = []
    counts: dict[str, list[PixelCounts]] = {}
    held = {r.sample: r for r in rows if r.role == "test"}
    for method, paths in files.maps.items():
        chosen = spread(sorted(held, key=lambda s: held[s].cells.get("label", "")), limit)
        counted = []
        for sample in chosen:
            row = held[sample]
            at: dict[str, Any] = {"run": "", "method": method, "split": "test", "sample": sample, "floor": method in FLOORS}
            at |= {"target": row.cells.get("target") or None, "predicted": row.cells.get("prediction") or None}
            found, pixels = _one_map(paths.get(sample), files.masks.get(sample), truth.get(sample), at, _size(row, files))
            facts.append(found)
            counted.append(pixels)
        if len(chosen) == len(held) and counted and all(c is not None for c in counted):
            counts[method] = [c for c in counted if c is not None]
    return facts, counts


def _one_map(
    path: Path | None, mask: Path | None, truth: MaskFacts | None, at: dict[str, Any], size: tuple[int, int] | None
) -> tuple[MapFacts, PixelCounts | None]:
    """Facts of one map, and its counts against its mask where both can be had; `size` (H, W) is that of a mask without a file."""
    from wsol.data import read_foreign_map, register
    from wsol.evaluation import MapFacts, count_pixels

    if path is None:
        return MapFacts(**at, problem="no file"), None
    try:
        target = None if mask is None or truth is None or truth.share is None else _foreground(mask)
        values = read_foreign_map(path, size if target is None else target.shape)
        found = map_facts(values, **at)
        if truth is None or truth.problem or values.min() < 0 or values.max() > 1:
            return found, None
        if truth.kind == "empty":
            target = np.zeros(size or values.shape, np.bool_)
        return found, None if target is None else count_pixels(register(values, target.shape), target)
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        return MapFacts(**at, problem=str(error)), None


def _size(row: Any, files: Any) -> tuple[int, int] | None:
    """(H, W) of a sample: that of its image where the sheet names one, else of the first mask there is; None without either."""
    from wsol.data import image_shape

    image = Path(row.cells.get("path") or "")
    places = [image] if image.is_file() else [m for m in files.masks.values() if m is not None and m.is_file()][:1]
    try:
        return image_shape(places[0]) if places else None
    except (OSError, RuntimeError, ValueError):  # a slide, or an image that is judged elsewhere
        return None


def _foreground(mask: Path) -> npt.NDArray[np.bool_]:
    from wsol.data.pixels import read_mask

    return np.asarray(read_mask(mask) > 0)


def _claims(
    rows: Sequence[Row], files: Files, truth: Mapping[str, MaskFacts], counts: Mapping[str, list[PixelCounts]]
) -> list[Claim]:
    """One claim on the test split per method and source of its threshold."""
    from wsol.evaluation import Claim, PixelCounts, best_ranges
    from wsol.slides import FLOORS

    groups: dict[str, list[Row]] = {}
    for r in rows:
        if r.role == "test":
            groups.setdefault(r.cells["threshold_source"], []).append(r)
    found = []
    for source, group in groups.items():
        given = sorted(r.threshold for r in group if r.threshold is not None)
        for method in files.maps or {"results": {}}:
            total = PixelCounts.total(counts[method]) if method in counts else None
            scored = {r.sample: truth[r.sample].share if r.sample in truth else None for r in group} if files.masks else {}
            found.append(
                Claim(
                    run="",
                    method=method,
                    split="test",
                    floor=method in FLOORS,
                    threshold=given[(len(given) - 1) // 2] if given else None,
                    source=source,
                    values=len(set(given)) or 1,
                    oracle=best_ranges(total) if total is not None and len(group) == len(counts[method]) else (),
                    prevalence=total.prevalence if total is not None else None,
                    scored=scored,
                )
            )
    return found
