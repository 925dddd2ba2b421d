"""Features of the tiles of a slide in one HDF5 file, as TRIDENT and CLAM lay them out.

`features` (n, d), or (1, n, d), float; `coords` (n, 2), upper left corners (x, y) in level-0 px. What else is known stands in the
attributes of `coords`: `patch_size` px, `patch_size_level0` (TRIDENT), or `patch_level` and `downsample` (CLAM). We write
TRIDENT's, and beside them `mpp` (of the tiles), `level0_mpp` and, at the root, `encoder`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from wsol._files import atomic
from wsol.slides.reader import RGB, SlideError

SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class Vectors:
    """What a file of features says, but for the features.

    Attributes:
        path: the file.
        coords: int64 (n, 2), (x, y) of each tile in level-0 px.
        width: numbers per tile.
        side: of a tile in level-0 px.
        mpp: um per level-0 px; None where the file does not say.
        encoder: what made the features; the name of the folder where the file does not say, which TRIDENT names so.
        guessed: whether the side is the distance of neighbors, for the file does not say it (CLAM's features).
        made: what the file itself says of how its features were made, as far as it does: some of `encoder`, `patch_size` (px that
            the encoder saw), `mpp` (um per px of these) and `target_magnification` (TRIDENT's).
    """

    path: Path
    coords: npt.NDArray[np.int64]
    width: int
    side: int
    mpp: float | None
    encoder: str
    guessed: bool
    made: Mapping[str, str | float]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of all tiles together, level-0 px."""
        if not len(self.coords):
            return 1, 1
        right, bottom = (self.coords.max(0) + self.side).tolist()
        return int(right), int(bottom)

    def features(self, rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        """(n, d) of some tiles. Raises SlideError if they cannot be read or are not finite."""
        try:
            with h5py.File(self.path, "r") as file:
                stored = file["features"]
                with np.errstate(over="ignore"):  # what float32 cannot hold is told below
                    found = np.asarray(stored[0, rows] if stored.ndim == 3 else stored[rows], np.float32)
        except OSError as error:
            raise _damaged(self.path, error) from error
        if not np.isfinite(found).all():
            raise SlideError(f"{self.path}: {int((~np.isfinite(found)).sum())} features are not finite; make the file anew")
        return found

    def check(self, batch: int = 4096) -> None:
        """Reads all features once, `batch` tiles at a time. Raises SlideError if they cannot be read or are not finite."""
        for start in range(0, len(self.coords), batch):
            self.features(slice(start, start + batch))


def read_vectors(path: str | Path) -> Vectors:
    """What a file of features says.

    Raises:
        SlideError: it is not there, damaged, or laid out in another way; a place is no number, or is that of two tiles.
    """
    path = Path(path)
    if not path.is_file():
        raise SlideError(f"no features at {path}; the file is named as its slide, and ends in .h5")
    try:
        with h5py.File(path, "r") as file:
            named = {name: file.get(name) for name in ("features", "coords")}
            if not all(isinstance(one, h5py.Dataset) and one.dtype.kind in "fiu" for one in named.values()):
                raise SlideError(f"{path}: datasets features and coords of numbers expected, got {_contents(file)}")
            shape, coords = named["features"].shape, np.asarray(named["coords"])
            said = {**dict(file.attrs), **dict(named["features"].attrs), **dict(named["coords"].attrs)}
    except OSError as error:
        raise _damaged(path, error) from error
    coords = coords[0] if coords.ndim == 3 and len(coords) == 1 else coords
    rows = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if len(rows) != 2 or coords.shape != (rows[0], 2):
        raise SlideError(f"{path}: features (n, d) or (1, n, d) and coords (n, 2) expected, got {shape} and {coords.shape}")
    places = _places(path, coords)
    side, guessed = _side(path, said, places)
    if len(places) and places.min() + side <= 0:
        away = tuple(places[places.min(1).argmin()].tolist())
        raise SlideError(
            f"{path}: the tile of {side} px at {away} lies beside the slide, which begins at (0, 0); make the file anew"
        )
    encoder = str(said.get("encoder") or path.parent.name)
    made: dict[str, str | float] = {"encoder": encoder} if said.get("encoder") else {}
    numbers = {name: _positive(said.get(name)) for name in ("patch_size", "mpp", "target_magnification")}
    made |= {name: value for name, value in numbers.items() if value is not None}
    mpp = _number(path, said, "level0_mpp") if "level0_mpp" in said else None
    return Vectors(path, places, int(rows[1]), side, mpp, encoder, guessed, made)


def write_vectors(
    path: Path,
    batches: Iterable[npt.NDArray[np.float32]],
    coords: npt.NDArray[np.int64],
    *,
    tile_px: int,
    side: int,
    mpp: float,
    level0_mpp: float,
    encoder: str,
    name: str,
) -> None:
    """Writes a file of features, under a temporary name first.

    Args:
        path: the file.
        batches: features (b, d) of the tiles in order, batch by batch.
        coords: (n, 2) of (x, y), level-0 px.
        tile_px: side of a tile as the encoder saw it.
        side: of a tile, level-0 px.
        mpp: um per px that the encoder saw.
        level0_mpp: um per level-0 px.
        encoder: what made the features.
        name: of the slide.

    Raises:
        ValueError: not as many features as coordinates.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["encoder"] = encoder
        stored, done = None, 0
        for batch in batches:
            if stored is None:
                shape = (len(coords), batch.shape[1])
                stored = file.create_dataset("features", shape, np.float32, chunks=(min(64, shape[0]), shape[1]))
            stored[done : done + len(batch)] = batch
            done += len(batch)
        if stored is None or done != len(coords):
            raise ValueError(f"{path}: features of {done} tiles for {len(coords)} coordinates")
        placed = file.create_dataset("coords", data=coords.astype(np.int64))
        said: dict[str, Any] = {"patch_size": tile_px, "patch_size_level0": side, "name": name}
        placed.attrs.update({**said, "mpp": mpp, "level0_mpp": level0_mpp})


class Blank:
    """A slide of which only features are there: white, as large as its tiles reach (see `wsol.slides.reader.Reader`)."""

    def __init__(self, path: Path) -> None:
        found = read_vectors(path)
        self.size, self._mpp = found.size, found.mpp
        self.downsamples: tuple[float, ...] = (1.0,)
        self.tiles: tuple[tuple[int, int] | None, ...] = (None,)

    def mpp(self) -> float | None:
        """See `Reader`."""
        return self._mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """See `Reader`."""
        return np.full((height, width, 3), 255, np.uint8)

    def close(self) -> None:
        """Nothing is open."""


def _places(path: Path, coords: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Corners in whole px, each of one tile."""
    odd = ~(np.abs(coords.astype(np.float64)) < 2**31).all(1)  # NaN is not below
    if odd.any():
        raise SlideError(
            f"{path}: coords are px, but those of tile {odd.argmax()} are {coords[odd.argmax()]}; make the file anew"
        )
    places = np.rint(coords).astype(np.int64)
    found, counts = np.unique(places, axis=0, return_counts=True)
    if (counts > 1).any():
        twice = tuple(found[counts.argmax()].tolist())
        raise SlideError(f"{path}: {int(counts.max())} tiles lie at {twice}, where one is expected; make the file anew")
    return places


def _side(path: Path, said: dict[str, Any], places: npt.NDArray[np.int64]) -> tuple[int, bool]:
    """Side of a tile in level-0 px, and whether it is the distance of neighbors."""
    if "patch_size_level0" in said:
        return max(1, round(_number(path, said, "patch_size_level0"))), False
    if "patch_size" in said and ("downsample" in said or str(said.get("patch_level")) == "0"):
        down = _number(path, said, "downsample") if "downsample" in said else 1.0
        return max(1, round(_number(path, said, "patch_size") * down)), False
    steps = np.concatenate([np.diff(np.unique(places[:, axis])) for axis in (0, 1)]) if len(places) else np.zeros(0)
    if not len(steps):
        raise SlideError(f"{path}: nothing says how large a tile is; give `coords` the attribute patch_size_level0")
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()]), True


def _number(path: Path, said: Mapping[str, Any], name: str) -> float:
    value = _positive(said[name])
    if value is None:
        raise SlideError(f"{path}: attribute {name}: a number above 0 expected, got {said[name]!r}; make the file anew")
    return value


def _positive(told: Any) -> float | None:
    """A number above 0, or the first of one per axis (CLAM's `downsample`); None for anything else."""
    try:
        value = float(np.ravel(told)[0])
    except (ValueError, TypeError, IndexError):
        return None
    return value if 0 < value < np.inf else None


def _contents(file: h5py.File) -> list[str]:
    return [f"{name} ({one.dtype if isinstance(one, h5py.Dataset) else 'a group'})" for name, one in sorted(file.items())]


def _damaged(path: Path, error: Exception) -> SlideError:
    return SlideError(f"{path}: cannot be read ({error}); the file is damaged or was cut off in copying: copy it again")
