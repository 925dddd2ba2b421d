"""Masks: a file apart from the manifest, and the only door to a sample's mask."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsol.data.manifest import MASKS, read_table
from wsol.data.pixels import read_mask
from wsol.slides import open_region

if TYPE_CHECKING:
    import pandas as pd

    from wsol.slides import AnnotatedRegion


@dataclass(frozen=True)
class Masks:
    """Masks by sample. A sample without a row has no mask: nobody knows where its foreground is, which is not the same as an
    empty mask.

    Attributes:
        path: the file.
        table: columns as in `wsol.data.manifest.MASKS`.
        opened: samples whose mask was opened, so that a number can say what supervision it cost.
    """

    path: Path
    table: pd.DataFrame = field(repr=False)
    opened: set[str] = field(default_factory=set, repr=False)

    @property
    def samples(self) -> list[str]:
        """Samples that have a mask, known-empty ones included."""
        return list(self.table["sample"])

    def has(self, sample: str) -> bool:
        """Whether the sample has a mask, be it known to be empty."""
        return bool((self.table["sample"] == sample).any())

    def kind(self, sample: str) -> str:
        """`file`, or `empty`: known by its label to hold no foreground."""
        return str(self._row(sample)["kind"])

    def open(self, sample: str, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """The mask of a sample, bool (H, W).

        Args:
            sample: its name.
            shape: the (H, W) expected; without it any size is taken.

        Raises:
            FileNotFoundError: the sample has a mask file and it is not there. Never an empty mask in its place.
            ValueError: the sample has no mask, or its mask has another size than `shape`, or it is known to be empty and no
                `shape` says how large.
            RuntimeError: the file is damaged.
        """
        row = self._row(sample)
        self.opened.add(sample)
        if row["kind"] == "empty":
            if shape is None:
                raise ValueError(
                    f"sample {sample!r}: its mask is known to be empty and has no size of its own; give shape=(H, W)"
                )
            return np.zeros(shape, bool)
        path = _file(row)
        ids = read_mask(path)
        if shape is not None and ids.shape != tuple(shape):
            raise ValueError(
                f"sample {sample!r}: its mask {path} is {ids.shape[0]} x {ids.shape[1]} px (H x W) but {shape[0]} x "
                f"{shape[1]} is expected; "
                "a mask must have the size of its image (of level 0 for a slide)"
            )
        values = json.loads(row["values"])
        return np.isin(ids, values) if values else ids > 0

    def region(self, sample: str, size: tuple[int, int]) -> AnnotatedRegion | None:
        """The foreground of a slide as a region to lay tiles on, without a mask of the slide's size; None: known to be empty.

        A file of polygons gives the areas of the classes in `values`, or all; a mask file the ids in `values`, or all above 0.

        Args:
            sample: its name.
            size: (width, height) of the slide, level-0 px.

        Raises:
            FileNotFoundError: the sample has a mask file and it is not there.
            ValueError: the sample has no mask, or its file does not fit the slide; see `wsol.slides.open_region`.
            RuntimeError: the file is damaged.
        """
        row = self._row(sample)
        self.opened.add(sample)
        if row["kind"] == "empty":
            return None
        values = json.loads(row["values"])
        names = [value for value in values if isinstance(value, str)]
        ids = [value for value in values if not isinstance(value, str)]
        return open_region(_file(row), size, include=names or None, values=ids)

    def _row(self, sample: str) -> pd.Series:
        found = self.table[self.table["sample"] == sample]
        if found.empty:
            raise ValueError(f"{self.path}: sample {sample!r} has no mask ({len(self.table)} samples have one); ask `has` first")
        return found.iloc[0]


def _file(row: pd.Series) -> Path:
    """The mask file of a row, which is there."""
    path = Path(row["mask"])
    if not path.is_file():
        raise FileNotFoundError(
            f"sample {row['sample']!r}: its mask {path} is missing; restore it, or take it out of the source and run `wsol "
            f"prepare` again"
        )
    return path


def read_masks(path: str | Path) -> Masks:
    """Reads the table of masks; no mask is opened yet.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged or of another kind.
    """
    table, _ = read_table(path, MASKS, "`wsol prepare`")
    return Masks(Path(path), table)
