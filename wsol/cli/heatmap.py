"""`wsol heatmap`: pictures to look at and vector files to open, at the threshold that `evaluate` chose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol.cli.config import Heatmap
from wsol.cli.files import read_json, write_json
from wsol.cli.scoring import Scale, score

if TYPE_CHECKING:
    from wsol.data import Masks, StoredMap


def heatmap(settings: Heatmap, *, manifest: Path, masks: Path | None, maps: Path, scores: Path, out: Path) -> None:
    """Draw the samples of one map file; `out` indexes {sample: {method: {overlay, geojson, ome_tiff}}}, paths relative to it."""
    from wsol.data import MapReader, read_manifest, read_masks

    listing, result = read_manifest(manifest), read_json(scores)
    truth = read_masks(masks) if masks else None
    index: dict[str, Any] = {}
    with MapReader(maps) as reader:
        wanted = [m for m in reader.methods if m in settings.methods] or reader.methods[:1]
        for method in wanted:
            facts = result["methods"][method]
            names = (
                reader.samples(method)
                if listing.kind == "slides"
                else _spread(facts["samples"], reader.samples(method), settings.samples)
            )
            for sample in names:
                row = listing.sample(sample)
                draw = _slide if listing.kind == "slides" else _image
                index.setdefault(sample, {})[method] = draw(
                    settings, row, reader.read(method, sample), facts, method, truth, out.parent
                )
    write_json(out, index)


def _spread(scored: dict[str, Any], samples: list[str], count: int) -> list[str]:
    """`count` samples from best to worst Dice, evenly spread: best, median and worst are always among them."""
    ranked = sorted(samples, key=lambda s: -(scored.get(s, {}).get("dice") or 0.0))
    if len(ranked) <= count:
        return ranked
    return [ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, count).round().astype(int))]


def threshold_of(facts: dict[str, Any], sample: str) -> float:
    """The threshold of one sample: its own where the source is per image, else the common one."""
    chosen = facts["threshold"]
    return float((chosen.get("values") or {}).get(sample, chosen["value"]))


def _image(
    settings: Heatmap, row: Any, stored: StoredMap, facts: dict[str, Any], method: str, truth: Masks | None, folder: Path
) -> dict[str, str]:
    """The overlay of one image at its own resolution."""
    from wsol.data import read_image
    from wsol.slides import overlay_png

    rgb = read_image(row.path)
    overlay = folder / f"{row.sample}-{method}.png"
    overlay.parent.mkdir(parents=True, exist_ok=True)
    mask = truth.open(row.sample, shape=rgb.shape[:2]) if truth and truth.has(row.sample) else None
    mpp = row.mpp if row.mpp == row.mpp else None
    overlay_png(
        rgb,
        score(stored, Scale(**facts["scale"]), rgb.shape[:2], row.sample),
        overlay,
        mask=mask,
        threshold=threshold_of(facts, row.sample),
        mpp=mpp,
    )
    return {"overlay": overlay.name}


def _slide(
    settings: Heatmap, row: Any, stored: StoredMap, facts: dict[str, Any], method: str, truth: Masks | None, folder: Path
) -> dict[str, str]:
    """Overlay PNG, QuPath GeoJSON in level-0 px, and a pyramidal OME-TIFF of one slide."""
    import cv2

    from wsol.slides import Box, geojson, open_slide, overlay_png, write_ome_tiff

    folder.mkdir(parents=True, exist_ok=True)
    threshold, scale = threshold_of(facts, row.sample), Scale(**facts["scale"])
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        rgb = slide.thumbnail(settings.mpp)
        width, height = slide.size
        level0_mpp = slide.mpp
    mask = None
    if truth and truth.has(row.sample):
        full = truth.open(row.sample, shape=(height, width)).astype(np.uint8)
        mask = cv2.resize(full, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_AREA).astype(bool)
    here = score(stored, scale, rgb.shape[:2], row.sample)
    overlay_png(rgb, here, folder / f"{method}.png", mask=mask, threshold=threshold, mpp=settings.mpp)
    name = f"{facts['class']} ({method})"
    geojson(here, threshold, frame=Box(0, 0, width, height), classification=name, path=folder / f"{method}.geojson")
    write_ome_tiff(here, folder / f"{method}.ome.tiff", mpp=level0_mpp * width / rgb.shape[1])
    return {"overlay": f"{method}.png", "geojson": f"{method}.geojson", "ome_tiff": f"{method}.ome.tiff"}
