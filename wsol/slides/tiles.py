"""Which tiles of a slide hold tissue: a table of coordinates, a status with a reason, and a picture to check both."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from wsol.slides.slide import Slide
from wsol.slides.tiling import grid
from wsol.slides.tissue import tissue_mask


@dataclass(frozen=True)
class TileStatus:
    """How tiling went. "empty" is an answer, not a failure: the reason says why and what to try.

    Attributes:
        status: "ok" when there is at least one tile.
        reason: one sentence.
        tiles: tiles kept.
        positions: tiles of the whole grid, glass included.
        tissue_fraction: of the slide's area, 0 to 1.
        tile_px: side of a tile at `mpp`.
        mpp: um per px the tiles are meant to be read at.
    """

    status: Literal["ok", "empty"]
    reason: str
    tiles: int
    positions: int
    tissue_fraction: float
    tile_px: int
    mpp: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def tile_table(
    slide: Slide,
    *,
    tile_px: int | None = None,
    tile_um: float | None = None,
    mpp: float,
    overlap: float = 0.0,
    min_tissue: float = 0.25,
    tissue_mpp: float = 8.0,
) -> tuple[pd.DataFrame, TileStatus]:
    """The tiles of a slide that hold enough tissue. No pixels are kept: `slide.read(Box(x, y, width, height), mpp)` gives them.

    Args:
        slide: open.
        tile_px: side of a tile in px at `mpp`; or give
        tile_um: its side in um.
        mpp: um per px of the tiles.
        overlap: share of a tile's side that the next tile covers again, in [0, 1).
        min_tissue: least share of a tile that is tissue, in [0, 1]; 0 keeps every tile that holds any.
        tissue_mpp: um per px at which tissue is looked for.

    Returns:
        Columns x, y, width, height (int64, level-0 px) and tissue (float, 0 to 1), row by row; and the status.
    """
    if (tile_px is None) == (tile_um is None):
        raise ValueError(f"give the tile's side once, as tile_px or as tile_um; got tile_px={tile_px}, tile_um={tile_um}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is a share of the tile's side in [0, 1); got {overlap}")
    if not 0 <= min_tissue <= 1:
        raise ValueError(f"min_tissue is a share of the tile's area in [0, 1]; got {min_tissue}")
    px = tile_px if tile_px is not None else round(float(tile_um or 0) / mpp)
    side = round(px * mpp / slide.mpp)
    corners = grid(*slide.size, tile=side, step=max(1, round(side * (1 - overlap))))
    tissue_mpp = max(tissue_mpp, slide.mpp)
    mask = tissue_mask(slide.thumbnail(tissue_mpp), tissue_mpp)
    share = _share(mask, corners, side, slide.size)
    keep = (share >= min_tissue) & (share > 0)
    table = pd.DataFrame({"x": corners[keep, 0], "y": corners[keep, 1], "width": side, "height": side, "tissue": share[keep]})
    table = table.astype({"width": "int64", "height": "int64"})
    found = float(mask.mean())
    reason = _reason(share, keep, min_tissue, found)
    kept = int(keep.sum())
    return table, TileStatus("ok" if kept else "empty", reason, kept, len(corners), found, px, mpp)


def _reason(share: npt.NDArray[np.float64], keep: npt.NDArray[np.bool_], min_tissue: float, found: float) -> str:
    if keep.any():
        return f"{keep.sum()} of {len(keep)} tiles hold at least {min_tissue:.0%} tissue"
    if found == 0:
        return "no tissue found: the slide is empty, or its stain is too faint for the tissue mask; look at the thumbnail"
    fullest = f"no tile holds {min_tissue:.0%} (the fullest {share.max():.1%})"
    return f"tissue covers {found:.1%} of the slide, but {fullest}; lower min_tissue or the size of a tile"


def _share(
    mask: npt.NDArray[np.bool_], corners: npt.NDArray[np.int64], side: int, size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Share of each tile (its part outside the slide counts as glass) that is tissue, from a summed-area table."""
    height, width = mask.shape
    sums = cv2.integral(mask.astype(np.uint8)).astype(np.float64)
    scale = np.array([width / size[0], height / size[1]])
    low, high = corners * scale, (corners + side) * scale
    # A tile smaller than a mask px still looks at one px.
    low = np.minimum(np.floor(low + 0.5), np.floor(high - 1e-9)).astype(int).clip(0)
    high = np.maximum(np.floor(high + 0.5).astype(int), low + 1)
    area = (high - low).prod(axis=1)
    (x0, y0), (x1, y1) = low.T, np.minimum(high, [width, height]).T
    return np.asarray((sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / area)


def thumbnail_png(slide: Slide, table: pd.DataFrame, path: str | Path, *, mpp: float = 8.0) -> None:
    """Draws the whole slide, the outline of its tissue (green) and the kept tiles (dark lines) at `mpp` um per px or coarser."""
    mpp = max(mpp, slide.mpp, max(slide.size) * slide.mpp / 4096)
    rgb = slide.thumbnail(mpp)
    canvas = rgb.copy()
    scale = slide.mpp / mpp
    for x, y, width, height in table[["x", "y", "width", "height"]].to_numpy():
        left, top, right, bottom = (math.floor(v * scale) for v in (x, y, x + width, y + height))
        cv2.rectangle(canvas, (left, top), (right, bottom), (40, 40, 90), 1)
    outline, _ = cv2.findContours(tissue_mask(rgb, mpp).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outline, -1, (0, 170, 60), 2)
    write_png(path, canvas)


def write_png(path: str | Path, image: npt.NDArray[np.uint8]) -> None:
    """An RGB or gray array as PNG, written beside its place and then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    if not ok:
        raise RuntimeError(f"cv2 could not encode a {image.dtype} {image.shape} image as PNG for {path}")
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_bytes(data.tobytes())
    os.replace(beside, path)
