"""`wsol tile`: one slide becomes a tile table, a status with its reason, and a picture of tissue, tiles and flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol.cli.config import Tile
from wsol.cli.faults import failure
from wsol.cli.files import atomic, write_json
from wsol.cli.vectors import features_of, placed

if TYPE_CHECKING:
    import pandas as pd

    from wsol.data import Manifest
    from wsol.slides import Overview, Slide, TileStatus

COLUMNS = {"x": "int64", "y": "int64", "width": "int64", "height": "int64", "tissue": "float64"}
"""Of the tile table of a slide that could not be read."""


def tile(
    settings: Tile, *, manifest: Path, slide: str, out: Path, strict: bool = False, masks: Path | None = None
) -> dict[str, Any]:
    """Tile one slide of the manifest; `out` is the table, its status and its picture stand beside it.

    A slide without tissue, and one that cannot be read, gives an empty table and a status that says why: the study goes on.

    Args:
        settings: how.
        manifest: of `wsol prepare`.
        slide: its name there.
        out: the table (parquet), written last.
        strict: a slide that gives no tile is an error and leaves no file, as with `strict` in the settings.
        masks: of `wsol prepare`; opened only where tiles are to be labeled by annotations.

    Raises:
        RuntimeError: such a slide, where it is an error.
        ValueError: tiles are to be labeled, and there are no masks, or they do not mark the positive class.
    """
    import pandas as pd

    from wsol.data import read_manifest
    from wsol.slides import SlideError, quality_png

    listing = read_manifest(manifest)
    row = listing.sample(slide)
    strict = strict or settings.strict
    picture = out.with_suffix(".png")
    features = features_of(settings, row)
    try:
        seen, table, status, mpp = _cut(settings, row) if features is None else placed(settings, row, features)
    except (SlideError, OSError) as error:
        if strict:
            raise RuntimeError(f"slide {slide!r}: {error} (tile.strict: the study stops here)") from error
        found = failure(slide, "tile", row.path, error)
        table = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
        table.attrs = {"failure": found}
        _no_picture(picture, f"{slide}: cannot be read")
    else:
        found = {"slide": slide, **json.loads(json.dumps(status.to_dict()))}
        if strict and status.status != "ok":
            raise RuntimeError(f"slide {slide!r}: {status.reason} (tile.strict: the study stops here)")
        if settings.labels == "annotation":
            table = _labeled(table, listing, row, masks, seen.size, settings.foreground)
        table.attrs |= {"tile_px": settings.side_px, "mpp": settings.mpp, "side": status.side}
        quality_png(seen, table, picture, level0_mpp=mpp)
    write_json(out.with_suffix(".json"), found)
    with atomic(out) as temporary:
        table.to_parquet(temporary)
    return found


def _cut(settings: Tile, row: Any) -> tuple[Overview, pd.DataFrame, TileStatus, float]:
    """Overview, tiles, status and um per px of a slide of which every tile can be read."""
    from wsol.slides import Limits, open_slide, overview, tile_table

    quality = settings.qc.model_dump()
    limits = Limits(**{**quality, "drop": tuple(quality["drop"])})
    with open_slide(row.path, mpp=None if row.mpp != row.mpp else row.mpp) as opened:
        seen = overview(opened, settings.tissue_mpp)
        cut = settings.model_dump(include={"mpp", "overlap", "edge", "align", "min_tissue"})
        table, status = tile_table(opened, tile_px=settings.side_px, **cut, limits=limits, seen=seen)
        looked = limits.sharpness_mpp  # for blur every tile is read already
        if looked is None or opened.level_at(max(looked, opened.mpp)) != opened.level_at(settings.mpp):
            _try_tiles(opened, table, settings.mpp)
        return seen, table, status, opened.mpp


def _labeled(
    table: pd.DataFrame, listing: Manifest, row: Any, masks: Path | None, size: tuple[int, int], least: float
) -> pd.DataFrame:
    """The tiles of a slide with their labels; a positive slide that nobody annotated has unlabeled ones."""
    from wsol.data import label_tiles, read_masks

    if masks is None:
        raise ValueError("tile.labels: annotation opens the masks: give --masks, the table that `wsol prepare` wrote")
    if listing.mask_means != "class" or listing.multilabel:
        raise ValueError(
            f"tile.labels: annotation needs masks of the positive class and one label per slide; those of {listing.name!r} "
            "are of another kind: leave it out"
        )
    truth, positive = read_masks(masks), listing.classes[row.label] in listing.positive
    if positive and not truth.has(row.sample):
        return table.assign(foreground=float("nan"), label=-1)
    region = truth.region(row.sample, size) if truth.has(row.sample) else None
    return label_tiles(table, region, label=int(row.label), positive=positive, least=least)


def _try_tiles(opened: Slide, table: pd.DataFrame, mpp: float) -> None:
    """Read every tile once: a damaged one is found here, not by a training that has run for hours."""
    from wsol.slides import Box

    for box in table[["x", "y", "width", "height"]].itertuples(index=False):
        opened.read(Box(*map(int, box)), mpp)


def _no_picture(path: Path, words: str) -> None:
    """A strip with words in the place of a slide's picture."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (640, 40), "white")
    ImageDraw.Draw(strip).text((10, 14), words, "black")
    with atomic(path) as temporary:
        strip.save(temporary)
