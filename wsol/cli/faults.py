"""Slides that cannot be used: a record with the reason in the place of their results, and the study goes on.

The record is made where the fault is found. `wsol tile`, which looks at every tile, finds nearly all: it leaves an empty tile
table whose `attrs` hold the record, so whoever reads the table skips the slide. A fault that only drawing finds stands in the map
file, which then has no maps. `wsol faults` gathers the records, and its exit status is that of the study.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from wsol._names import closest

FAILED = "failed"


def failure(slide: str, verb: str, file: str, error: Exception) -> dict[str, Any]:
    """The record of a slide that cannot be used: which one, what was tried with which file, and why it cannot be."""
    return {"slide": slide, "status": FAILED, "reason": str(error), "verb": verb, "file": file}


def failure_of(tiles: Path | None) -> dict[str, Any] | None:
    """The record that a tile table holds; None where the slide was tiled, or where there is no table to ask."""
    import pandas as pd

    return None if tiles is None else pd.read_parquet(tiles).attrs.get("failure")


def draw_or_record(
    draw: Callable[[], None], *, verb: str, row: Any, tiles: Path | None, out: Path, provenance: dict[str, Any]
) -> None:
    """Draws the maps of one slide, or writes a map file that holds a record in place of maps.

    Args:
        draw: writes the map file `out`.
        verb: of the command line that draws.
        row: of the manifest.
        tiles: tile table of the slide; a slide that `wsol tile` could not read is not tried again.
        out: the map file.
        provenance: of the maps, as far as it is known beforehand.
    """
    from wsol.data import MapWriter
    from wsol.slides import SlideError

    found = failure_of(tiles)
    if found is None:
        try:
            return draw()
        except (SlideError, FileNotFoundError) as error:
            found = failure(row.sample, verb, row.path, error)
    with MapWriter(out, {**provenance, "failure": found}):
        pass


def faults(statuses: Iterable[dict[str, Any]], scores: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of all slides of a study that gave nothing, one per slide, by its name: those without tissue are among them.

    Args:
        statuses: contents of the JSON files of `wsol tile`.
        scores: contents of score files, which list the slides that could not be drawn.
    """
    found = {one["slide"]: one for one in statuses if one["status"] != "ok"}
    for one in scores:
        for record in one.get("failures", []):
            found.setdefault(record["slide"], record)
    return [found[slide] for slide in sorted(found)]


def unaccepted(
    found: Iterable[dict[str, Any]], accepted: Collection[str], statuses: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The records of `found` that nobody accepted.

    Raises:
        ValueError: a slide is accepted that is none of the study's.
    """
    names = {one["slide"] for one in (*statuses, *found)}
    for name in accepted:
        if name not in names:
            raise ValueError(f"--accept: {closest('slide', name, sorted(names))}")
    return [one for one in found if one["slide"] not in accepted]
