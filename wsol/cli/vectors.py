"""Features that were made before: their tiles, the bags that train on them, the maps drawn from them, and `wsol embed`.

A slide is then its file of features (`wsol.slides.vectors`), one vector per tile, and a map has one value per tile, laid where
the tile lies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.config import Model, Tile, Train

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from wsol.data import BagBatches, ImageBatches, VectorBags
    from wsol.models import Localizer
    from wsol.slides import Overview, TileStatus

BATCH = 1024
"""Tiles at a time; a vector is small."""
SLACK = 1.25
"""Factor between um per tile of two slides that pass for one magnification: scanners differ in it by some percent."""


def stored_width(backbone: str) -> int:
    """Numbers per tile of a backbone `stored:WIDTH`; 0 for one that reads images."""
    kind, _, width = backbone.partition(":")
    return int(width) if kind == "stored" and width.isdecimal() else 0


def is_stored(net: Localizer) -> bool:
    """Whether a net reads features instead of images."""
    return stored_width((net.recipe or {}).get("backbone", "")) > 0


def features_of(settings: Tile, row: Any) -> Path | None:
    """The file of features of a slide, whether it is there or not: the slide itself, or one of the folder; None without any."""
    from wsol.slides.vectors import SUFFIXES

    if Path(row.path).suffix in SUFFIXES:
        return Path(row.path)
    return None if settings.features is None else Path(settings.features) / f"{row.sample}.h5"


def placed(settings: Tile, row: Any, features: Path) -> tuple[Overview, pd.DataFrame, TileStatus, float]:
    """Overview, tiles, status and um per px of a slide whose tiles are those of a file of features.

    Raises:
        SlideError: the slide or the file cannot be read, features are not finite, or a tile lies wholly beyond the slide.
    """
    import pandas as pd

    from wsol.slides import SlideError, TileStatus, open_slide, overview, read_vectors

    found = read_vectors(features)
    with open_slide(row.path, mpp=None if row.mpp != row.mpp else row.mpp) as opened:
        seen, size, mpp = overview(opened, settings.tissue_mpp), opened.size, opened.mpp
    if any(own >= most + found.side for own, most in zip(found.size, size, strict=True)) and len(found.coords):
        raise SlideError(f"{features}: tiles reach to {found.size}, the slide to {size}: the file is of another slide")
    found.check()
    count, side = len(found.coords), found.side
    table = pd.DataFrame({"x": found.coords[:, 0], "y": found.coords[:, 1], "width": side, "height": side, "tissue": 1.0})
    table = table.assign(pen=0.0, fold=0.0, sharpness=math.nan, flags=pd.Series([""] * count, dtype=object))
    said = f"{count} tiles of {side} px by {found.encoder}, {found.width} numbers each"
    guess = " (their side is the distance of neighbors: the file does not say it)" if found.guessed else ""
    table.attrs = {"features": str(features), "made": {"width": found.width, **found.made}}
    if not found.guessed:
        table.attrs["made"]["um per tile"] = side * mpp
    status = TileStatus(
        "ok" if count else "empty", said + guess if count else "the file of features has no tiles", count, count,
        float(seen.tissue.mean()), float(seen.pen.mean()), {}, 0, settings.side_px, side, settings.mpp,
    )  # fmt: skip
    return seen, table, status, mpp


def stored_bags(
    net: Localizer,
    drawn: ImageBatches | BagBatches,
    fixed: ImageBatches | BagBatches,
    tiles: Path | None,
    model: Model,
    how: Train,
) -> tuple[VectorBags, VectorBags, str]:
    """What trains a net on stored features in place of its batches, and what tells one set of files from another.

    Raises:
        ValueError: no files of features, of another width or made in different ways, or a training that needs pixels.
    """
    from wsol.data import BagBatches, VectorBags
    from wsol.data.tile_tables import read_tables
    from wsol.tracking import config_hash

    if tiles is None or type(drawn) is not BagBatches or not isinstance(fixed, BagBatches):
        raise ValueError(f"backbone {model.backbone!r}: features are of slides, which train as bags of tiles (tiles: bags)")
    if how.embeddings != "none":
        raise ValueError(f"backbone {model.backbone!r} is no net that makes embeddings; leave out train.embeddings")
    made, told = [], []
    facts: dict[Path, dict[str, Any]] = {}
    for bags in (drawn, fixed):
        tables = read_tables(tiles, bags.rows["sample"])
        if bare := [sample for sample, table in tables.items() if "features" not in table.attrs]:
            raise ValueError(
                f"backbone {model.backbone!r}: the tiles of {bare[0]!r} are not those of a file of features; name the folder in "
                "tile.features and run `wsol tile` again"
            )
        files = {sample: Path(table.attrs["features"]) for sample, table in tables.items()}
        facts |= {files[sample]: table.attrs.get("made", {}) for sample, table in tables.items()}
        made.append(VectorBags(bags, files, net.backbone.channels[-1]))
        told += [[sample, path.stat().st_size, path.stat().st_mtime_ns] for sample, path in files.items()]
    _require_alike(facts)
    return made[0], made[1], config_hash({"files": told})


def _require_alike(made: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raises ValueError where two files say that they were made differently: their numbers then mean different things.

    What a file does not say passes.
    """
    first: dict[str, tuple[Path, Any]] = {}
    for path, facts in made.items():
        for name, value in facts.items():
            other, known = first.setdefault(name, (path, value))
            slack = SLACK if name in ("mpp", "um per tile") else 1.0
            if value != known and not (slack > 1 and known / slack <= value <= known * slack):
                raise ValueError(
                    f"{path} and {other} do not belong together: {name} {value} and {known}; make the features of all slides in "
                    "one way, and run `wsol tile` again"
                )


