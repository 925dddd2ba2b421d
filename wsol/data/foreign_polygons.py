"""Polygons of another tool as a map: QuPath's GeoJSON, filled on the grid of the image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsol._names import closest
from wsol.slides import Box, inside

Map = npt.NDArray[np.float32]

MEASUREMENTS = ("probability", "score", "mean score")
"""Measurements of a polygon that are taken as its value unless one is named."""

BROKEN = "the file is damaged or was cut off in copying: copy it again, or export it again"
"""What to do about a damaged file."""


def read_polygons(file: Path, key: str, size: tuple[int, int] | None) -> Map:
    """The polygons of `file` as a map of `size`; `key` and values as in `wsol.data.foreign.read_foreign_map`.

    Raises:
        ValueError: no size, no polygons of QuPath, a value outside [0, 1], or all of them beside the image.
        RuntimeError: the file is damaged.
    """
    if size is None:
        raise ValueError(f"{file}: polygons have no size of their own; give size=(H, W) of the image at level 0")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise RuntimeError(f"{file}: not valid JSON ({error}); {BROKEN}") from error
    whole = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(whole, list) or not all(isinstance(f, dict) and isinstance(f.get("geometry"), dict) for f in whole):
        raise ValueError(f"{file}: a FeatureCollection of polygons expected; export the annotations from QuPath as GeoJSON")
    full = np.zeros(size, np.float32)
    inside = 0
    chosen = _valued(file, whole, key)
    for feature, value in chosen:
        for rings in _rings(file, feature["geometry"]):
            inside += _fill(full, rings, value)
    if chosen and not inside:
        raise ValueError(
            f"{file}: none of its {len(chosen)} polygons holds the center of a px of the {size[0]} x {size[1]} px (H x W) "
            "of the image; coordinates must be level-0 px of this image"
        )
    return full


def _valued(file: Path, features: Sequence[dict[str, Any]], key: str) -> list[tuple[dict[str, Any], float]]:
    """The features that count, each with its value in [0, 1]."""
    facts = [(_measurements(f), _class(f)) for f in features]
    classes = sorted({name for _, name in facts if name and np.isnan(_number(name, np.nan))})
    known = list(dict.fromkeys(name for found, _ in facts for name in found))
    if key and key not in known and key not in classes and features:
        message = closest("measurement or class", key, [*known, *classes])
        raise ValueError(f"{file}: {message}; where the tool found none of it, write a FeatureCollection without features")
    if not key and len(classes) > 1:
        raise ValueError(f"{file}: polygons of several classes ({', '.join(classes)}); name one: {file.name}#{classes[0]}")
    if key in classes:
        pairs = [(f, fact) for f, fact in zip(features, facts, strict=True) if fact[1] == key]
    else:
        pairs = list(zip(features, facts, strict=True))
    named = key if key in known else next((n for c in MEASUREMENTS for n in known if n.lower() == c), None)
    if named is None and not key and known:
        if len(known) > 1:
            raise ValueError(
                f"{file}: polygons with the measurements {', '.join(known)}, none called {' or '.join(MEASUREMENTS)}; name "
                f"the one that is a probability: {file.name}#{known[0]}"
                + (f", or the class for its plain area: {file.name}#{classes[0]}" if classes else "")
            )
        named = known[0]
    values = [found.get(named, np.nan) if named else _number(name, 1.0) for _, (found, name) in pairs]
    for number, value in enumerate(values, 1):
        if not 0.0 <= value <= 1.0:
            raise ValueError(
                f"{file}: polygon {number} has {named or 'the class'} {value}; every polygon needs a value in [0, 1]: export a "
                "probability, or name another measurement behind #"
            )
    return [(f, value) for (f, _), value in zip(pairs, values, strict=True)]


def _measurements(feature: dict[str, Any]) -> dict[str, float]:
    """Measurements by name: a mapping, or as older QuPath has it a list of {name, value}."""
    found = (feature.get("properties") or {}).get("measurements") or {}
    pairs = ((m.get("name"), m.get("value")) for m in found) if isinstance(found, list) else found.items()
    return {str(name): float(value) for name, value in pairs if isinstance(value, int | float)}


def _class(feature: dict[str, Any]) -> str:
    """The name of its class, as QuPath shows it; "" without one."""
    found = (feature.get("properties") or {}).get("classification") or {}
    return str(found.get("name") or ": ".join(found.get("names", ())))


def _number(text: str, otherwise: float) -> float:
    """The text as a number; `otherwise` where it is a word."""
    try:
        return float(text)
    except ValueError:
        return otherwise


def _rings(file: Path, geometry: dict[str, Any]) -> Iterator[list[npt.NDArray[np.float64]]]:
    """The rings of each polygon, (n, 2) level-0 px; the first is the outline, the others are holes."""
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"{file}: polygons expected, got a {kind}; export areas, not points or lines")
    for polygon in [geometry.get("coordinates", ())] if kind == "Polygon" else geometry.get("coordinates", ()):
        try:
            rings = [np.asarray(ring, np.float64)[:, :2] for ring in polygon]
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{file}: rings of points [x, y] expected in every polygon ({error}); export it again") from error
        if not rings or not all(len(ring) >= 3 and np.isfinite(ring).all() for ring in rings):
            raise ValueError(f"{file}: a polygon has a ring of fewer than 3 points, or one that is not finite; export it again")
        yield rings


def _fill(full: Map, rings: Sequence[npt.NDArray[np.float64]], value: float) -> int:
    """Raises to `value` every px whose center lies inside an odd number of rings; how many there are."""
    height, width = full.shape
    low = np.floor(np.min([r.min(0) for r in rings], axis=0)).astype(int).clip(0)
    high = np.ceil(np.max([r.max(0) for r in rings], axis=0)).astype(int).clip(None, [width, height])
    if (low >= high).any():
        return 0
    box = Box(*low.tolist(), *(high - low).tolist())
    found = inside(rings, box, (box.height, box.width))
    part = full[low[1] : high[1], low[0] : high[0]]
    part[found] = np.maximum(part[found], np.float32(value))
    return int(found.sum())
