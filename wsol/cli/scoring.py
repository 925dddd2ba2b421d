"""From a stored raw map to a score in [0, 1] at any resolution: the one place where scale, frame and coverage meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from wsol.data import StoredMap

BADGE = {"fitted": "fitted on validation", "probability": "probability", "per-image": "per-image min-max", "raw": "raw"}


@dataclass(frozen=True)
class Scale:
    """How raw values become scores: `kind` of the configuration (or `raw`), the fitted range, and whether ReLU comes first."""

    kind: str
    rectified: bool = False
    low: float = 0.0
    high: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def fit_scale(kind: str, validation: Iterable[StoredMap], *, rectified: bool, bounded: bool = False) -> Scale:
    """The scale of one method. `fitted`: the range of the validation maps (no masks, no labels). `bounded` maps stay."""
    from wsol.evaluation import fit_range

    if bounded:
        return Scale("raw", rectified)
    if kind != "fitted":
        return Scale(kind, rectified)
    values = [m.array if m.coverage is None else m.array[m.coverage] for m in validation]
    values = [np.maximum(v, 0) if rectified else v for v in values if v.size]
    if not values:
        raise ValueError(
            "scale: fitted needs maps of the validation split, and there are none; use scale: per-image or add validation samples"
        )
    flat = np.concatenate([v.ravel() for v in values])
    if flat.min() == flat.max():  # a dead map (LayerCAM of a saturated net): 0 everywhere, and scored as the constant it is
        return Scale("fitted", rectified, float(flat[0]), float(flat[0]) + 1.0)
    low, high = fit_range(values)
    return Scale("fitted", rectified, float(low), float(high))


def score(stored: StoredMap, scale: Scale, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Score (H, W) in [0, 1] of one map, laid on an image or mask of `shape`; 0 where a slide was not covered by tiles."""
    from wsol.cams import finish

    height, width = stored.size
    frame_height = stored.frame.height if stored.frame else height
    frame_width = stored.frame.width if stored.frame else width
    size = (round(frame_height * shape[0] / height), round(frame_width * shape[1] / width))
    if scale.kind in ("fitted", "raw"):
        full = finish(stored.array, size, relu=scale.rectified, normalize="range", scope=(scale.low, scale.high))
    else:
        full = finish(stored.array, size, relu=scale.rectified, normalize="sigmoid" if scale.kind == "probability" else "minmax")
    full = np.clip(full, 0.0, 1.0, dtype=np.float32)
    if stored.coverage is not None:
        full[~_enlarge(stored.coverage, size)] = 0.0
    return np.ascontiguousarray(full[: shape[0], : shape[1]])


def _enlarge(coverage: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Nearest-neighbor enlargement of a cell mask."""
    rows = np.minimum(np.arange(size[0]) * coverage.shape[0] // size[0], coverage.shape[0] - 1)
    columns = np.minimum(np.arange(size[1]) * coverage.shape[1] // size[1], coverage.shape[1] - 1)
    return coverage[rows[:, None], columns[None, :]]


class Maps:
    """The maps of one split: one file, or a folder with one file per slide."""

    def __init__(self, base: Path, samples: Iterable[str]) -> None:
        """Open nothing yet; a missing file is an error when its sample is asked for."""
        self.base, self.samples = base, list(samples)

    def file(self, sample: str) -> Path:
        """The file that holds a sample.

        Raises:
            FileNotFoundError: it is not there; the message names the verb that makes it.
        """
        path = self.base / f"{sample}.h5" if self.base.is_dir() else self.base
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no maps of sample {sample!r}; run `wsol localize` for it")
        return path

    def readers(self) -> Iterator[tuple[str, Any]]:
        """(sample, open reader), each file opened once."""
        from wsol.data import MapReader

        if self.base.is_dir():
            for sample in self.samples:
                with MapReader(self.file(sample)) as reader:
                    yield sample, reader
        elif self.samples:
            with MapReader(self.file(self.samples[0])) as reader:
                for sample in self.samples:
                    yield sample, reader

    def read(self, method: str) -> Iterator[tuple[str, StoredMap]]:
        """(sample, map) of one method, in the order of the samples."""
        for sample, reader in self.readers():
            yield sample, reader.read(method, sample)

    def first(self) -> tuple[list[str], dict[str, Any]]:
        """Methods and provenance, as the first file says."""
        for _, reader in self.readers():
            return list(reader.methods), dict(reader.provenance)
        raise ValueError(f"{self.base}: the split has no samples; check roles and folds in the manifest")
