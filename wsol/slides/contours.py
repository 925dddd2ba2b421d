"""A score map cut at a threshold: regions as polygons on the slide, for QuPath (GeoJSON) and as a table."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely import affinity
from shapely.geometry import Polygon

from wsol._files import atomic
from wsol.slides.slide import Box
from wsol.slides.surface import Surface, surface_of

BLOCK = 1024
"""px along the side of the parts in which contours are followed."""

_GRID = 2.0**-12
"""px of the map to which corners of parts are rounded before they are joined: both sides of a seam must have the same."""

Rings = list[npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Region:
    """A connected part of the slide where the score reaches the threshold.

    Attributes:
        polygon: in level-0 px, with its holes; valid, its corners at hundredths of a px.
        mean: score, over the px of the map whose centers lie inside (of the nearest px where there are none).
        max: likewise.
        threshold: that it was cut at.
    """

    polygon: Polygon
    mean: float
    max: float
    threshold: float

    @cached_property
    def rings(self) -> list[list[list[float]]]:
        """Outline and holes."""
        rings = (self.polygon.exterior, *self.polygon.interiors)
        return [[[round(x, 2), round(y, 2)] for x, y in ring.coords] for ring in rings]

    @property
    def id(self) -> str:
        """From the content: the same map gives the same files."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(self.rings)))


def score_regions(
    score: npt.NDArray[np.float32] | Surface, threshold: float, *, frame: Box, min_area: float = 0.0
) -> list[Region]:
    """Regions where the bilinear surface through the centers of the px reaches `threshold`, from above to below.

    Args:
        score: (h, w) in [0, 1], or a surface, that covers `frame`.
        threshold: positive iff score >= threshold.
        frame: the part of the slide the map covers, level-0 px.
        min_area: smaller regions are dropped, and smaller holes filled; level-0 px squared.
    """
    surface = surface_of(score)
    height, width = surface.shape
    scale = (frame.width / width, frame.height / height)
    smallest = max(min_area, 0) / (scale[0] * scale[1])
    found = []
    for part in _joined(list(_parts(surface, threshold))):
        holes = [h for h in part.interiors if Polygon(h).area > smallest]
        whole = Polygon(part.exterior, holes)
        if whole.area > smallest:
            mean, top = _measured(surface, whole)
            placed = affinity.affine_transform(whole, [scale[0], 0, 0, scale[1], frame.x, frame.y])
            for rounded in shapely.get_parts(shapely.set_precision(placed, 0.01)):  # rounding by itself may cross lines
                if rounded.area > 0:
                    found.append(Region(rounded, mean, top, float(threshold)))
    return sorted(found, key=lambda region: region.polygon.bounds[1::-1])


def _parts(surface: Surface, threshold: float) -> Iterator[Any]:
    """Polygons in px of the map, block by block. Neighbors share the line of px centers between them, hence its crossings.

    The map goes on for half a px beyond its outermost centers, as its edge.
    """
    height, width = surface.shape
    edge = shapely.box(0, 0, width, height)
    for top in range(-1, height, BLOCK):
        for left in range(-1, width, BLOCK):
            bottom, right = min(top + BLOCK, height), min(left + BLOCK, width)
            rows, columns = (max(top, 0), min(bottom + 1, height)), (max(left, 0), min(right + 1, width))
            values = surface.read(rows, columns)
            if not (values >= threshold).any():
                continue
            border = ((int(top < 0), int(bottom == height)), (int(left < 0), int(right == width)))
            values = np.pad(values, border, mode="edge")
            block = shapely.box(left + 0.5, top + 0.5, right + 0.5, bottom + 0.5)
            if (values >= threshold).all():
                yield shapely.intersection(block, edge)
                continue
            inside = shapely.intersection(_contours(values, threshold, left + 0.5, top + 0.5), shapely.intersection(block, edge))
            yield from (p for p in shapely.get_parts(inside) if isinstance(p, Polygon))


def _contours(values: npt.NDArray[np.float32], threshold: float, x: float, y: float) -> Any:
    """Regions of an array whose first value is at (x, y); they end within one px behind its outermost values."""
    from skimage.measure import find_contours

    level = float(np.nextafter(threshold, -np.inf))  # ">=": a px at the threshold is inside
    ringed = np.pad(values.astype(np.float64), 1, constant_values=-1.0)  # so that all lines close
    rings = []
    for line in find_contours(ringed, level, fully_connected="low", positive_orientation="high"):
        if len(line) >= 4:
            rings.append(line[:, ::-1] + (x - 1, y - 1))  # array (row, column) -> (x, y)
    return shapely.union_all(_nested(rings))


