"""`wsol tile`: one slide becomes a tile table, a status with its reason, and a thumbnail with tissue and grid."""

from __future__ import annotations

import json
from pathlib import Path

from wsol.cli.config import Tile
from wsol.cli.files import atomic, write_json


def tile(settings: Tile, *, manifest: Path, slide: str, out: Path) -> dict[str, object]:
    """Tile one slide of the manifest; `out` is the table, its status and thumbnail stand beside it.

    A slide without tissue gives an empty table and a status that says why: the study goes on.
    """
    from wsol.data import read_manifest
    from wsol.slides import open_slide, thumbnail_png, tile_table

    row = read_manifest(manifest).sample(slide)
    with open_slide(row.path, mpp=None if row.mpp != row.mpp else row.mpp) as opened:
        table, status = tile_table(
            opened,
            tile_px=settings.side_px,
            mpp=settings.mpp,
            overlap=0,
            min_tissue=settings.min_tissue,
            tissue_mpp=settings.tissue_mpp,
        )
        table.attrs = {
            "tile_px": settings.side_px,
            "mpp": settings.mpp,
            "side": round(settings.side_px * settings.mpp / opened.mpp),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        thumbnail_png(opened, table, out.with_suffix(".png"), mpp=settings.tissue_mpp)
    found = {"slide": slide, **json.loads(json.dumps(status.to_dict()))}
    write_json(out.with_suffix(".json"), found)
    with atomic(out) as temporary:
        table.to_parquet(temporary)
    return found
