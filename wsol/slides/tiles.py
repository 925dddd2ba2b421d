"""Which tiles of a slide hold tissue and what is wrong with them: a table of coordinates, and a status with a reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from wsol._files import atomic
from wsol._names import closest
from wsol.slides.qc import FLAGS, Limits, Overview, overview, share, tile_sharpness
from wsol.slides.reader import SlideError
from wsol.slides.slide import Slide
from wsol.slides.tiling import Edge, aligned_side, grid

COARSEST = 1.5
"""How many times as coarse as its tiles a slide may be: beyond, they would be made up by enlarging."""
ALIGN = 0.01
"""How much the side of a tile may change for the sake of the grid in which the slide is stored."""


@dataclass(frozen=True)
class TileStatus:
    """How tiling went. "empty" is an answer, not a failure: the reason says why and what to try.

    Attributes:
        status: "ok" when there is at least one tile.
        reason: one sentence.
        tiles: tiles kept.
        positions: tiles of the whole grid, glass included.
        tissue_fraction: of the slide's area, 0 to 1.
        pen_fraction: of the slide's area, marker and black border.
        flagged: tiles with tissue per flag, dropped ones included.
        dropped: tiles with tissue that were taken out for their flags.
        tile_px: side of a tile at `mpp`.
        side: of a tile, level-0 px.
        mpp: um per px the tiles are meant to be read at.
    """

    status: Literal["ok", "empty"]
    reason: str
    tiles: int
    positions: int
    tissue_fraction: float
    pen_fraction: float
    flagged: dict[str, int]
    dropped: int
    tile_px: int
    side: int
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
    edge: Edge = "pad",
    align: bool = True,
    min_tissue: float = 0.25,
    tissue_mpp: float = 8.0,
    limits: Limits | None = None,
    seen: Overview | None = None,
) -> tuple[pd.DataFrame, TileStatus]:
    """The tiles of a slide that hold enough tissue. No pixels are kept: `slide.read(Box(x, y, width, height), mpp)` gives them.

    Args:
        slide: open.
        tile_px: side of a tile in px at `mpp`; or give
        tile_um: its side in um.
        mpp: um per px of the tiles.
        overlap: share of a tile's side that the next tile covers again, in [0, 1).
        edge: tiles at the right and lower edge: "pad" (they reach beyond the slide, white), "drop", or "shift" (moved inside).
        align: let the side change by up to 1 % to fit the grid in which the slide is stored, so that fewer stored tiles are
            decoded; a microscope's mpp is not known any better.
        min_tissue: least share of a tile that is tissue, in [0, 1]; 0 keeps every tile that holds any.
        tissue_mpp: um per px at which tissue is looked for.
        limits: when a tile is flagged or dropped; those of `Limits()` when None.
        seen: the slide's overview, where it is known already.

    Returns:
        Columns x, y, width, height (int64, level-0 px); tissue, pen, fold (shares of the tile, 0 to 1), sharpness (variance of
        the Laplacian over its tissue, NaN where not measured) and flags (of `FLAGS`, joined by ", "; "" for none); row by row.
        And the status.

    Raises:
        SlideError: level 0 is over 1.5 times as coarse as `mpp`.
    """
    if slide.mpp > COARSEST * mpp:
        raise SlideError(
            f"{slide.path}: its finest level has {slide.mpp:g} um per px, tiles of {mpp:g} would be made up by enlarging it; set "
            f"`tile.mpp` to {slide.mpp:.2g} or more, or the `mpp` column of the sample sheet if the file is wrong"
        )
    limits = Limits() if limits is None else limits
    _check(tile_px, tile_um, overlap, min_tissue, limits)
    px = tile_px if tile_px is not None else round(float(tile_um or 0) / mpp)
    side = _side(slide, px * mpp / slide.mpp, mpp, ALIGN if align else 0.0)
    corners = _corners(slide.size, side, overlap, edge)
    seen = overview(slide, tissue_mpp) if seen is None else seen
    tissue = share(seen.tissue, corners, side, slide.size)
    enough = (tissue >= min_tissue) & (tissue > 0)
    table = _measured(slide, seen, corners[enough], side, tissue[enough], limits)
    dropped = _has(table, limits.drop)
    flagged = {flag: int(_has(table, [flag]).sum()) for flag in FLAGS}
    kept = table[~dropped].reset_index(drop=True)
    reason = _reason(seen, tissue, enough, dropped, min_tissue, limits)
    status = TileStatus(
        "ok" if len(kept) else "empty", reason, len(kept), len(corners), float(seen.tissue.mean()), float(seen.pen.mean()),
        flagged, int(dropped.sum()), px, side, mpp,
    )  # fmt: skip
    return kept, status


def on_lattice(table: pd.DataFrame) -> pd.DataFrame:
    """The tiles that lie side by side, a tile's side apart from (0, 0): those that a map is made of, without the ones between."""
    found = table[(table["x"] % table["width"] == 0) & (table["y"] % table["height"] == 0)].reset_index(drop=True)
    found.attrs = dict(table.attrs)
    return found


