"""Where the maps of a comparison come from: files of other tools, map files of `wsol localize`, and the floors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol._names import closest
from wsol.cli.files import read_json
from wsol.cli.foreign import Entry
from wsol.cli.results import checkpoint_source

if TYPE_CHECKING:
    from wsol.cli.scoring import Scale
    from wsol.data import StoredMap

Size = tuple[int, int] | None

STAINS = ("hematoxylin", "blue-minus-red")
FLAT = ("all-ones", "random")

UNKNOWN = {"supervision": "unknown", "checkpoint": "unknown", "map_class": "unknown"}
NONE = {"supervision": "none", "checkpoint": "none", "map_class": "none"}


@dataclass(frozen=True)
class Source:
    """The maps of one name.

    Attributes:
        name: in tables.
        read: (row, size (H, W) of its image where known) -> its map.
        told: badges that come with the maps: supervision, checkpoint, map_class.
        files: sample -> file, to be hashed.
        rectified: whether negative values become 0 first.
        bounded: whether the maps are in [0, 1] by construction.
    """

    name: str
    read: Callable[[Entry, Size], StoredMap]
    told: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)
    rectified: bool = False
    bounded: bool = False


def laid(stored: StoredMap, scale: Scale, shape: tuple[int, int], sample: str) -> npt.NDArray[np.float32]:
    """Score (H, W) in [0, 1] of a map on an image of `shape`, wherever its frame lies; 0 where it does not reach."""
    from wsol.cli.scoring import score
    from wsol.data import register
    from wsol.slides import Box

    frame = stored.frame or Box(0, 0, shape[1], shape[0])
    inner = (frame.height, frame.width)
    return register(score(replace(stored, frame=None, size=inner), scale, inner, sample), shape, frame=frame)


def source(name: str, where: str | Path, sheet: Path, entries: Sequence[Entry]) -> Source:
    """The maps called `name`.

    Args:
        name: in tables.
        where: a folder with one file per sample; a map file of `wsol localize`, or a folder of such; "" for the column
            `map:NAME` of the sheet. `#key` at its end names an array, measurement or class of every file, or the method of a
            map file.
        sheet: paths of its column are relative to it.
        entries: rows whose maps are needed.

    Raises:
        FileNotFoundError: no such place, or a sample has no map there.
        ValueError: several files for a sample, several methods and none named, or an unknown one.
    """
    if not str(where):
        return _of_files(name, {e.sample: _cell(name, sheet, e) for e in entries})
    place, key = Path(where), ""
    if not place.exists():
        base, _, key = str(where).rpartition("#")
        place = Path(base) if base else place
    if not place.exists():
        raise FileNotFoundError(f"maps {name!r}: nothing at {place}; name a folder of maps, or a map file of `wsol localize`")
    stores = sorted(place.rglob("*.h5")) if place.is_dir() else [place]
    if stores and stores[0].suffix == ".h5":
        return _own(name, stores, key, entries)
    if not place.is_dir():
        raise ValueError(f"maps {name!r}: {place} is one file; name the folder, or write the files in the column map:{name}")
    return _of_files(name, {e.sample: _found(name, place, e.sample) + (f"#{key}" if key else "") for e in entries})


def _cell(name: str, sheet: Path, entry: Entry) -> str:
    if not (cell := entry.maps.get(name, "")):
        raise ValueError(f"{sheet}: row {entry.number}: map:{name} is blank; every method needs a map of every sample")
    return str(sheet.parent / cell)


def _found(name: str, folder: Path, sample: str) -> str:
    """The one file of a sample in a folder."""
    from wsol.data.foreign import SUFFIXES

    found = [path for suffix in SUFFIXES if (path := folder / f"{sample}{suffix}").is_file()]
    if not found:
        raise FileNotFoundError(
            f"maps {name!r}: no map of sample {sample!r} in {folder}; expected {sample} with one of {', '.join(SUFFIXES)}: every "
            "method needs a map of every sample"
        )
    if len(found) > 1:
        raise ValueError(f"maps {name!r}: sample {sample!r} has {' and '.join(p.name for p in found)} in {folder}; keep one")
    return str(found[0])


def _of_files(name: str, files: Mapping[str, str]) -> Source:
    """Maps of another tool, one file per sample."""

    def read(entry: Entry, size: Size) -> StoredMap:
        from wsol.data import StoredMap, read_foreign_map
        from wsol.data.foreign import check_aspect

        array = read_foreign_map(files[entry.sample], size=size)
        if entry.frame is None and size is not None:
            try:
                check_aspect(array.shape, size)
            except ValueError as error:
                raise ValueError(f"{files[entry.sample]}: {error}") from error
        return StoredMap(array, 0, entry.frame, size or array.shape, None, "unknown", float("nan"))

    paths = {sample: Path(file) if Path(file).is_file() else Path(file.rpartition("#")[0]) for sample, file in files.items()}
    for sample, path in paths.items():
        if not path.is_file():
            raise FileNotFoundError(f"maps {name!r}: no map of sample {sample!r} at {files[sample]}; check the cell of the sheet")
    return Source(name, read, UNKNOWN, paths)


def _own(name: str, stores: Sequence[Path], key: str, entries: Sequence[Entry]) -> Source:
    """Maps of `wsol localize`: one file, or all files of a folder."""
    from wsol.data import MapReader

    held: dict[str, Path] = {}
    made: dict[str, Any] = {}
    method = key
    for file in stores:
        with MapReader(file) as reader:
            if not key and len(reader.methods) > 1:
                raise ValueError(f"maps {name!r}: {file} holds {', '.join(reader.methods)}; name one: {file}#{reader.methods[0]}")
            method = method or reader.methods[0]
            made = made or reader.provenance
            for sample in reader.samples(method):
                if held.setdefault(sample, file) != file:
                    raise ValueError(f"maps {name!r}: sample {sample!r} is in {held[sample]} and in {file}; name one of them")
    for entry in entries:
        if entry.sample not in held:
            raise FileNotFoundError(
                f"maps {name!r}: no map of sample {entry.sample!r} in {stores[0].parent}; run `wsol localize`"
            )

    def read(entry: Entry, size: Size) -> StoredMap:
        with MapReader(held[entry.sample]) as reader:
            stored = reader.read(method, entry.sample)
        if size is not None and stored.size != size:
            raise ValueError(f"{held[entry.sample]}: sample {entry.sample!r} is {stored.size} (H, W) px there, and {size} here")
        return stored

    return Source(name, read, _told(made), {e.sample: held[e.sample] for e in entries}, _rectified(method, made))


def _told(made: Mapping[str, Any]) -> dict[str, str]:
    """Badges of our own maps: what their file and the record of the training run beside the model say, else "unknown"."""
    classes = {"positive": "declared positive", "truth": "ground truth", "predicted": "predicted", "none": "none"}
    if made.get("model") == "floors":
        return dict(NONE)
    model = Path(str(made.get("model", "")))
    record = model.with_name("run.json") if model.name else model
    run = read_json(record) if record.is_file() else {}
    return {
        "supervision": str(run.get("supervision", "unknown")),
        "checkpoint": checkpoint_source(run, model.stem),
        "map_class": classes.get(str(made.get("map_class")), "unknown"),
    }


def _rectified(method: str, made: Mapping[str, Any]) -> bool:
    """Whether the final map of one of our methods is rectified: a fact of its class, or of the method a wrapper is given."""
    from wsol.cams import drawer

    drawn = next((m for m in made.get("methods", ()) if isinstance(m, Mapping) and m["id"] == method), None)
    return bool(drawn and drawer(drawn["method"], drawn.get("options", {})).rectified)


def floors(entries: Iterable[Entry], kind: str, mpp: float, seed: int) -> list[Source]:
    """The floors that need no network: all-ones and random, and the stain floors where every sample has its image.

    Args:
        entries: rows that are scored, or that scales are fitted on.
        kind: "images" or "slides".
        mpp: um per px at which slides are read.
        seed: of the random map.
    """
    if kind not in ("images", "slides"):
        raise ValueError(closest("kind of image", kind, ("images", "slides")))
    names = (*FLAT, *STAINS) if all(e.path for e in entries) else FLAT

    def drawn(name: str) -> Callable[[Entry, Size], StoredMap]:
        def read(entry: Entry, size: Size) -> StoredMap:
            from wsol.data import StoredMap
            from wsol.slides import floor_map

            rgb, at = _pixels(entry, size, kind, mpp)
            start = time.perf_counter()
            array = floor_map(name, rgb, at, generator=np.random.default_rng([seed, *entry.sample.encode()]))
            return StoredMap(array, 0, None, size or array.shape, None, "whole", time.perf_counter() - start)

        return read

    return [Source(name, drawn(name), NONE, bounded=name in FLAT) for name in names]


def _pixels(entry: Entry, size: Size, kind: str, mpp: float) -> tuple[npt.NDArray[np.uint8], float]:
    """The image, or the slide at `mpp`, and the mpp of what came; a blank of the mask's size where there is no image."""
    from wsol.data import read_image
    from wsol.slides import open_slide

    known = entry.mpp if entry.mpp == entry.mpp else None
    if entry.path is None:
        return np.broadcast_to(np.uint8(0), (*(size or (1, 1)), 3)), 1.0
    if kind == "images":
        return read_image(entry.path), known or 0.5
    with open_slide(entry.path, mpp=known) as slide:
        return slide.thumbnail(mpp), mpp


def image_size(entry: Entry, kind: str) -> Size:
    """(H, W) of the image at level 0; None without one."""
    from wsol.data import image_shape
    from wsol.slides import open_slide

    if entry.path is None:
        return None
    if kind == "images":
        return image_shape(entry.path)
    with open_slide(entry.path, mpp=entry.mpp if entry.mpp == entry.mpp else None) as slide:
        return slide.size[1], slide.size[0]