def _nested(rings: Rings) -> list[Any]:
    """Regions with their holes, from closed lines that do not cross. Which way a line turns says where the high ground is."""
    shells: list[Any] = []
    holes: list[Any] = []
    for ring in rings:
        x, y = (ring - ring[0]).T  # or the area of a tiny ring far from 0 is lost in rounding
        turn = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()
        (shells if turn < 0 else holes).append(Polygon(ring))
    shells.sort(key=lambda p: p.area)
    tree = shapely.STRtree(shells)
    inner: list[list[Any]] = [[] for _ in shells]
    for hole in holes:
        around = [
            int(i) for i in tree.query(hole) if shells[i].area > hole.area and shells[i].contains(hole.representative_point())
        ]
        if around:  # the smallest region around it; every hole has one but for those without an area
            inner[min(around)].append(hole.exterior)
    made = (Polygon(shell.exterior, rim) for shell, rim in zip(shells, inner, strict=True))
    return [p if p.is_valid else shapely.make_valid(p) for p in made]


def _joined(parts: list[Any]) -> list[Polygon]:
    """Parts that touch along a seam become one."""
    if not parts:
        return []
    return [p for p in shapely.get_parts(shapely.union_all(parts, grid_size=_GRID)) if isinstance(p, Polygon) and p.area > 0]


def _measured(surface: Surface, polygon: Polygon) -> tuple[float, float]:
    """(mean, maximum) score of the px whose centers lie in a polygon in px of the map, block by block of its bounds."""
    height, width = surface.shape
    left, top, right, bottom = polygon.bounds
    rows, columns = (max(0, int(top)), min(height, int(bottom) + 1)), (max(0, int(left)), min(width, int(right) + 1))
    total, count, highest = 0.0, 0, 0.0
    shapely.prepare(polygon)
    for y in range(rows[0], rows[1], BLOCK):
        for x in range(columns[0], columns[1], BLOCK):
            part = (y, min(y + BLOCK, rows[1])), (x, min(x + BLOCK, columns[1]))
            if not polygon.intersects(shapely.box(part[1][0], part[0][0], part[1][1], part[0][1])):
                continue
            across, down = np.meshgrid(np.arange(*part[1]) + 0.5, np.arange(*part[0]) + 0.5)
            inside = surface.read(*part)[shapely.contains_xy(polygon, across, down)]
            total, count = total + float(inside.sum(dtype=np.float64)), count + inside.size
            highest = max(highest, float(inside.max(initial=0.0)))
    if count:
        return total / count, highest
    point = polygon.representative_point()
    y, x = min(height - 1, max(0, int(point.y))), min(width - 1, max(0, int(point.x)))
    value = float(surface.read((y, y + 1), (x, x + 1))[0, 0])
    return value, value


def geojson(
    regions: Sequence[Region], path: str | Path, *, classification: str, color: tuple[int, int, int] = (200, 0, 0)
) -> None:
    """Writes regions as a FeatureCollection of annotations (QuPath 0.4 and later: drag the file in); none is an empty one.

    Coordinates are level-0 px of the slide; holes are kept; each region carries its threshold, area, mean and maximum score.

    Args:
        regions: of `score_regions`.
        path: of the file.
        classification: QuPath's class name, such as "Tumor".
        color: RGB of the class.
    """
    features = [
        {
            "type": "Feature",
            "id": region.id,
            "geometry": {"type": "Polygon", "coordinates": region.rings},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": classification, "color": list(color)},
                "isLocked": True,
                "measurements": {
                    "threshold": region.threshold,
                    "area px^2": round(float(region.polygon.area), 2),
                    "mean score": round(region.mean, 5),
                    "max score": round(region.max, 5),
                },
            },
        }
        for region in regions
    ]
    _write(path, json.dumps({"type": "FeatureCollection", "features": features}))


COLUMNS = ("region", "class", "area_mm2", "mean_score", "max_score", "x", "y", "width", "height", "threshold", "id")


def region_csv(regions: Sequence[Region], path: str | Path, *, mpp: float, classification: str) -> None:
    """Writes a row per region, the largest first; x, y, width and height are its bounds in level-0 px, `id` that of the GeoJSON.

    Args:
        regions: of `score_regions`.
        path: of the file.
        mpp: um per level-0 px.
        classification: name of the class.
    """
    import csv
    import io

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for number, region in enumerate(sorted(regions, key=lambda r: -r.polygon.area), start=1):
        left, top, right, bottom = region.polygon.bounds
        area = f"{region.polygon.area * mpp**2 / 1e6:.6g}"
        bounds = [f"{v:.2f}" for v in (left, top, right - left, bottom - top)]
        scores = [f"{region.mean:.5f}", f"{region.max:.5f}"]
        table.writerow([number, classification, area, *scores, *bounds, f"{region.threshold:.6g}", region.id])
    _write(path, text.getvalue())


def _write(path: str | Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)
