"""A score map as a pyramidal OME-TIFF: QuPath, Fiji, OMERO and OpenSlide open it at its right size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsol.slides.heatmap import checked_score, heat_colors


def write_ome_tiff(
    score: npt.NDArray[np.float32],
    path: str | Path,
    mpp: float | tuple[float, float],
    *,
    colors: bool = False,
    tile: int = 256,
    origin_um: tuple[float, float] = (0.0, 0.0),
    name: str = "score",
) -> None:
    """Writes uint8 tiles: round(255 x score), or with `colors` the heat colors as RGB; levels halve until one fits in a tile.

    Levels are SubIFDs as OME-TIFF 6 says; OpenSlide sees the finest only.

    Args:
        score: (h, w) in [0, 1].
        path: should end in .ome.tiff.
        mpp: um per px *of the map*, one number or (x, y); for a map over a slide's `Box` it is box.width * slide.mpp / w.
        colors: heat colors instead of values.
        tile: side of a tile, a multiple of 16.
        origin_um: (x, y) of the map's corner on the slide.
        name: of the image in the file.
    """
    import tifffile

    score = checked_score(score)
    x_um, y_um = (mpp, mpp) if isinstance(mpp, int | float) else mpp
    if not (x_um > 0 and y_um > 0):
        raise ValueError(f"mpp must be positive um per px of the map; got {mpp}")
    levels = [heat_colors(score) if colors else np.round(score * 255).astype(np.uint8)]
    while max(levels[-1].shape[:2]) > tile:
        height, width = levels[-1].shape[:2]
        half = cv2.resize(levels[-1], (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(half, np.uint8))
    metadata = {
        "axes": "YXS" if colors else "YX",
        "Name": name,
        "PhysicalSizeX": x_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": y_um,
        "PhysicalSizeYUnit": "µm",
        "Plane": {"PositionX": origin_um[0], "PositionXUnit": "µm", "PositionY": origin_um[1], "PositionYUnit": "µm"},
    }
    options: dict[str, Any] = {"tile": (tile, tile), "compression": "zlib", "photometric": "rgb" if colors else "minisblack"}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with tifffile.TiffWriter(beside, ome=True, bigtiff=score.size > 2**30) as tiff:
        for i, level in enumerate(levels):
            resolution = (1e4 / (x_um * 2**i), 1e4 / (y_um * 2**i))
            extra: dict[str, Any] = (
                {"metadata": metadata, "subifds": len(levels) - 1} if i == 0 else {"subfiletype": 1, "metadata": None}
            )
            tiff.write(level, resolution=resolution, resolutionunit="CENTIMETER", **options, **extra)
    os.replace(beside, path)
