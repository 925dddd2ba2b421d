"""A score map cut at a threshold, as polygons on the slide: GeoJSON that QuPath opens."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely import affinity
from shapely.geometry import Polygon

from wsol.slides.heatmap import checked_score
from wsol.slides.slide import Box


def polygons(score: npt.NDArray[np.float32], threshold: float, *, frame: Box, min_area: float = 0.0) -> list[Polygon]:
    """Regions where the bilinear surface through the cells' centers reaches `threshold`, with their holes, in level-0 px.

    Args:
        score: (h, w) in [0, 1] that covers `frame`.
        threshold: positive iff score >= threshold.
        frame: the part of the slide the map covers.
        min_area: smaller regions are dropped, and smaller holes filled; level-0 px squared.
    """
    from skimage.measure import find_contours

    score = checked_score(score)
    height, width = score.shape
    # Two rings around the map: its own edge repeated, so that a region at the edge reaches it; one far below, so lines close.
    ringed = np.pad(np.pad(score.astype(np.float64), 1, mode="edge"), 1, constant_values=-1.0)
    level = float(np.nextafter(threshold, -np.inf))  # ">=": a cell at the threshold is inside
    cell = np.array([frame.width / width, frame.height / height])
    rings = []
    for line in find_contours(ringed, level, fully_connected="low", positive_orientation="high"):
        ring = (line[:, ::-1] - 1.5) * cell  # array (row, column) -> (x, y); a cell's center is half a cell from its edge
        if len(ring) >= 4:
            rings.append(ring)
    whole = shapely.box(0, 0, frame.width, frame.height)
    clipped = [shapely.intersection(p, whole) for p in _nested(rings)]
    parts = [p for c in clipped for p in shapely.get_parts(c) if isinstance(p, Polygon) and p.area > max(min_area, 0)]
    parts = [Polygon(p.exterior, [h for h in p.interiors if Polygon(h).area > min_area]) for p in parts]
    return [affinity.translate(p, frame.x, frame.y) for p in parts]


def _nested(rings: list[npt.NDArray[np.float64]]) -> list[Any]:
    """Regions with their holes, from closed lines that do not cross. Which way a line turns says where the high ground is."""
    shells: list[Any] = []
    holes: list[Any] = []
    for ring in rings:
        x, y = ring.T
        turn = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()
        (shells if turn < 0 else holes).append(Polygon(ring))
    shells.sort(key=lambda p: p.area)
    tree = shapely.STRtree(shells)
    inner: list[list[Any]] = [[] for _ in shells]
    for hole in holes:
        around = [
            int(i) for i in tree.query(hole) if shells[i].area > hole.area and shells[i].contains(hole.representative_point())
        ]
        inner[min(around)].append(hole.exterior)  # the smallest region around it; every hole has one
    made = (Polygon(shell.exterior, rim) for shell, rim in zip(shells, inner, strict=True))
    return [p if p.is_valid else shapely.make_valid(p) for p in made]


def geojson(
    score: npt.NDArray[np.float32],
    threshold: float,
    *,
    frame: Box,
    classification: str,
    path: str | Path,
    color: tuple[int, int, int] = (200, 0, 0),
    min_area: float = 0.0,
) -> int:
    """Writes the regions at or above `threshold` as a FeatureCollection of annotations (QuPath 0.4 and later: drag the file in).

    Coordinates are level-0 px of the slide; holes are kept; each region carries its area and mean and maximum score.

    Args:
        score: (h, w) in [0, 1] that covers `frame`.
        threshold: positive iff score >= threshold.
        frame: the part of the slide the map covers, level-0 px.
        classification: QuPath's class name, such as "Tumor".
        path: of the file.
        color: RGB of the class.
        min_area: smaller regions are dropped, and smaller holes filled; level-0 px squared.

    Returns:
        How many regions were written; 0 writes an empty collection.
    """
    found = polygons(score, threshold, frame=frame, min_area=min_area)
    features = [_feature(p, np.asarray(score, np.float32), frame, classification, color, threshold) for p in found]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    os.replace(beside, path)
    return len(features)


def _feature(
    polygon: Polygon, score: npt.NDArray[np.float32], frame: Box, name: str, color: tuple[int, int, int], threshold: float
) -> dict[str, Any]:
    rings = [[[round(x, 2), round(y, 2)] for x, y in ring.coords] for ring in (polygon.exterior, *polygon.interiors)]
    inside = score[_cells(polygon, score.shape, frame)]
    measurements: dict[str, float] = {"threshold": float(threshold), "area px^2": round(float(polygon.area), 2)}
    if inside.size:
        measurements |= {"mean score": round(float(inside.mean()), 5), "max score": round(float(inside.max()), 5)}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(rings))),  # from the content: the same map gives the same file
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(color)},
            "isLocked": True,
            "measurements": measurements,
        },
    }


def _cells(polygon: Polygon, shape: tuple[int, ...], frame: Box) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows, columns) of the cells whose centers lie in the polygon; only its bounding box is searched."""
    height, width = shape[:2]
    cell = np.array([frame.width / width, frame.height / height])
    low = np.floor((np.array(polygon.bounds[:2]) - [frame.x, frame.y]) / cell).astype(int).clip(0)
    high = np.minimum(np.ceil((np.array(polygon.bounds[2:]) - [frame.x, frame.y]) / cell).astype(int), [width, height])
    columns, rows = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    shapely.prepare(polygon)
    hit = shapely.contains_xy(polygon, frame.x + (columns + 0.5) * cell[0], frame.y + (rows + 0.5) * cell[1])
    return rows[hit], columns[hit]
