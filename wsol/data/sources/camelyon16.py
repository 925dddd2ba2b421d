"""CAMELYON16: lymph nodes with and without metastases of breast cancer, slides as released, labels per slide.

Ehteshami Bejnordi et al., Diagnostic Assessment of Deep Learning Algorithms for Detection of Lymph Node Metastases in Women With
Breast Cancer, JAMA 318 (2017). Exceptions are those of the data set's README and of Rony et al., MELBA 2023.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol.data.splits import draw_valpx, grouped_split

if TYPE_CHECKING:
    from wsol.data.manifest import Dataset

paper = "Ehteshami Bejnordi et al. 2017"
CLASSES = ["normal", "tumor"]
COUNTS = {"normal": 159, "tumor": 111, "test": 129}
IMAGES = ("images", "training/normal", "training/tumor", "testing/images")
ANNOTATIONS = ("annotations", "training/lesion_annotations", "testing/lesion_annotations")
REFERENCES = ("testing/reference.csv", "evaluation/reference.csv", "reference.csv")
PARTLY = (
    *(f"tumor_{n:03d}" for n in (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)), "test_114",
)  # fmt: skip
"""Slides with tumor that nobody annotated, by the README: mostly a second section of the same tissue."""
RENAMED = {"normal_086": "tumor_111"}
"""Released as normal first, and found to hold a metastasis."""
REMOVED = ("test_049",)
"""A duplicate of another slide, removed from the later releases."""
NOTE = (
    "CAMELYON16: which slides are of one patient was not published, so validation slides may share patients with training slides."
)


@dataclass(frozen=True)
class Slide:
    """One slide: its name, file, label (index into `CLASSES`), and its annotation where there is one."""

    sample: str
    path: Path
    label: int
    annotation: Path | None

    @property
    def test(self) -> bool:
        """Whether it is of the official test set."""
        return self.sample.startswith("test_")

    @property
    def known(self) -> bool:
        """Whether all of its foreground is known: a normal slide has none, a tumor is annotated, and wholly."""
        return self.label == 0 or (self.annotation is not None and self.sample not in PARTLY)


def dataset(
    root: str | Path, folds: int = 5, valpx: int = 3, seed: int = 0, partly: bool = False, strict_counts: bool = True
) -> Dataset:
    """The slides of CAMELYON16, with the official test set in every fold.

    The 270 training slides are parted into folds, stratified by label; fold k validates on part k. Masks are the annotations
    (ASAP XML), less the areas that are cut out of them (group "_2"). Slides that are only partly annotated have labels and no
    masks. `normal_086` is `tumor_111`, whatever it is called; `test_049`, a duplicate, is left out.

    Args:
        root: the folder as released: `training/normal`, `training/tumor`, `training/lesion_annotations`, `testing/images`,
            `testing/lesion_annotations` and `testing/reference.csv` (GigaScience); or `images` and `annotations` (AWS).
        folds: parts of the training slides, at least 2.
        valpx: validation slides per class whose masks may be opened.
        seed: of the parting and of the choice of `valpx`.
        partly: take the annotations of partly annotated slides as if they were whole.
        strict_counts: all 159 + 111 + 129 slides are required; False takes those that are there.

    Raises:
        FileNotFoundError: no slides, or one of the complete set is missing.
        ValueError: labels and annotations contradict each other; a slide or an annotation is there twice.
    """
    from wsol.data.manifest import Dataset, masks_table, samples_table

    slides = read_slides(Path(root), strict_counts)
    truth = [s for s in slides if s.known or (partly and s.annotation is not None)]
    masks: list[dict[str, Any]] = [
        {"sample": s.sample, "mask": str(s.annotation) if s.label else "", "kind": "file" if s.label else "empty", "values": []}
        for s in truth
    ]
    return Dataset(
        name="camelyon16",
        kind="slides",
        task="binary",
        classes=list(CLASSES),
        positive=["tumor"],
        mask_means="class",
        split_unit="slide",
        samples=samples_table(_rows(slides, folds, valpx, seed, {s.sample for s in truth})),
        masks=masks_table(masks),
        source=f"CAMELYON16 in {root}",
        note=NOTE,
    )


def listing(
    root: str | Path, folds: int = 5, valpx: int = 3, seed: int = 0, partly: bool = False, strict_counts: bool = True
) -> list[dict[str, Any]]:
    """The rows of the manifest as `dataset` has them, without loading pandas: for planning."""
    slides = read_slides(Path(root), strict_counts)
    truth = {s.sample for s in slides if s.known or (partly and s.annotation is not None)}
    return list(_rows(slides, folds, valpx, seed, truth))


def _rows(slides: Sequence[Slide], folds: int, valpx: int, seed: int, truth: set[str]) -> Iterator[dict[str, Any]]:
    train = [s for s in slides if not s.test]
    labels = [s.label for s in train]
    part = grouped_split([s.sample for s in train], labels, folds, np.random.default_rng(seed))
    for fold in range(folds):
        held = [i for i in range(len(train)) if part[i] == fold]
        chosen = draw_valpx(held, labels, valpx, [s.sample in truth for s in train], np.random.default_rng([seed, fold]))
        roles = [(s, "valcl" if part[i] == fold else "train") for i, s in enumerate(train)]
        for slide, role in [*roles, *((train[i], "valpx") for i in chosen), *((s, "test") for s in slides if s.test)]:
            yield {
                "sample": slide.sample, "slide": slide.sample, "patient": "", "path": str(slide.path), "mpp": float("nan"),
                "label": slide.label, "labels": str(slide.label), "fold": fold, "role": role,
            }  # fmt: skip


def read_slides(root: Path, strict_counts: bool = True) -> list[Slide]:
    """The slides in `root`, by name, with labels and annotations."""
    files = _by_name(root, IMAGES, ".tif")
    if not files:
        raise FileNotFoundError(
            f"no slides (*.tif) in {root}: {', '.join(IMAGES)}; give the folder CAMELYON16 of the release (`wsol fetch "
            "camelyon16-sample` gets a part of it)"
        )
    annotations = _by_name(root, ANNOTATIONS, ".xml")
    labels = _reference(root, files, annotations)
    slides = []
    for name, path in files.items():
        if name in REMOVED or (RENAMED.get(name) in files):
            continue
        sample = RENAMED.get(name, name)
        label = labels[name] if name.startswith("test_") else CLASSES.index(sample.split("_")[0])
        drawn = annotations.get(sample, annotations.get(name))
        if drawn is not None and not label:
            raise ValueError(f"{path}: labeled normal, but {drawn} annotates tumor on it; one of them is of another slide")
        slides.append(Slide(sample, path, label, drawn))
    if strict_counts:
        _check_complete(root, slides)
    return sorted(slides, key=lambda s: s.sample)


def _by_name(root: Path, folders: Sequence[str], suffix: str) -> dict[str, Path]:
    """Name in lower case -> file: releases write Normal_001.tif and normal_001.tif."""
    found: dict[str, Path] = {}
    for path in (p for folder in folders for p in sorted((root / folder).glob("*")) if p.suffix.lower() == suffix):
        name = path.stem.lower()
        if name.split("_")[0] in COUNTS and (other := found.setdefault(name, path)) != path:
            raise ValueError(f"{name} is there twice: {other} and {path}; keep one, or give a root that holds one release")
    return found


def _reference(root: Path, files: dict[str, Path], annotations: dict[str, Path]) -> dict[str, int]:
    """Labels of test slides: as the reference has them; without it tumor where one is annotated, and on `test_114`."""
    path = next((root / name for name in REFERENCES if (root / name).is_file()), None)
    tests = [name for name in files if name.startswith("test_")]
    if path is None:
        return {name: int(name in annotations or name in PARTLY) for name in tests}
    with path.open(newline="", encoding="utf-8-sig") as file:
        told = {row[0].strip().lower().removesuffix(".tif"): row[1].strip().lower() for row in csv.reader(file) if len(row) > 1}
    if missing := [name for name in tests if told.get(name) not in CLASSES and name not in REMOVED]:
        raise ValueError(f"{path}: no label normal or tumor for {', '.join(missing[:5])} ({len(missing)} slides)")
    return {name: CLASSES.index(told[name]) for name in tests if name not in REMOVED}


def _check_complete(root: Path, slides: Sequence[Slide]) -> None:
    """Raises FileNotFoundError unless all slides are there, and all annotations of those with tumor but for `test_114`."""
    counts = {kind: sum(s.sample.startswith(f"{kind}_") for s in slides) for kind in COUNTS}
    bare = [s.sample for s in slides if s.label and s.annotation is None and s.sample != "test_114"]
    if counts != COUNTS or bare:
        lacking = f", and no annotations of {len(bare)} with tumor ({', '.join(bare[:5])})" if bare else ""
        raise FileNotFoundError(
            f"CAMELYON16 has {COUNTS} slides, {root} has {counts}{lacking}; get the rest, unpack lesion_annotations.zip, or set "
            "strict_counts: false to work with a part"
        )