def _check(tile_px: int | None, tile_um: float | None, overlap: float, min_tissue: float, limits: Limits) -> None:
    if (tile_px is None) == (tile_um is None):
        raise ValueError(f"give the tile's side once, as tile_px or as tile_um; got tile_px={tile_px}, tile_um={tile_um}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is a share of the tile's side in [0, 1); got {overlap}")
    if not 0 <= min_tissue <= 1:
        raise ValueError(f"min_tissue is a share of the tile's area in [0, 1]; got {min_tissue}")
    for flag in limits.drop:
        if flag not in FLAGS:
            raise ValueError(closest("flag", flag, FLAGS))
    if "blur" in limits.drop and limits.sharpness_mpp is None:
        raise ValueError("blurred tiles cannot be dropped with sharpness_mpp=None: give the um per px at which blur is measured")


def _side(slide: Slide, wanted: float, mpp: float, tolerance: float) -> int:
    """The side of a tile in level-0 px: as wanted, or one that cuts no stored tile of the level that is read, where near."""
    side = max(1, round(wanted))
    level = slide.level_at(mpp)
    stored = {length * slide.downsamples[level] for length in slide.tiles[level] or ()}
    if len(stored) == 1 and (native := stored.pop()) == round(native):
        near = aligned_side(side, round(native))
        return near if abs(near - wanted) <= tolerance * wanted else side
    return side


def _corners(size: tuple[int, int], side: int, overlap: float, edge: Edge) -> npt.NDArray[np.int64]:
    """The grid, and where tiles overlap the one without overlap too, of which maps are made: its last tiles reach further."""
    plain = grid(*size, tile=side, edge=edge)
    if not overlap:
        return plain
    between = grid(*size, tile=side, step=max(1.0, side * (1 - overlap)), edge=edge)
    return np.unique(np.concatenate([plain, between])[:, ::-1], axis=0)[:, ::-1]


def _measured(
    slide: Slide,
    seen: Overview,
    corners: npt.NDArray[np.int64],
    side: int,
    tissue: npt.NDArray[np.float64],
    limits: Limits,
) -> pd.DataFrame:
    pen, fold = (share(mask, corners, side, slide.size) for mask in (seen.pen, seen.fold))
    sharp = np.full(len(corners), np.nan)
    if limits.sharpness_mpp is not None:
        sharp = tile_sharpness(slide, seen, corners, side, limits.sharpness_mpp)
    raised = {"blur": sharp < limits.blur, "pen": pen >= limits.pen, "fold": fold >= limits.fold}
    flags = [", ".join(flag for flag in FLAGS if raised[flag][i]) for i in range(len(corners))]
    table = pd.DataFrame({"x": corners[:, 0], "y": corners[:, 1], "width": side, "height": side, "tissue": tissue, "pen": pen})
    table = table.assign(fold=fold, sharpness=sharp, flags=pd.Series(flags, dtype=object))
    return table.astype({"width": "int64", "height": "int64"})


def _has(table: pd.DataFrame, flags: Any) -> pd.Series:
    """Whether each tile has one of the flags."""
    return table["flags"].map(lambda raised: bool(set(raised.split(", ")) & set(flags))).astype(bool)


def _reason(
    seen: Overview,
    tissue: npt.NDArray[np.float64],
    enough: npt.NDArray[np.bool_],
    dropped: pd.Series,
    min_tissue: float,
    limits: Limits,
) -> str:
    found, pen = seen.tissue.mean(), seen.pen.mean()
    if found == 0:
        covered = f" (marker or black border covers {pen:.0%} of it)" if pen > 0.01 else ""
        return f"no tissue found{covered}: the slide is empty, or its stain is too faint for the tissue mask; look at its picture"
    if not enough.any():
        fullest = f"(the fullest {tissue.max():.1%})" if len(tissue) else "(edge: drop leaves none)"
        return (
            f"tissue covers {found:.1%} of the slide, but no tile holds {min_tissue:.0%} {fullest}; lower min_tissue or the size "
            "of a tile"
        )
    held = f"{enough.sum()} of {len(enough)} tiles hold at least {min_tissue:.0%} tissue"
    if not dropped.any():
        return held
    why = f"{dropped.sum()} of them dropped for {' or '.join(limits.drop)}"
    return f"{held}, {why}" + ("; look at its picture, and change the limits or `drop`" if dropped.all() else "")


def write_png(path: str | Path, image: npt.NDArray[np.uint8]) -> None:
    """An RGB or gray array as PNG, written beside its place and then renamed."""
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    if not ok:
        raise RuntimeError(f"cv2 could not encode a {image.dtype} {image.shape} image as PNG for {path}")
    with atomic(path) as temporary:
        temporary.write_bytes(data.tobytes())
