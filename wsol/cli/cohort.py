"""A folder of slides and a CSV of labels become checked rows of a sample sheet; all that is wrong is said at once."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsol.cli.label_table import mpp_of, read_labels
from wsol.cli.progress import progress

SLIDES = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".dcm")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
MASKS = (".png", ".tif", ".tiff", ".geojson", ".xml")

NEGATIVE = ("normal", "negative", "neg", "benign", "healthy", "control", "no", "none", "0", "false")
"""Labels that are taken for the absence of something."""

FEWEST = 3
"""Patients of a class: one each to train, to validate and to test."""


@dataclass
class Cohort:
    """What was found.

    Attributes:
        kind: "slides" or "images".
        rows: of the sample sheet: sample, path, label, patient, mpp, mask, split; blank where unknown.
        problems: what stands in the way, a sentence each.
        left_out: files and rows that are not in the sheet, with the reason.
        notes: what one should know.
        mpps: um per px of the slides.
        smallest: px of the shortest side of an image.
    """

    kind: str
    rows: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mpps: list[float] = field(default_factory=list)
    smallest: int | None = None

    @property
    def classes(self) -> dict[str, int]:
        """Label -> samples, by name."""
        return dict(sorted(Counter(row["label"] for row in self.rows).items()))

    @property
    def patients(self) -> int:
        """Different patients."""
        return len({row["patient"] for row in self.rows if row["patient"]})


def survey(slides: Path, labels: Path, *, masks: Path | None = None, mpp: float | None = None, skip: bool = False) -> Cohort:
    """The files of a folder that the CSV labels, each opened.

    Args:
        slides: folder, looked through with all folders in it; a folder of DICOM files is one slide.
        labels: CSV with a column that names the files (by path, name, or name without its ending), one of labels, and maybe
            patient, mpp, split, mask (`label_table.COLUMNS` has the names that are understood).
        masks: folder of masks named like their slides.
        mpp: um per px of slides whose files do not say it.
        skip: leave out what cannot be matched or opened, instead of calling it a problem.

    Raises:
        FileNotFoundError: no such folder or CSV.
        ValueError: no file in the folder, or no such columns.
    """
    found = files_in(slides)
    kind = "images" if all(path.suffix.lower() in IMAGES for path in found) else "slides"
    cohort = Cohort(kind)
    matched = _matched(cohort, found, slides, read_labels(labels), skip=skip)
    masked = {path.stem: path for path in sorted(masks.iterdir()) if path.suffix.lower() in MASKS} if masks else {}
    names = _names([path for path, _ in matched], slides)
    twins = _twins([path for path, _ in matched])
    for path, told in progress(matched, "open"):
        if path in twins:
            _refuse(cohort, f"{path.name} holds the same bytes as {twins[path].name}: it could be trained on and tested on", skip)
            continue
        try:
            own = mpp_of(told.get("mpp", ""))
            known = _opened(cohort, path, mpp if mpp and own != own else own)
        except (RuntimeError, OSError, ValueError) as error:
            _refuse(cohort, str(error), skip)
            continue
        mask = str((labels.parent / told["mask"]).absolute()) if told.get("mask") else _mask_of(path, masked)
        cohort.rows.append({
            "sample": names[path], "path": str(path.absolute()), "label": told["label"], "patient": told.get("patient", ""),
            "mpp": known, "mask": mask, "split": told.get("split", ""),
        })  # fmt: skip
    if masks and not any(row["mask"] for row in cohort.rows):
        cohort.problems.append(f"{masks}: no mask is named like a slide; masks are SLIDE.png, .tif, .geojson or .xml")
    _judge(cohort)
    return cohort


def _twins(paths: Sequence[Path]) -> dict[Path, Path]:
    """A file that was there before under another name -> the first of that content."""
    from wsol.tracking import file_hash

    sizes = Counter(path.stat().st_size for path in paths)
    first: dict[str, Path] = {}
    same = [path for path in paths if sizes[path.stat().st_size] > 1]
    return {path: one for path in same if (one := first.setdefault(file_hash(path), path)) is not path}


def files_in(folder: Path) -> list[Path]:
    """Slides and images below a folder; of a folder with DICOM files the first, for OpenSlide finds the others.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: there are none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}; --slides names the folder of the slides")
    found, pyramids = [], set()
    every = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    for path in sorted(every):
        if path.suffix.lower() not in SLIDES + IMAGES or not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix.lower() == ".dcm":
            if path.parent in pyramids:
                continue
            pyramids.add(path.parent)
        found.append(path)
    if not found:
        raise ValueError(f"{folder}: no slide and no image in it; known endings: {' '.join(SLIDES + IMAGES)}")
    return found


def only_file(folder: Path) -> Path:
    """The one slide or image of a folder. ValueError where there are more."""
    if len(found := files_in(folder)) != 1:
        raise ValueError(f"{folder} holds {len(found)} slides or images; name one of them, such as {found[0]}")
    return found[0]


