"""GlaS in five folds that keep patients apart, over all 165 images: for choices, and for numbers that hold on new patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsol.data.manifest import Dataset
from wsol.data.sources.glas import NOTE, assemble, read_glas, sample_row
from wsol.data.splits import grouped_split, roles

paper = "Sirinukunwattana et al. 2017"


def dataset(root: str | Path, folds: int = 5, valpx: int = 3, seed: int = 0, strict_counts: bool = True) -> Dataset:
    """GlaS, split by patient: fold k tests on part k, validates on part k + 1 and trains on the rest.

    Args:
        root: the folder of GlaS, as for the source `glas`; it needs no lists of folds.
        folds: parts, at least 3. GlaS has 16 patients, five of whom carry both grades.
        valpx: validation images of each grade whose masks may be opened.
        seed: of the parting and of the choice of `valpx`.
        strict_counts: the complete set of images is required, as for `glas`.
    """
    images = read_glas(Path(root), strict_counts)
    listed = list(images.values())
    labels = [image.label for image in listed]
    fold_of = grouped_split([image.patient for image in listed], labels, folds, np.random.default_rng(seed))
    drawn = roles(fold_of, labels, valpx=valpx, eligible=[True] * len(listed), seed=seed)
    rows = [sample_row(listed[i], fold, role) for i, fold, role in drawn]
    return assemble(
        "glas-patient",
        images,
        rows,
        split_unit="patient",
        source=f"GlaS in {root}, {folds} folds by patient, seed {seed}",
        note=NOTE,
    )
