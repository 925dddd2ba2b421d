"""From a stored raw map to a score in [0, 1] at any resolution: the one place where scale, frame and coverage meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from wsol.data import DrawnMask, Masks, StoredMap
    from wsol.slides import Surface

BADGE = {
    "fitted": "fitted on validation",
    "none": "raw",
    "probability": "probability",
    "temperature": "temperature on validation labels",
    "per-slide": "per slide",
    "per-image": "per-image min-max",
}
"""Kind of scale -> its badge."""

WHOLE_PX = 2**24
"""px of a mask up to which its scores are made at once."""


@dataclass(frozen=True)
class Scale:
    """How raw values become scores in [0, 1]; ReLU comes first where the method has one.

    Attributes:
        kind: of `BADGE`. `none` takes maps that already are in [0, 1].
        rectified: whether negative values become 0 first.
        low: raw value that becomes 0 (`fitted`).
        high: raw value that becomes 1 (`fitted`).
        temperature: raw values are divided by it before the sigmoid (`temperature`).
        ranges: sample -> (low, high) of its slide (`per-slide`).
    """

    kind: str
    rectified: bool = False
    low: float = 0.0
    high: float = 1.0
    temperature: float = 1.0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def range_of(self, sample: str | None) -> tuple[float, float]:
        """The raw values that become 0 and 1 in this sample."""
        if self.kind != "per-slide":
            return self.low, self.high
        if sample is None or sample not in self.ranges:
            raise ValueError(f"scale: per-slide knows no range of sample {sample!r}; it is fitted on the maps that are scored")
        low, high = self.ranges[sample]
        return float(low), float(high)


def cells(stored: StoredMap, rectified: bool) -> npt.NDArray[np.float32]:
    """The drawn cells of a map, (n,), rectified where the method says so."""
    values = stored.array.ravel() if stored.coverage is None else stored.array[stored.coverage]
    return np.maximum(values, 0) if rectified else values


class Again:
    """What can be gone through again and again, each time read anew: maps of thousands of slides are not held."""

    def __init__(self, read: Callable[[], Iterable[Any]]) -> None:
        """`read` begins anew each time it is called."""
        self._read = read

    def __iter__(self) -> Iterator[Any]:
        return iter(self._read())


def span(values: Iterable[npt.NDArray[np.float32]]) -> tuple[float, float]:
    """`fit_range`, and (v, v + 1) for maps that are v everywhere: a dead map is scored as the constant it is."""
    from wsol.evaluation import ConstantMaps, fit_range

    try:
        return fit_range(values)
    except ConstantMaps as dead:
        return dead.value, dead.value + 1.0


def fit_scale(
    kind: str,
    validation: Iterable[StoredMap],
    *,
    rectified: bool,
    bounded: bool = False,
    temperature: float | None = None,
    scored: Iterable[tuple[str, StoredMap]] = (),
    slides: Mapping[str, str] | None = None,
) -> Scale:
    """The scale of one method.

    Args:
        kind: of `BADGE`.
        validation: maps whose range `fitted` takes (no masks, no labels); no iterator, they are read several times.
        rectified: whether ReLU comes first.
        bounded: the maps are in [0, 1] by construction, and stay as they are unless a range of their own is asked for.
        temperature: of `temperature`, fitted on validation labels; None where there are no logits to fit it on.
        scored: (sample, map) of the split that is scored, whose ranges `per-slide` takes.
        slides: sample -> slide, for `per-slide`.

    Raises:
        ValueError: `fitted` without validation maps, or `temperature` without logits.
    """
    if bounded and kind in ("fitted", "none", "probability", "temperature"):
        return Scale("none", rectified)
    if kind == "temperature":
        if temperature is None:
            raise ValueError("scale: temperature needs logits and labels of validation samples; use scale: fitted")
        return Scale(kind, rectified, temperature=temperature)
    if kind == "per-slide":
        return Scale(kind, rectified, ranges=_ranges(scored, rectified, slides or {}))
    if kind != "fitted":
        return Scale(kind, rectified)
    values = Again(lambda: (cells(m, rectified) for m in validation))
    if not any(v.size for v in values):
        raise ValueError("scale: fitted needs maps of the validation split, and there are none; add validation samples")
    return Scale(kind, rectified, *span(values))


def _ranges(
    scored: Iterable[tuple[str, StoredMap]], rectified: bool, slides: Mapping[str, str]
) -> dict[str, tuple[float, float]]:
    """Sample -> range of all drawn cells of its slide; (0, 1) for a slide without any. A slide is held until its last sample."""
    names: dict[str, str] = {}
    groups: dict[str, list[npt.NDArray[np.float32]]] = {}
    spans: dict[str, tuple[float, float]] = {}
    left = Counter(slides.values())

    def close(slide: str) -> None:
        values = groups.pop(slide)
        spans[slide] = span(values) if any(v.size for v in values) else (0.0, 1.0)

    for sample, stored in scored:
        slide = names[sample] = slides.get(sample, sample)
        groups.setdefault(slide, []).append(cells(stored, rectified))
        left[slide] -= 1
        if left[slide] == 0:
            close(slide)
    for slide in list(groups):  # others of its samples could not be drawn
        close(slide)
    return {sample: spans[slide] for sample, slide in names.items()}


def at_size(mask: npt.NDArray[np.bool_], side: int | None) -> npt.NDArray[np.bool_]:
    """A mask resized to (side, side) by its nearest pixels, as published; None leaves it as it is."""
    import cv2

    if side is None:
        return mask
    return np.asarray(cv2.resize(mask.view(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST), np.uint8).astype(bool)


def mask_of(truth: Masks, sample: str, stored: StoredMap, side: int | None) -> npt.NDArray[np.bool_] | DrawnMask:
    """The mask that a map is laid on: of the size of its sample, or resized to (side, side)."""
    return truth.bands(sample, stored.size) if side is None else at_size(truth.open(sample, shape=stored.size), side)


def score(stored: StoredMap, scale: Scale, shape: tuple[int, int], sample: str | None = None) -> npt.NDArray[np.float32]:
    """Score (H, W) in [0, 1] of one map, laid on an image or mask of `shape`; 0 where a slide was not covered by tiles.

    Args:
        stored: the raw map.
        scale: of the method.
        shape: (H, W) of the image or mask.
        sample: its name; needed by `per-slide`.

    Raises:
        ValueError: `scale: none` and values outside [0, 1].
    """
    from wsol.cams import finish

    size = _full_size(stored, shape)
    array, how = _finishing(stored, scale, sample)
    full = np.clip(finish(array, size, relu=scale.rectified, **how), 0.0, 1.0, dtype=np.float32)
    if stored.coverage is not None:
        full[~_enlarge(stored.coverage, size)] = 0.0
    return np.ascontiguousarray(full[: shape[0], : shape[1]])


def score_surface(stored: StoredMap, scale: Scale, shape: tuple[int, int], sample: str | None = None) -> Surface:
    """What `score` gives, up to rounding, to be read in parts: a slide need not be in memory at `shape`. Arguments as there."""
    from wsol.cams import finish
    from wsol.slides import Surface

    array, how = _finishing(stored, scale, sample)
    return Surface(
        np.maximum(array, 0) if scale.rectified else array,
        _full_size(stored, shape),
        shape=shape,
        finish=lambda part: finish(part, None, **how),
        coverage=stored.coverage,
    )


def laid(
    stored: StoredMap, scale: Scale, mask: npt.NDArray[np.bool_] | DrawnMask, sample: str | None = None
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """(score, mask) of a map that is laid on its mask: at once, or of what is larger than `WHOLE_PX` bands of rows.

    Scores of a slide at level 0 would take four bytes per px, and twice that while they are made.
    """
    if mask.size <= WHOLE_PX:
        yield score(stored, scale, (mask.shape[0], mask.shape[1]), sample), mask[:]
        return
    height, width = mask.shape
    surface, rows = score_surface(stored, scale, (height, width), sample), max(1, WHOLE_PX // (4 * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield surface.read((top, bottom), (0, width)), mask[top:bottom]


def _full_size(stored: StoredMap, shape: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of all that the cells stand for, beyond the image too, where the image has `shape`."""
    height, width = stored.size
    frame = (stored.frame.height, stored.frame.width) if stored.frame else (height, width)
    return round(frame[0] * shape[0] / height), round(frame[1] * shape[1] / width)


