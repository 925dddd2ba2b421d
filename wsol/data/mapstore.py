"""Maps on disk: one HDF5 file per model and map set (per slide for slides), raw and signed, with what is needed to lay them on
the image.

Layout: `/{method}/{sample}` float32 (h, w) with attributes; `/_coverage/{sample}` bool; `/_logits/{sample}` float32 (k,); the
    root attribute
`provenance` is JSON. Sample names are percent-quoted, since HDF5 gives "/" a meaning.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote, unquote

import h5py
import numpy as np
import numpy.typing as npt

from wsol._files import atomic
from wsol._names import closest
from wsol.slides import Box

DRAWN = ("whole", "tile")
_PACKED = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_SMALL = 4096


@dataclass(frozen=True, eq=False)
class StoredMap:
    """One raw map and where it lies.

    Attributes:
        array: float32 (h, w), signed, at feature resolution.
        target: the class it was drawn for.
        frame: the level-0 box that the array covers, which may reach beyond the image; None: exactly the image.
        size: (H, W) px of the image at level 0.
        coverage: bool (h, w), False where no tile was drawn; None: all was.
        drawn: "whole" image at once, or "tile" by tile.
        seconds: that drawing took.
    """

    array: npt.NDArray[np.float32]
    target: int
    frame: Box | None
    size: tuple[int, int]
    coverage: npt.NDArray[np.bool_] | None
    drawn: str
    seconds: float


class MapWriter:
    """Writes one map file. Use it in `with`: the file takes its name when the block ends well, and vanishes when it does not.

    Args:
        path: the file to be.
        provenance: plain JSON on what drew the maps.
    """

    def __init__(self, path: str | Path, provenance: dict[str, Any]) -> None:
        self.path = Path(path)
        self._whole = atomic(self.path)
        self._provenance = json.dumps(provenance, allow_nan=False)
        self._open: h5py.File | None = None

    def __enter__(self) -> MapWriter:
        self._open = h5py.File(self._whole.__enter__(), "w", track_order=True)
        self._open.attrs["provenance"] = self._provenance
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._open = None
        self._whole.__exit__(kind, error, trace)

    @property
    def _file(self) -> h5py.File:
        if self._open is None:
            raise ValueError(f"{self.path} is not open; write inside `with MapWriter(...)`")
        return self._open

    def add(
        self,
        method: str,
        sample: str,
        array: npt.ArrayLike,
        *,
        target: int,
        size: tuple[int, int],
        frame: Box | None = None,
        coverage: npt.NDArray[np.bool_] | None = None,
        drawn: Literal["whole", "tile"] = "whole",
        seconds: float = float("nan"),
    ) -> None:
        """Adds one map; arguments as the attributes of `StoredMap`.

        Raises:
            ValueError: the map is not finite or not (h, w), a name is taken, or coverage has another shape.
        """
        where = f"method {method!r}, sample {sample!r}"
        values = np.asarray(array, np.float32)
        if not method or method.startswith("_") or "/" in method:
            raise ValueError(f"{where}: a method's name is not blank, holds no / and does not begin with _")
        if values.ndim != 2 or values.size == 0:
            raise ValueError(f"{where}: a map (h, w) expected, got shape {values.shape}")
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ValueError(
                f"{where}: {bad} of {values.size} values are NaN or infinite; a map that cannot be ranked is not stored: look "
                f"at the weights and at 0/0 in the method"
            )
        if drawn not in DRAWN:
            raise ValueError(closest("way of drawing", drawn, DRAWN))
        group = self._file.require_group(method) if method in self._file else self._file.create_group(method, track_order=True)
        self._free(group, sample, where)
        cover = "" if coverage is None else self._cover(sample, coverage, values.shape, where)
        stored = group.create_dataset(_key(sample), data=values, **(_PACKED if values.size > _SMALL else {}))
        box = (frame.x, frame.y, frame.width, frame.height) if frame else ()
        facts = {"target": int(target), "size": np.asarray(size, np.int64), "frame": np.asarray(box, np.int64)}
        stored.attrs.update({**facts, "coverage": cover, "drawn": drawn, "seconds": float(seconds)})

    def predict(self, sample: str, logits: npt.ArrayLike) -> None:
        """Stores the logits (k,) of a sample.

        Raises:
            ValueError: they are not finite or not (k,), or are there already.
        """
        values = np.asarray(logits, np.float32)
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ValueError(f"logits of sample {sample!r}: finite values (k,) expected, got shape {values.shape}: {values}")
        group = self._file.require_group("_logits")
        self._free(group, sample, f"logits of sample {sample!r}")
        group.create_dataset(_key(sample), data=values)

    def _cover(self, sample: str, coverage: npt.NDArray[np.bool_], shape: tuple[int, ...], where: str) -> str:
        """Stores the coverage of a sample once per resolution; its key."""
        values = np.asarray(coverage)
        if values.dtype != np.bool_ or values.shape != shape:
            raise ValueError(f"{where}: coverage bool {shape} expected, got {values.dtype} {values.shape}")
        group = self._file.require_group("_coverage")
        key = _key(sample)
        if key in group and group[key].shape != shape:
            key = f"{key}@{shape[0]}x{shape[1]}"  # quoted names hold no @
        if key not in group:
            group.create_dataset(key, data=values, **_PACKED)
        elif not np.array_equal(group[key][()], values):
            raise ValueError(
                f"{where}: its coverage differs from that of another map of this sample; all maps of a sample cover the same "
                f"tiles"
            )
        return key

    def _free(self, group: h5py.Group, sample: str, where: str) -> None:
        if not sample:
            raise ValueError(f"{where}: the sample has no name")
        if _key(sample) in group:
            raise ValueError(f"{where}: stands in {self.path} already; give each map its own id")


class MapReader:
    """Reads one map file; use it in `with`.

    Attributes:
        provenance: as given to the writer.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: the file is truncated, damaged, or no map file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no maps at {self.path}; `wsol localize` writes them")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise RuntimeError(
                f"{self.path}: cannot be read ({error}); the file is truncated or damaged: delete it and run `wsol localize` "
                f"again"
            ) from error
        if "provenance" not in self._file.attrs:
            self._file.close()
            raise RuntimeError(f"{self.path}: an HDF5 file, but no maps of wsol: it has no provenance. Run `wsol localize` again")
        self.provenance: dict[str, Any] = json.loads(self._file.attrs["provenance"])

    def __enter__(self) -> MapReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file."""
        self._file.close()

    @property
    def methods(self) -> list[str]:
        """Methods, in the order they were added."""
        return [name for name in self._file if not name.startswith("_")]

    def samples(self, method: str) -> list[str]:
        """Samples that have a map of `method`, in the order they were added."""
        return [unquote(key) for key in self._group(method)]

    def read(self, method: str, sample: str) -> StoredMap:
        """One map.

        Raises:
            ValueError: there is none; the message names the nearest.
            RuntimeError: its bytes are damaged.
        """
        group = self._group(method)
        if _key(sample) not in group:
            raise ValueError(f"{self.path}, method {method!r}: " + _nearest(sample, self.samples(method)))
        stored = group[_key(sample)]
        facts = stored.attrs
        try:
            array = stored[()]
            cover = self._file["_coverage"][facts["coverage"]][()] if facts["coverage"] else None
        except (OSError, KeyError) as error:
            raise RuntimeError(
                f"{self.path}: map {method!r} of {sample!r} cannot be read ({error}); delete the file and run `wsol localize` "
                f"again"
            ) from error
        frame = Box(*(int(v) for v in facts["frame"])) if len(facts["frame"]) else None
        height, width = (int(v) for v in facts["size"])
        return StoredMap(array, int(facts["target"]), frame, (height, width), cover, str(facts["drawn"]), float(facts["seconds"]))

    def has_logits(self, sample: str) -> bool:
        """Whether the sample was classified; a slide without tissue is not."""
        return _key(sample) in self._file.get("_logits", {})

    def logits(self, sample: str) -> npt.NDArray[np.float32]:
        """Logits (k,) of a sample.

        Raises:
            ValueError: there are none.
        """
        group = self._file.get("_logits", {})
        if _key(sample) not in group:
            raise ValueError(f"{self.path}, logits: " + _nearest(sample, [unquote(key) for key in group]))
        return np.asarray(group[_key(sample)][()], np.float32)

    def _group(self, method: str) -> h5py.Group:
        if method not in self.methods:
            raise ValueError(f"{self.path}: " + closest("method", method, self.methods))
        return self._file[method]


def _key(sample: str) -> str:
    # "." is a name of its own in HDF5, and quote leaves it alone.
    return quote(sample, safe="").replace(".", "%2E") if set(sample) <= {"."} else quote(sample, safe="")


def _nearest(sample: str, known: list[str]) -> str:
    message = closest("sample", sample, known)
    return message if len(known) <= 20 else message.split(" (known:")[0]
