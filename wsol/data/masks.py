"""Masks: a file apart from the manifest, and the only door to a sample's mask.

A mask is an image, or a file of polygons (`wsol.slides.open_region`), which has no px until it is asked for some. Polygons and
tiled TIFFs are read in parts.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsol.data.manifest import MASKS, read_table
from wsol.data.pixels import image_shape, read_mask
from wsol.slides import Box, open_region, tiled_mask

if TYPE_CHECKING:
    import pandas as pd

    from wsol.slides import AnnotatedRegion


POLYGONS = (".geojson", ".json", ".xml", ".mosaic")
"""How files of polygons end, and those of masks in pieces (`wsol.slides.mosaic`): they have no px until some are asked for."""


@dataclass(frozen=True)
class DrawnMask:
    """A mask that is drawn or read band by band, where a whole one would not fit in memory.

    Attributes:
        region: what is drawn or read.
        shape: (H, W) of the slide at level 0.
    """

    region: AnnotatedRegion
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Its px."""
        return self.shape[0] * self.shape[1]

    def __getitem__(self, rows: slice) -> npt.NDArray[np.bool_]:
        """Whole rows, bool (h, W)."""
        top, bottom, _ = rows.indices(self.shape[0])
        height = max(0, bottom - top)
        if not height:
            return np.zeros((0, self.shape[1]), bool)
        return self.region.raster(Box(0, top, self.shape[1], height), (height, self.shape[1]))


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
    _drawn: dict[str, AnnotatedRegion] = field(default_factory=dict, repr=False)

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
            ValueError: the sample has no mask, or its mask has another size than `shape`, or it is known to be empty or made
                of polygons and no `shape` says how large.
            RuntimeError: the file is damaged.
        """
        row = self._row(sample)
        self.opened.add(sample)
        drawn = self.drawn(sample)
        if (drawn or row["kind"] == "empty") and shape is None:
            what = "drawn in polygons" if drawn else "known to be empty"
            raise ValueError(f"sample {sample!r}: its mask is {what} and has no size of its own; give shape=(H, W)")
        if row["kind"] == "empty":
            return np.zeros(shape or (), bool)
        if drawn and shape:
            return DrawnMask(self._region(row, shape), shape)[:]
        path = _file(row)
        ids = read_mask(path)
        if shape is not None and ids.shape != tuple(shape):
            raise ValueError(
                f"sample {sample!r}: its mask {path} is {ids.shape[0]} x {ids.shape[1]} px (H x W) but {shape[0]} x "
                f"{shape[1]} is expected; "
                "a mask must have the size of its image (of level 0 for a slide)"
            )
        values = [v for v in json.loads(row["values"]) if not isinstance(v, str)]
        found = np.isin(ids, values) if values else ids > 0
        if values and not found.any() and (others := np.unique(ids[ids > 0])).size:
            raise ValueError(
                f"sample {sample!r}: its mask {path} holds the ids {others[:10].tolist()} and none of {values}, which "
                "`mask_values` says are foreground: correct one of them"
            )
        return found

    def drawn(self, sample: str) -> bool:
        """Whether the mask is a file of polygons."""
        return Path(self._row(sample)["mask"]).suffix.lower() in POLYGONS

    def bands(self, sample: str, shape: tuple[int, int]) -> npt.NDArray[np.bool_] | DrawnMask:
        """The mask of a sample to be read in bands of rows: what `open` gives, or what draws or reads it band by band."""
        region = self._parts(sample, shape)
        return self.open(sample, shape) if region is None else DrawnMask(region, shape)

    def part(self, sample: str, shape: tuple[int, int], box: Box, out: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """A box of the mask, (H, W) as `out` says: px whose center is inside the polygons or on foreground of a tiled TIFF; of
        other mask images those at least half of which is foreground. Beyond the sample there is none.

        Args:
            sample: its name.
            shape: (H, W) of the sample at level 0.
            box: in px of level 0.
            out: (H, W).
        """
        import cv2

        if (region := self._parts(sample, shape)) is not None:
            return region.raster(box, out)
        left, top = max(box.x, 0), max(box.y, 0)
        inside = self.open(sample, shape)[top : box.y + box.height, left : box.x + box.width]
        if inside.shape == out == (box.height, box.width):
            return inside
        part = np.zeros((box.height, box.width), np.float32)
        part[top - box.y : top - box.y + inside.shape[0], left - box.x : left - box.x + inside.shape[1]] = inside
        return np.asarray(cv2.resize(part, out[::-1], interpolation=cv2.INTER_AREA) >= 0.5)

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
        return None if row["kind"] == "empty" else self._region(row, size[::-1])

    def _parts(self, sample: str, shape: tuple[int, int]) -> AnnotatedRegion | None:
        """The mask as a region to be read in parts; None where its file is read whole, or has another size than its sample."""
        row = self._row(sample)
        if row["kind"] == "empty":
            return None
        if sample not in self._drawn and not self.drawn(sample):
            path = _file(row)
            if not tiled_mask(path) or image_shape(path) != tuple(shape):
                return None
        self.opened.add(sample)
        return self._region(row, shape)

    def _region(self, row: pd.Series, shape: tuple[int, int]) -> AnnotatedRegion:
        """The region of a row; the last one is kept, since a slide is asked for part after part."""
        if row["sample"] not in self._drawn:
            values = json.loads(row["values"])
            names = [value for value in values if isinstance(value, str)]
            ids = [value for value in values if not isinstance(value, str)]
            um = None if math.isnan(row["um"]) else float(row["um"])
            found = open_region(_file(row), shape[::-1], include=names or None, values=ids, um=um)
            if self.drawn(row["sample"]) and not _touches(found, shape):
                raise ValueError(
                    f"sample {row['sample']!r}: nothing that {row['mask']} draws lies on it, {shape[1]} x {shape[0]} px (width x "
                    "height): coordinates are px of level 0 (um, if the source says `mask_unit: um`), so it may be of another "
                    "slide, or drawn on a smaller copy"
                )
            self._drawn.clear()
            self._drawn[row["sample"]] = found
        return self._drawn[row["sample"]]

    def _row(self, sample: str) -> pd.Series:
        found = self.table[self.table["sample"] == sample]
        if found.empty:
            raise ValueError(f"{self.path}: sample {sample!r} has no mask ({len(self.table)} samples have one); ask `has` first")
        return found.iloc[0]


def _touches(region: AnnotatedRegion, shape: tuple[int, int]) -> bool:
    """Whether something of a drawn region lies on the slide; areas smaller than a px of level 0 do not."""
    outlined = getattr(region, "geometry", None)
    if outlined is None or outlined.is_empty:  # pieces of masks; or a file that draws nothing, which is an answer
        return True
    left, top, right, bottom = outlined.bounds
    return bool(left < shape[1] and top < shape[0] and right > 0 and bottom > 0)


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