def _finishing(stored: StoredMap, scale: Scale, sample: str | None) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Raw cells, and how `finish` makes scores of them."""
    if scale.kind in ("probability", "temperature"):
        return stored.array / np.float32(scale.temperature), {"normalize": "sigmoid"}
    if scale.kind == "per-image":
        return stored.array, {"normalize": "range", "scope": _own_range(stored, scale)}
    _bounded(stored, scale)
    return stored.array, {"normalize": "range", "scope": scale.range_of(sample)}


def _own_range(stored: StoredMap, scale: Scale) -> tuple[float, float]:
    """The range of one map's cells before it is enlarged, as published: its maximum is below 1 then. A constant map scores 0."""
    values = cells(stored, scale.rectified)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    constant = high - low <= 4 * float(np.finfo(np.float32).eps) * max(abs(low), abs(high))  # up to rounding
    return (high, high + max(1.0, abs(high))) if constant else (low, high)


def _bounded(stored: StoredMap, scale: Scale) -> None:
    low, high = float(stored.array.min()), float(stored.array.max())
    if scale.kind == "none" and (low < -1e-6 or high > 1 + 1e-6):
        raise ValueError(
            f"scale: none takes maps in [0, 1], got values from {low:.4g} to {high:.4g}; use scale: fitted (needs validation "
            "maps) or probability"
        )


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
        """(sample, open reader), each file opened once; slides that could not be drawn are left out, `failures` names them."""
        from wsol.data import MapReader

        if self.base.is_dir():
            for sample in self.samples:
                with MapReader(self.file(sample)) as reader:
                    if "failure" not in reader.provenance:
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
        if failed := self.failures():
            raise ValueError(f"{self.base}: none of {len(failed)} slides could be drawn, the first: {failed[0]['reason']}")
        raise ValueError(f"{self.base}: the split has no samples; check roles and folds in the manifest")

    def failures(self) -> list[dict[str, Any]]:
        """Records of the slides that could not be drawn."""
        from wsol.data import MapReader

        found = []
        for sample in self.samples if self.base.is_dir() else []:
            with MapReader(self.file(sample)) as reader:
                found += [reader.provenance["failure"]] if "failure" in reader.provenance else []
        return found
