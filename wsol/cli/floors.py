"""`wsol fit-floors`, `wsol draw-floors`: maps that need no network, drawn and scored like every other map."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsol.cli.faults import draw_or_record, failure_of
from wsol.cli.files import read_json, write_json


def fit_floors(*, manifest: Path, masks: Path, out: Path, fold: int, mpp: float, tiles: Path | None = None) -> None:
    """Fit the pixel regression on the validation masks of the role `valpx`; without any, the other floors stand alone.

    `tiles` is the folder of tile tables: slides that could not be read when they were tiled are left out.
    """
    from wsol.data import read_manifest, read_masks
    from wsol.slides import Box, PixelRegression

    listing, truth = read_manifest(manifest), read_masks(masks)
    rows = [
        r
        for r in listing.rows(fold, "valpx").itertuples(index=False)
        if truth.has(r.sample) and not (tiles and failure_of(tiles / f"{r.sample}.parquet"))
    ]
    pairs = []
    for row in rows:
        rgb, at = _pixels(row, listing.kind, mpp)
        shape = _full_shape(row, listing.kind)
        pairs.append((rgb, truth.part(row.sample, shape, Box(0, 0, *shape[::-1]), rgb.shape[:2])))
    used = any(mask.any() for _, mask in pairs) and any(not mask.all() for _, mask in pairs)
    regression = PixelRegression.fit(pairs, at).to_dict() if used else None
    files = sum(truth.kind(row.sample) == "file" for row in rows)  # the others are known, by their label, to be empty
    write_json(out, {"model": "floors", "regression": regression, "masks": files if used else 0, "supervision": "none"})


def draw_floors(
    *,
    model: Path,
    manifest: Path,
    out: Path,
    split: str,
    fold: int,
    slide: str | None,
    seed: int,
    mpp: float,
    tiles: Path | None = None,
) -> None:
    """Draw every floor for the samples of a split, or for one slide of it, whose tile table `tiles` says if it can be read."""
    from wsol.data import read_manifest
    from wsol.slides import FLOORS, PixelRegression

    listing, fitted = read_manifest(manifest), read_json(model)
    regression = PixelRegression.from_dict(fitted["regression"]) if fitted["regression"] else None
    names = [name for name in FLOORS if name != "pixel-regression" or regression is not None]
    rows = listing.rows(fold, split)
    chosen = list((rows if slide is None else rows[rows["sample"] == slide]).itertuples(index=False))
    provenance = {"model": "floors", "map_class": "none", "methods": names, "masks": fitted["masks"]}
    draw = partial(_draw, chosen, listing.kind, names, regression, seed, mpp, out, provenance)
    if slide is None or not chosen:
        draw()
    else:
        draw_or_record(draw, verb="draw-floors", row=chosen[0], tiles=tiles, out=out, provenance=provenance)


def _draw(
    rows: list[Any],
    kind: str,
    names: list[str],
    regression: Any,
    seed: int,
    mpp: float,
    out: Path,
    provenance: dict[str, Any],
) -> None:
    from wsol.data import MapWriter
    from wsol.slides import Box, floor_map

    with MapWriter(out, provenance) as writer:
        for row in rows:
            rgb, at = _pixels(row, kind, mpp)
            height, width = _full_shape(row, kind)
            generator = np.random.default_rng([seed, *row.sample.encode()])
            for name in names:
                start = time.perf_counter()
                array = floor_map(name, rgb, at, generator=generator, model=regression)
                seconds = time.perf_counter() - start
                frame = Box(0, 0, width, height)
                writer.add(name, row.sample, array, target=0, frame=frame, size=(height, width), seconds=seconds)


def _pixels(row: Any, kind: str, mpp: float) -> tuple[npt.NDArray[np.uint8], float]:
    """The image at its own resolution, or the slide at `mpp`; and the mpp of what came."""
    from wsol.data import read_image
    from wsol.slides import open_slide

    if kind == "images":
        return read_image(row.path), row.mpp if row.mpp == row.mpp else 0.5
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        return slide.thumbnail(mpp), mpp


def _full_shape(row: Any, kind: str) -> tuple[int, int]:
    """(H, W) of the sample at level 0."""
    from wsol.data import image_shape
    from wsol.slides import open_slide

    if kind == "images":
        return image_shape(row.path)
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        return slide.size[1], slide.size[0]
