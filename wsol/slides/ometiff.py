"""A score map as a pyramidal OME-TIFF: QuPath, Fiji, OMERO and OpenSlide open it at its right size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsol._files import atomic
from wsol.slides.heatmap import heat_colors
from wsol.slides.surface import Surface, surface_of

Pixels = npt.NDArray[np.uint8]


def write_ome_tiff(
    score: npt.NDArray[np.float32] | Surface,
    path: str | Path,
    mpp: float | tuple[float, float] | None,
    *,
    colors: bool = False,
    tile: int = 256,
    origin_um: tuple[float, float] = (0.0, 0.0),
    name: str = "score",
) -> None:
    """Writes uint8 tiles: round(255 x score), or with `colors` the heat colors as RGB; levels halve until one fits in a tile.

    Levels are SubIFDs as OME-TIFF 6 says; OpenSlide sees the finest only. The finest is made and written tile by tile; what is
    held are the coarser ones, a third of its bytes.

    Args:
        score: (h, w) in [0, 1], or a surface.
        path: should end in .ome.tiff.
        mpp: um per px *of the map*, one number or (x, y); for a map over a slide's `Box` it is box.width * slide.mpp / w. None
            where it is not known: the file then says nothing of size and place.
        colors: heat colors instead of values.
        tile: side of a tile, a multiple of 16.
        origin_um: (x, y) of the map's corner on the slide.
        name: of the image in the file.
    """
    import tifffile

    surface = surface_of(score)
    metadata, resolution = _described(mpp, origin_um)
    metadata |= {"axes": "YXS" if colors else "YX", "Name": name}
    finest = _Finest(surface, tile, colors)
    options: dict[str, Any] = {"tile": (tile, tile), "compression": "zlib", "photometric": "rgb" if colors else "minisblack"}
    large = surface.shape[0] * surface.shape[1] > 2**30
    with atomic(path) as temporary, tifffile.TiffWriter(temporary, ome=True, bigtiff=large) as tiff:
        count = finest.levels
        for i in range(count):
            if resolution:
                options |= {"resolution": (resolution[0] / 2**i, resolution[1] / 2**i), "resolutionunit": "CENTIMETER"}
            if i == 0:
                shape = (*surface.shape, 3) if colors else surface.shape
                made: dict[str, Any] = {"shape": shape, "dtype": np.uint8, "metadata": metadata, "subifds": count - 1}
                tiff.write(finest.tiles(), **made, **options)
                level = finest.half
            else:
                tiff.write(level, subfiletype=1, metadata=None, **options)
                level = _halved(level)


def _described(
    mpp: float | tuple[float, float] | None, origin_um: tuple[float, float]
) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """(OME's words for size and place, px per cm of the finest level); nothing where no size is known."""
    if mpp is None:
        return {}, None
    x_um, y_um = (mpp, mpp) if isinstance(mpp, int | float) else mpp
    if not (x_um > 0 and y_um > 0):
        raise ValueError(f"mpp must be positive um per px of the map; got {mpp}")
    size = {"PhysicalSizeX": x_um, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": y_um, "PhysicalSizeYUnit": "µm"}
    place = {"PositionX": origin_um[0], "PositionXUnit": "µm", "PositionY": origin_um[1], "PositionYUnit": "µm"}
    return {**size, "Plane": place}, (1e4 / x_um, 1e4 / y_um)


class _Finest:
    """The tiles of the finest level, and the next coarser level, which fills up as they are made."""

    def __init__(self, surface: Surface, tile: int, colors: bool) -> None:
        self._surface, self._tile, self._colors = surface, tile, colors
        height, width = surface.shape
        self.levels = 1
        while max(-(-side // 2 ** (self.levels - 1)) for side in surface.shape) > tile:
            self.levels += 1
        shape = (-(-height // 2), -(-width // 2))
        self.half: Pixels = np.zeros(((*shape, 3) if colors else shape) if self.levels > 1 else 0, np.uint8)

    def tiles(self) -> Iterator[Pixels]:
        """Row by row, those at the edges filled up with 0."""
        side, (height, width) = self._tile, self._surface.shape
        for top in range(0, height, side):
            for left in range(0, width, side):
                score = self._surface.read((top, min(top + side, height)), (left, min(left + side, width)))
                pixels = heat_colors(score) if self._colors else np.round(score * 255).astype(np.uint8)
                if self.levels > 1:
                    small = _halved(pixels)
                    self.half[top // 2 : top // 2 + len(small), left // 2 : left // 2 + small.shape[1]] = small
                gap = [(0, side - pixels.shape[0]), (0, side - pixels.shape[1]), (0, 0)]
                yield np.pad(pixels, gap[: pixels.ndim])


def _halved(level: Pixels) -> Pixels:
    """Means of 2 x 2 px; a last odd row or column counts twice."""
    odd = [(0, level.shape[0] % 2), (0, level.shape[1] % 2), (0, 0)]
    even = np.pad(level, odd[: level.ndim], mode="edge")
    return np.asarray(cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA), np.uint8)
