"""`wsol prepare`: a dataset folder, a sample sheet or a phantom becomes a manifest, with the masks apart."""

from __future__ import annotations

import inspect
from pathlib import Path

from wsol._names import closest, resolve
from wsol.cli.config import Prepare


def prepare(settings: Prepare, *, manifest: Path, masks: Path, workers: int = 1) -> None:
    """List the samples of a source, check their splits, and write `manifest` and `masks`."""
    from wsol.data import SOURCES, check_splits, write_manifest

    make = resolve("source", settings.source, SOURCES, "wsol.data").dataset
    options = dict(settings.options)
    if settings.source == "phantom":  # the only source that draws its own slides
        options["workers"] = workers
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise ValueError("prepare.options: " + closest(f"option of source {settings.source!r}:", option, known))
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"prepare.options: source {settings.source!r} needs {option!r}; options: {', '.join(known)}")
    dataset = make(**options)
    dataset.name = settings.name
    check_splits(dataset.samples, dataset.split_unit)
    write_manifest(dataset, manifest, masks)
