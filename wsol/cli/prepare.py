"""`wsol prepare`: a dataset folder, a sample sheet or a phantom becomes a manifest, with the masks apart."""

from __future__ import annotations

from pathlib import Path

from wsol._names import resolve
from wsol.cli.config import Prepare


def prepare(settings: Prepare, *, manifest: Path, masks: Path, workers: int = 1) -> None:
    """List the samples of a source, check their splits, and write `manifest` and `masks`."""
    from wsol.data import SOURCES, check_splits, write_manifest

    make = resolve("source", settings.source, SOURCES, "wsol.data").dataset
    options = dict(settings.options)
    if settings.source == "phantom":  # the only source that draws its own slides
        options["workers"] = workers
    try:
        dataset = make(**options)
    except TypeError as error:
        raise ValueError(f"prepare.options: {error}; see `wsol list sources`") from error
    dataset.name = settings.name
    check_splits(dataset.samples, dataset.split_unit)
    write_manifest(dataset, manifest, masks)