def draw_vectors(
    net: Localizer, row: Any, label: int | None, settings: dict[str, Any], out: Path, provenance: dict[str, Any], tiles: Path
) -> None:
    """All maps of one slide from its features: one value per tile.

    The tiles are the cells of one field, so methods draw as on a slide that is drawn whole; one that needs more than features in
    any order is drawn tile by tile.
    """
    import pandas as pd
    import torch

    from wsol.data import MapWriter
    from wsol.slides import Box, SlideError, open_slide, read_vectors

    table, methods = pd.read_parquet(tiles), settings["methods"]
    if "features" not in table.attrs:
        raise ValueError(f"{tiles}: tiles of a file of features expected for {net.describe()['backbone']}; see tile.features")
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        width, height = slide.size
    start, found = time.perf_counter(), read_vectors(table.attrs["features"])
    if found.width != net.backbone.channels[-1]:
        raise SlideError(f"{found.path}: {found.width} numbers per tile, {net.describe()['backbone']} reads other features")
    vectors = torch.from_numpy(found.features()).to(next(net.parameters()).device)
    logits = _logits(net, vectors) if len(vectors) else None
    target = label if label is not None else 0 if logits is None else int(logits.argmax())
    drawn = {m["id"]: _values(net, m, vectors, target) for m in methods}
    each = (time.perf_counter() - start) / len(methods)
    cell, lay = laid(found.coords, found.side, (height, width))
    frame = Box(0, 0, lay.shape[1] * cell, lay.shape[0] * cell)
    facts = {"target": target, "frame": frame, "size": (height, width), "coverage": lay >= 0, "seconds": each}
    routes = {name: {"from": kind, "reason": reason} for name, (_, kind, reason) in drawn.items()}
    with MapWriter(out, {**provenance, "drawn": routes, "encoder": found.encoder}) as writer:
        for name, (values, kind, _) in drawn.items():
            array = np.where(lay >= 0, values[lay], 0) if len(values) else np.zeros(lay.shape)
            writer.add(name, row.sample, array, drawn="tile" if kind == "tile" else "whole", **facts)
        if logits is not None:
            writer.predict(row.sample, logits.to(torch.float32).cpu().numpy())


def _batches(vectors: torch.Tensor) -> Iterator[torch.Tensor]:
    """(b, d, 1, 1)."""
    for start in range(0, len(vectors), BATCH):
        yield vectors[start : start + BATCH, :, None, None]


def _logits(net: Localizer, vectors: torch.Tensor) -> torch.Tensor:
    """Logits (k,) of the bag of all tiles."""
    import torch

    with torch.inference_mode():
        state = torch.cat([net.head.bag_state(net(part)) for part in _batches(vectors)])
        return net.head.pool_bags(state, torch.zeros(len(state), dtype=torch.int64, device=state.device))[0]


def _values(net: Localizer, made: dict[str, Any], vectors: torch.Tensor, target: int) -> tuple[npt.NDArray[np.float32], str, str]:
    """The map of one method, (n,), from what it was drawn ("cells", "slide", "tile"), and why."""
    import torch

    from wsol.cams import cam, draw_cells, route
    from wsol.cli.localize import draw
    from wsol.models import Features

    if not len(vectors):
        return np.zeros(0, np.float32), "cells", "no tiles"
    how = route(made["method"], net, made["options"])
    field = vectors.T[None, :, :, None].contiguous()  # (1, d, n, 1): tiles as cells in one column
    if how.kind == "cells":
        found = draw_cells(net, {made["id"]: (made["method"], made["options"])}, field, target, len(vectors))[made["id"]][:, 0]
    elif how.kind == "slide":
        wanted = torch.full((1,), target, dtype=torch.int64, device=field.device)
        found = cam(made["method"], net, None, wanted, features=Features((field,)), **made["options"])[0, :, 0]
    else:
        found = torch.cat([draw(net, part, target, [made])[0][made["id"]].flatten(1).mean(1) for part in _batches(vectors)])
    return found.detach().to(torch.float32).cpu().numpy(), how.kind, how.reason


def laid(coords: npt.NDArray[np.int64], side: int, shape: tuple[int, int]) -> tuple[int, npt.NDArray[np.int64]]:
    """Side of a cell in level-0 px, and the number of the tile in each cell (h, w), -1 where none lies.

    Cells are as large as all corners and sides allow, so that a map has the outlines of its tiles; where tiles start anywhere
    (CLAM begins anew at every contour) cells of a quarter tile are close. Where tiles overlap, the one whose middle is nearest
    counts.

    Args:
        coords: (n, 2) of (x, y), level-0 px; what reaches beyond the slide is cut off.
        side: of a tile.
        shape: (H, W) of the slide.
    """
    cell = int(np.gcd.reduce([side, *coords.ravel().tolist()])) if len(coords) else side
    cell = cell if cell >= side / 8 else max(1, side // 4)
    height, width = (-(-length // cell) for length in shape)
    found, best = np.full((height, width), -1, np.int64), np.full((height, width), np.inf)
    span = max(1, round(side / cell))
    for i, (x, y) in enumerate(coords.tolist()):
        top, left = round(y / cell), round(x / cell)
        rows, columns = np.arange(max(top, 0), min(top + span, height)), np.arange(max(left, 0), min(left + span, width))
        if rows.size and columns.size:
            away = np.maximum(np.abs(rows + 0.5 - top - span / 2)[:, None], np.abs(columns + 0.5 - left - span / 2)[None])
            place = np.ix_(rows, columns)
            nearer = away < best[place]
            best[place] = np.where(nearer, away, best[place])
            found[place] = np.where(nearer, i, found[place])
    return cell, found
