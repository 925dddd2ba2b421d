"""What somebody drew on a slide: polygons of QuPath (GeoJSON) or ASAP (XML), as one region that tiles are laid on."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as xml
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import shapely

from wsol._names import closest
from wsol.slides.polygons import inside, rings_of, shares, union
from wsol.slides.slide import Box

POLYGONS = (".geojson", ".json", ".xml")
"""How files of polygons end."""

EXCLUDED = ("Exclusion", "_2")
"""Groups of ASAP files that are holes in the others: of CAMELYON's, "Tumor", "_0" and "_1" are metastases and these are not."""

_SHOWN = 10
_BROKEN = "the file is damaged or was cut off in copying: copy it again, or export it again"


class AnnotatedRegion(Protocol):
    """A part of a slide, whatever it was read from."""

    def raster(self, box: Box, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The px of a box that are in the region, bool (H, W): those whose center is."""

    def shares(self, corners: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float64]:
        """Share of each square that is in the region, 0 to 1; `corners` (n, 2) of (x, y), all in level-0 px."""


@dataclass(frozen=True)
class Annotation:
    """One area.

    Attributes:
        id: as the file has it; its number, "#3", where it has none.
        names: its class, then the groups or classes that this one is of.
        area: valid, of shapely, level-0 px.
    """

    id: str
    names: tuple[str, ...]
    area: Any = field(repr=False)


@dataclass(frozen=True)
class Annotations:
    """The areas of one file.

    Attributes:
        path: the file.
        items: in its order.
        repaired: ids of areas whose outline crossed itself: what an odd number of its turns encloses is inside.
    """

    path: Path
    items: list[Annotation]
    repaired: list[str]

    @property
    def classes(self) -> list[str]:
        """The names that there are, groups included."""
        return list(dict.fromkeys(name for item in self.items for name in item.names))

    def region(self, include: Sequence[str] | None = None, exclude: Sequence[str] = ()) -> PolygonRegion:
        """The union of all areas of some classes, less the areas of others.

        Args:
            include: classes or groups; all but the excluded when None.
            exclude: classes or groups that are cut out (ASAP draws holes so).

        Raises:
            ValueError: the file has areas, and none of a class that is included.
        """
        for name in include or ():
            if self.items and name not in self.classes:
                raise ValueError(f"{self.path}: {closest('class', name, self.classes)}")
        cut = [i for i in self.items if set(i.names) & set(exclude)]
        kept = [i for i in self.items if i not in cut and (include is None or set(i.names) & set(include))]
        return PolygonRegion(shapely.difference(union(i.area for i in kept), union(i.area for i in cut)))


class PolygonRegion:
    """A region with exact outlines.

    Attributes:
        geometry: of shapely, valid, level-0 px.
    """

    def __init__(self, geometry: Any) -> None:
        self.geometry = geometry
        self._rings = rings_of(geometry)

    def raster(self, box: Box, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """See `AnnotatedRegion`; equal to slicing a raster of the whole slide."""
        return inside(self._rings, box, shape)

    def shares(self, corners: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float64]:
        """See `AnnotatedRegion`; exact."""
        return shares(self.geometry, corners, side)


def open_region(
    path: str | Path,
    size: tuple[int, int],
    *,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = EXCLUDED,
    values: Sequence[int] = (),
    um: float | None = None,
) -> AnnotatedRegion:
    """The region that a file of polygons or a mask marks on a slide.

    Args:
        path: .geojson, .json or .xml with coordinates in level-0 px, or um; or a mask (PNG, TIFF), or a mosaic of masks.
        size: (width, height) of the slide, level-0 px.
        include: of polygons: classes or groups that count; all but the excluded when None.
        exclude: of polygons: classes or groups that are cut out, where the file has them.
        values: of a mask: ids that count; all above 0 when empty.
        um: of polygons: their coordinates are in um, and a px of level 0 has so many.

    Raises:
        FileNotFoundError, RuntimeError, ValueError: see `read_annotations` and `MaskRegion`.
    """
    if Path(path).suffix.lower() in POLYGONS:
        return read_annotations(path, unit="um" if um else "px", mpp=um).region(include, exclude)
    if Path(path).suffix == ".mosaic":
        from wsol.slides.mosaic import MosaicRegion

        return MosaicRegion(path, size, values)
    from wsol.slides.mask_region import MaskRegion

    return MaskRegion(path, size, values)


def read_annotations(path: str | Path, *, unit: Literal["px", "um"] = "px", mpp: float | None = None) -> Annotations:
    """The areas of a GeoJSON file (QuPath) or of an XML file (ASAP, CAMELYON).

    Args:
        path: ending in .geojson, .json or .xml.
        unit: of the coordinates: level-0 px, as both tools write them, or um.
        mpp: um per px of level 0, needed for um.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged.
        ValueError: another kind of file; points or lines; areas that cannot be repaired (all of them by id).
    """
    path = Path(path)
    if unit not in ("px", "um"):
        raise ValueError(closest("unit", unit, ("px", "um")))
    if unit == "um" and not (mpp and mpp > 0):
        raise ValueError(f"{path}: coordinates in um need mpp, the um per px of level 0; got {mpp}")
    if not path.is_file():
        raise FileNotFoundError(f"no annotations at {path}")
    if path.suffix.lower() not in POLYGONS:
        raise ValueError(f"{path}: annotations end in {', '.join(POLYGONS)}; for masks take `open_region`")
    scale = 1.0 if unit == "px" else 1.0 / float(mpp or 1)
    items, repaired, refused = [], [], []
    for name, names, polygons in (_asap if path.suffix.lower() == ".xml" else _geojson)(path):
        area, what = _area(polygons, scale)
        if area is None:
            refused.append(f"{name} ({what})")
            continue
        items.append(Annotation(name, names, area))
        repaired += [name] if what else []
    if refused:
        named = ", ".join(refused[:_SHOWN]) + (f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else "")
        count = f"{len(refused)} of {len(refused) + len(items)}"
        raise ValueError(f"{path}: {count} annotations are no areas: {named}; draw them again, or delete them from the file")
    return Annotations(path, items, repaired)


_Raw = tuple[str, tuple[str, ...], Any]
"""(id, names, polygons as lists of rings of points; a word where it is no area)."""


def _area(polygons: Any, scale: float) -> tuple[Any, str]:
    """The valid area and whether it was "repaired"; or None and why not."""
    if isinstance(polygons, str):
        return None, polygons
    made, fixed = [], ""
    for rings in polygons:
        try:
            points = [np.asarray([point[:2] for point in ring], np.float64).reshape(-1, 2) * scale for ring in rings]
        except (TypeError, ValueError, IndexError):
            return None, "rings of points [x, y] expected"
        if not points or any(len(np.unique(p, axis=0)) < 3 for p in points):
            return None, "fewer than 3 points in a ring"
        if not all(np.isfinite(p).all() for p in points):
            return None, "a coordinate that is not finite"
        polygon: Any = shapely.Polygon(points[0], points[1:])
        if not polygon.is_valid:  # ring by ring: as one outline, a hole that reaches beyond its shell would turn into area there
            shell, *holes = (shapely.make_valid(shapely.Polygon(ring)) for ring in points)
            polygon, fixed = shapely.difference(shell, union(holes)), "repaired"
        made += [part for part in shapely.get_parts(polygon) if part.area > 0]
    whole = union(made)
    return (whole, fixed) if whole.area > 0 else (None, "no area")


def _geojson(path: Path) -> Iterator[_Raw]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise RuntimeError(f"{path}: not valid JSON ({error}); {_BROKEN}") from error
    features = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(features, list) or not all(isinstance(f, dict) and "geometry" in f for f in features):
        raise ValueError(f"{path}: a FeatureCollection of polygons expected; export the annotations from QuPath as GeoJSON")
    for number, feature in enumerate(features, 1):
        words = _class_of(feature.get("properties")).split(": ")
        names = tuple(": ".join(words[:n]) for n in range(len(words), 0, -1) if words[0])  # a derived class is of its base, too
        geometry = feature["geometry"] if isinstance(feature["geometry"], dict) else {"type": "place without coordinates"}
        kind, coordinates = geometry.get("type"), geometry.get("coordinates")
        polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(str(kind), f"a {kind}")
        yield str(feature.get("id") or f"#{number}"), names, polygons


def _class_of(properties: Any) -> str:
    """The class that QuPath gives an area, "Tumor" or "Tumor: Necrosis"; "" for none."""
    told = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(told, dict):
        names = told.get("names")
        told = told.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")
    return told if isinstance(told, str) else ""


def _asap(path: Path) -> Iterator[_Raw]:
    try:
        root = xml.parse(path).getroot()
    except xml.ParseError as error:
        raise RuntimeError(f"{path}: not valid XML ({error}); {_BROKEN}") from error
    if root.tag != "ASAP_Annotations":
        raise ValueError(f"{path}: ASAP_Annotations expected, got {root.tag}; save the annotations with ASAP, or as GeoJSON")
    parents = {g.get("Name", ""): g.get("PartOfGroup", "None") for g in root.iter("Group")}
    for number, drawn in enumerate(root.iter("Annotation"), 1):
        kind = drawn.get("Type", "Polygon")
        polygons: Any = [[list(_points(drawn.iter("Coordinate")))]]
        if kind not in ("Polygon", "Spline", "Rectangle"):
            polygons = f"a {kind}"
        yield drawn.get("Name") or f"#{number}", tuple(_ancestry(drawn.get("PartOfGroup", "None"), parents)), polygons


def _points(coordinates: Iterable[Any]) -> Iterator[tuple[float, float]]:
    """Points in their stated order; a decimal comma, as some locales write it, is one."""
    for point in sorted(coordinates, key=_order):
        x, y = (point.get(axis, "nan").replace(",", ".") for axis in ("X", "Y"))
        yield (float(x), float(y)) if _is_number(x) and _is_number(y) else (math.nan, math.nan)


def _order(point: Any) -> float:
    text = point.get("Order", "0").replace(",", ".")
    return float(text) if _is_number(text) else math.inf  # as it stands in the file, after those that have a place


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _ancestry(name: str, parents: dict[str, str]) -> Iterator[str]:
    seen: set[str] = set()
    while name != "None" and name not in seen:
        seen.add(name)
        yield name
        name = parents.get(name, "None")
