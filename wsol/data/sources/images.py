"""One's own images (regions, tiles, photographs of a field) from a sample sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
) -> Dataset:
    """The images that a CSV lists.

    Columns: sample, path, label, patient; optional slide, x, y, mpp, mask, split (train, val, valpx, test). Paths are relative
    to the sheet. Without `split`, the samples are parted into folds grouped by patient and stratified by label. A blank mask of
    a sample that is not positive is known to be empty (where masks mark the class); a blank mask of a positive one is unknown,
    and it is not scored.

    Args:
        sheet: the CSV.
        classes: two names or more, as the `label` column has them.
        positive: the class whose maps are drawn; the second of two by default.
        mask_means: "class": masks mark the positive class; "any-foreground": something that every class may hold.
        mask_values: ids that are foreground per class, e.g. {tumor: [2]}, or names of polygons' classes ({tumor: [Tumor]});
            without it all ids above 0, and all areas.
        folds: parts, at least 3; not used with a `split` column.
        valpx: validation samples per class whose masks may be opened; not used where the `split` column names some.
        seed: of the parting and of the choice of `valpx`.
        multilabel: a sample may have several labels, with | between them ("tumor|necrosis"): strategies and heads that can then
            answer one question per class; maps, masks and accuracy are those of the positive class.

    Raises:
        FileNotFoundError: no sheet.
        ValueError: mistakes in the sheet, one line each with its row number and remedy.
    """
    return sheets.build(
        sheets.options("images", sheet, classes, positive, mask_means, mask_values, folds, valpx, seed, multilabel)
    )
