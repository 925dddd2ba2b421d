"""`wsol prepare`: a dataset folder, a sample sheet or a phantom becomes a manifest, with the masks apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsol._names import resolve
from wsol._options import check_options
from wsol.cli.config import Prepare

if TYPE_CHECKING:
    from wsol.data import Dataset


def prepare(settings: Prepare, *, manifest: Path, masks: Path, workers: int = 1) -> str:
    """List the samples of a source, check their splits, and write `manifest` and `masks`; what was found, in words."""
    from wsol.data import SOURCES, check_splits, write_manifest

    make = resolve("source", settings.source, SOURCES, "wsol.data").dataset
    options = dict(settings.options)
    if settings.source == "phantom":  # the only source that draws its own slides
        options["workers"] = workers
    check_options(f"source {settings.source!r}", make, options)
    dataset = make(**options)
    dataset.name = settings.name
    check_splits(dataset.samples, dataset.split_unit)
    if dataset.kind == "images":
        _check_sizes(dataset)
    write_manifest(dataset, manifest, masks)
    return dataset.source


def _check_sizes(dataset: Dataset) -> None:
    """Compare mask and image headers now, not after an hour of training; slides are compared where their masks are opened.

    Raises:
        ValueError: a mask has another size than its image.
        FileNotFoundError: a mask is missing.
    """
    from wsol.data import POLYGONS, image_shape

    paths = dict(zip(dataset.samples["sample"], dataset.samples["path"], strict=True))
    for row in dataset.masks[dataset.masks["kind"] == "file"].itertuples():
        if row.mask.lower().endswith(POLYGONS):
            continue
        mask, image = image_shape(row.mask), image_shape(paths[row.sample])
        if mask != image:
            raise ValueError(
                f"sample {row.sample!r}: mask {row.mask} is {mask} (H, W) px "
                f"but its image is {image}; export it at the image's size"
            )
