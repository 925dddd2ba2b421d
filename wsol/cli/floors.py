"""`wsol fit-floors`, `wsol draw-floors`: maps that need no network, drawn and scored like every other map."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsol.cli.files import read_json, write_json


def fit_floors(*, manifest: Path, masks: Path, out: Path, fold: int, mpp: float) -> None:
    """Fit the pixel regression on the validation masks of the role `valpx`; without any, the other floors stand alone."""
    from wsol.data import read_manifest, read_masks
    from wsol.slides import PixelRegression

    listing, truth = read_manifest(manifest), read_masks(masks)
    rows = [r for r in listing.rows(fold, "valpx").itertuples(index=False) if truth.has(r.sample)]
    pairs = []
    for row in rows:
        rgb, at = _pixels(row, listing.kind, mpp)
        pairs.append((rgb, _shrink(truth.open(row.sample, shape=_full_shape(row, listing.kind)), rgb.shape[:2])))
    used = any(mask.any() for _, mask in pairs) and any(not mask.all() for _, mask in pairs)
    regression = PixelRegression.fit(pairs, at).to_dict() if used else None
    files = sum(truth.kind(row.sample) == "file" for row in rows)  # the others are known, by their label, to be empty
    write_json(out, {"model": "floors", "regression": regression, "masks": files if used else 0, "supervision": "none"})


def draw_floors(
    *, model: Path, manifest: Path, out: Path, split: str, fold: int, slide: str | None, seed: int, mpp: float
) -> None:
    """Draw every floor for the samples of a split, or for one slide of it."""
    from wsol.data import MapWriter, read_manifest
    from wsol.slides import FLOORS, Box, PixelRegression, floor_map

    listing, fitted = read_manifest(manifest), read_json(model)
    regression = PixelRegression.from_dict(fitted["regression"]) if fitted["regression"] else None
    names = [name for name in FLOORS if name != "pixel-regression" or regression is not None]
    rows = listing.rows(fold, split)
    rows = rows if slide is None else rows[rows["sample"] == slide]
    with MapWriter(out, {"model": "floors", "map_class": "none", "methods": names, "masks": fitted["masks"]}) as writer:
        for row in rows.itertuples(index=False):
            rgb, at = _pixels(row, listing.kind, mpp)
            height, width = _full_shape(row, listing.kind)
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


def _shrink(mask: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    import cv2

    if mask.shape == shape:
        return mask
    return np.asarray(cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_AREA) >= 0.5)
