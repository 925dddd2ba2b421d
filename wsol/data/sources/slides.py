"""One's own whole-slide images from a sample sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsol.data.manifest import Dataset
from wsol.data.sources import sheet as sheets


def dataset(
    sheet: str | Path,
    classes: Sequence[str],
    positive: str | Sequence[str] | None = None,
    mask_means: str = "class",
    mask_values: Mapping[str, Sequence[int | str]] | None = None,
    folds: int = 5,
    valpx: int = 3,
    seed: int = 0,
    multilabel: bool = False,
    mask_unit: str = "px",
) -> Dataset:
    """The slides that a CSV lists.

    Columns and errors as for the source `images`; a sample is a slide, `mpp` overrides what its file says, and a mask has the
    size of level 0 or is a file of polygons in its px (.geojson of QuPath, .xml of ASAP).

    Args:
        sheet: the CSV.
        classes: two names or more, as the `label` column has them.
        positive: the class whose maps are drawn; the second of two by default.
        mask_means: "class": masks mark the positive class; "any-foreground": something that every class may hold.
        mask_values: ids that are foreground per class, e.g. {tumor: [2]}, or names of polygons' classes ({tumor: [Tumor]});
            without it all ids above 0, and all areas.
        folds: parts, at least 3; not used with a `split` column.
        valpx: validation slides per class whose masks may be opened; not used where the `split` column names some.
        seed: of the parting and of the choice of `valpx`.
        multilabel: a slide may have several labels, with | between them, as for the source `images`.
        mask_unit: of the coordinates of polygons: "px" of level 0, as QuPath and ASAP write them; or "um", then the sheet has
            the column `mpp`.
    """
    return sheets.build(
        sheets.options("slides", sheet, classes, positive, mask_means, mask_values, folds, valpx, seed, multilabel, mask_unit)
    )


def listing(
    sheet: str | Path,
    classes: Sequence[str],
    positive: str | Sequence[str] | None = None,
    mask_means: str = "class",
    mask_values: Mapping[str, Sequence[int | str]] | None = None,
    folds: int = 5,
    valpx: int = 3,
    seed: int = 0,
    multilabel: bool = False,
    mask_unit: str = "px",
) -> list[dict[str, Any]]:
    """The rows of the manifest as `dataset` has them, without loading pandas and without warnings: for planning."""
    given = sheets.options("slides", sheet, classes, positive, mask_means, mask_values, folds, valpx, seed, multilabel, mask_unit)
    return sheets.rows(given, sheets.read_sheet(given))