def _matched(
    cohort: Cohort,
    found: Sequence[Path],
    root: Path,
    table: Sequence[tuple[int, dict[str, str]]],
    *,
    skip: bool,
) -> list[tuple[Path, dict[str, str]]]:
    """(file, what the table says of it), for the rows that name one file; files that no row names are left out."""
    known: dict[str, list[Path]] = {}
    for path in found:
        for key in dict.fromkeys(_keys(path.relative_to(root))):
            known.setdefault(key, []).append(path)
    taken: dict[Path, int] = {}
    named: set[Path] = set()
    matched = []
    for number, told in table:
        here = next((known[key] for key in _keys(Path(told["file"])) if key in known), []) if told["file"] else []
        named.update(here)
        wrong = ""
        if not told["file"] or not told["label"]:
            wrong = f"{'file' if not told['file'] else 'label'} is blank"
        elif not here:
            near = difflib.get_close_matches(told["file"].lower(), known, n=1)
            wrong = f"no file {told['file']!r} below {root}" + (f"; did you mean {known[near[0]][0].name!r}?" if near else "")
        elif len(here) > 1:
            wrong = f"{told['file']!r} may be {' or '.join(str(p.relative_to(root)) for p in here)}; give its path"
        elif here[0] in taken:
            wrong = f"{here[0].name} is the file of row {taken[here[0]]} already"
        else:
            try:
                mpp_of(told.get("mpp", ""))
            except ValueError as error:
                wrong = str(error)
        if wrong:
            _refuse(cohort, f"row {number} of the labels: {wrong}", skip)
            continue
        taken[here[0]] = number
        matched.append((here[0], told))
    cohort.left_out += [f"{path.relative_to(root)}: no label" for path in found if path not in named]
    return matched


def _keys(path: Path) -> list[str]:
    """How a table may call a file, the most exact first; a DICOM file also by its folder."""
    name, folder = path.name.lower(), path.parent.name.lower()
    keys = [path.as_posix().lower(), name, path.stem.lower()]
    if path.suffix.lower() == ".dcm" and folder:
        keys.append(folder)
    return [*keys, name.split(".")[0]]  # TCGA-3L-AA1B-01Z-00-DX1.8923A151.svs


def _names(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """A name of each sample that may be a file name: that of the file, with its folders where two files have the same."""
    short = {path: path.parent.name if path.suffix.lower() == ".dcm" and path.parent != root else path.stem for path in paths}
    twice = {name for name, count in Counter(map(plain_name, short.values())).items() if count > 1}
    return {
        path: plain_name(name) if plain_name(name) not in twice else plain_name("-".join(path.relative_to(root).parts))
        for path, name in short.items()
    }


def plain_name(name: str) -> str:
    """A name that may stand in paths and in a study: letters, digits and _ . + -, a letter or digit first."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", name).lstrip("_.+-") or "sample"


def _opened(cohort: Cohort, path: Path, mpp: float) -> str:
    """What the cell mpp says of a file, after it was opened: blank where the file says it itself."""
    if cohort.kind == "images":
        from wsol.data import read_image

        side = min(read_image(path).shape[:2])
        cohort.smallest = side if cohort.smallest is None else min(side, cohort.smallest)
        return "" if mpp != mpp else f"{mpp:g}"
    from wsol.slides import SlideError, open_slide

    try:
        with open_slide(path) as slide:
            own = slide.mpp
    except SlideError:
        if mpp != mpp:
            raise
        with open_slide(path, mpp=mpp):  # the error of a file that is damaged as well
            own = None
    if own and mpp == mpp and not 0.95 < own / mpp < 1.05:
        cohort.notes.append(f"{path.name}: {mpp:g} um per px by the labels, {own:g} by the file, which is believed")
    cohort.mpps.append(own or mpp)
    return "" if own else f"{mpp:g}"


def _mask_of(path: Path, masks: Mapping[str, Path]) -> str:
    """The mask of a slide among those of a folder: SLIDE, SLIDE_mask, SLIDE-mask; blank where there is none."""
    for stem in (path.stem, path.name.split(".")[0]):
        for name in (stem, f"{stem}_mask", f"{stem}-mask"):
            if name in masks and masks[name].resolve() != path.resolve():
                return str(masks[name].absolute())
    return ""


def _refuse(cohort: Cohort, what: str, skip: bool) -> None:
    (cohort.left_out if skip else cohort.problems).append(what.replace("set the `mpp` column of the sample sheet", "give --mpp"))


def _judge(cohort: Cohort) -> None:
    """What all rows together lack, and what one should know of them."""
    classes: dict[str, Any] = cohort.classes
    if len(classes) < 2:
        cohort.problems.append(f"two different labels or more are needed; there are {classes or 'none'}")
    unknown = [row["sample"] for row in cohort.rows if not row["patient"]]
    if unknown:
        cohort.notes.append(
            f"{len(unknown)} of {len(cohort.rows)} samples name no patient (the first: {unknown[0]}): one patient may be on both "
            "sides of a split; add a column `patient` to the labels"
        )
    if any(row["split"] for row in cohort.rows):
        return
    for label in classes:
        units = {row["patient"] or f"sample {row['sample']}" for row in cohort.rows if row["label"] == label}
        if len(units) < FEWEST:
            cohort.problems.append(
                f"label {label!r} has {len(units)} patients; {FEWEST} are needed, to train, to validate and to test, or a column "
                "`split` (train, val, test)"
            )
