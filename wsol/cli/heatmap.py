"""`wsol heatmap`: pictures to look at and vector files to open, at the threshold that `evaluate` chose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol.cli.config import Heatmap
from wsol.cli.files import read_json, write_json
from wsol.cli.scoring import Scale, score, score_surface

if TYPE_CHECKING:
    from wsol.data import Masks, StoredMap

LONGEST = 4096
"""px of the longer side of a slide's overlay."""


@dataclass(frozen=True)
class Look:
    """How raw values become a picture.

    Attributes:
        scale: from raw values to scores in [0, 1].
        threshold: on the scores; None where none is known: then nothing is outlined.
        name: of the class whose map it is.
    """

    scale: Scale
    threshold: float | None
    name: str


def heatmap(settings: Heatmap, *, manifest: Path, masks: Path | None, maps: Path, scores: Path, out: Path) -> None:
    """Draw the samples of one map file; `out` indexes {sample: {method: {kind: path}}}, paths relative to it.

    Kinds are `overlay`, and for slides `geojson`, `ome_tiff` and `regions`.
    """
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
                draw = draw_slide if listing.kind == "slides" else draw_image
                look = Look(Scale(**facts["scale"]), threshold_of(facts, sample), facts["class"])
                index.setdefault(sample, {})[method] = draw(
                    settings, row, reader.read(method, sample), look, method, truth, out.parent
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


def draw_image(
    settings: Heatmap, row: Any, stored: StoredMap, look: Look, method: str, truth: Masks | None, folder: Path
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
        score(stored, look.scale, rgb.shape[:2], row.sample),
        overlay,
        mask=mask,
        threshold=look.threshold,
        mpp=mpp,
    )
    return {"overlay": overlay.name}


def draw_slide(
    settings: Heatmap, row: Any, stored: StoredMap, look: Look, method: str, truth: Masks | None, folder: Path
) -> dict[str, str]:
    """Of one slide an overlay PNG, a pyramidal OME-TIFF and, with a threshold, regions as QuPath GeoJSON and as a table.

    Scores are made from the cells of the map where they are written, block by block; only the overlay is held, `LONGEST` px long.
    """
    from wsol.slides import Box, geojson, open_slide, overlay_png, region_csv, score_regions, write_ome_tiff

    folder.mkdir(parents=True, exist_ok=True)
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        box, level0_mpp = Box(0, 0, *slide.size), slide.mpp
        shape = slide.shape_at(box, settings.mpp)
        seen_mpp = max(settings.mpp, level0_mpp * max(slide.size) / LONGEST)
        rgb = slide.thumbnail(seen_mpp)
    mask = _shrunk_mask(truth, row.sample, stored.size, rgb.shape[:2])
    seen = score_surface(stored, look.scale, rgb.shape[:2], row.sample)
    overlay_png(rgb, seen, folder / f"{method}.png", mask=mask, threshold=look.threshold, mpp=seen_mpp)
    surface = score_surface(stored, look.scale, shape, row.sample)
    write_ome_tiff(
        surface, folder / f"{method}.ome.tiff", mpp=(level0_mpp * box.width / shape[1], level0_mpp * box.height / shape[0])
    )
    kinds = {"overlay": "png", "ome_tiff": "ome.tiff"}
    if look.threshold is not None:
        found = score_regions(surface, look.threshold, frame=box)
        geojson(found, folder / f"{method}.geojson", classification=f"{look.name} ({method})")
        region_csv(found, folder / f"{method}.csv", mpp=level0_mpp, classification=look.name)
        kinds |= {"geojson": "geojson", "regions": "csv"}
    return {kind: f"{method}.{ending}" for kind, ending in kinds.items()}


def _shrunk_mask(truth: Masks | None, sample: str, size: tuple[int, int], shape: tuple[int, ...]) -> Any:
    """The mask of a slide at the size of its overlay; None where it has none."""
    import cv2

    if truth is None or not truth.has(sample):
        return None
    if truth.kind(sample) == "empty":
        return np.zeros(shape[:2], bool)
    if truth.drawn(sample):
        from wsol.slides import Box

        return truth.part(sample, size, Box(0, 0, *size[::-1]), (shape[0], shape[1]))
    full = truth.open(sample, shape=size).view(np.uint8)
    return cv2.resize(full, (shape[1], shape[0]), interpolation=cv2.INTER_AREA).astype(bool)
