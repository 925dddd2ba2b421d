"""What a comparison works on: rows of the sheet, masks, settings; and the counts of one source of maps under one scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.config import Evaluate
from wsol.cli.foreign import Entry
from wsol.cli.mapsources import Source, image_size, laid

if TYPE_CHECKING:
    from wsol.cli.scoring import Scale
    from wsol.cli.tuning import Tuning
    from wsol.data import Masks
    from wsol.evaluation import PixelCounts, PixelCurve

DRAWN = {"whole": "whole image", "tile": "per tile"}


@dataclass(frozen=True)
class Contest:
    """What a comparison works on: rows that are scored, rows that scales and thresholds come from, masks, settings."""

    settings: Evaluate
    scored: list[Entry]
    tuning: list[Entry]
    truth: Masks
    negative: Sequence[str]
    kind: str
    seed: int

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int] | None]:
        """Sample -> (H, W) px of its image, as its mask or its image says; None where neither is there."""
        from wsol.data import image_shape

        return {e.sample: image_shape(e.mask) if e.mask else image_size(e, self.kind) for e in [*self.scored, *self.tuning]}

    def opened(self, entry: Entry) -> npt.NDArray[np.bool_]:
        """The mask of a row, bool (H, W)."""
        size = self.sizes[entry.sample]
        if size is None:
            raise ValueError(
                f"row {entry.number}: the mask of {entry.sample!r} is known to be empty, but nothing says how large its "
                "image is; add the column path, or a black mask"
            )
        return self.truth.open(entry.sample, shape=size)

    def label(self, entry: Entry, foreground: bool) -> str:
        """The class of a row; without labels what its mask holds."""
        return entry.label or ("with foreground" if foreground else "without foreground")


@dataclass(frozen=True)
class Counted:
    """Counts of the scored maps of one source: per sample, and exact per group ("all" and each class).

    Attributes:
        samples: sample -> counts.
        labels: sample -> class.
        exact: group -> curve.
        seconds: that drawing took, NaN where unknown.
        drawn: badge.
    """

    samples: dict[str, PixelCounts]
    labels: dict[str, str]
    exact: dict[str, PixelCurve]
    seconds: list[float]
    drawn: str

    @property
    def histograms(self) -> dict[str, Any]:
        """Sample -> pixels per score bin."""
        return {s: c.histogram for s, c in self.samples.items()}


@contextmanager
def _about(one: Source, entry: Entry) -> Iterator[None]:
    """An error in a map says whose it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"maps {one.name!r}, sample {entry.sample!r}: {error}") from error


def scale_of(contest: Contest, one: Source, floor: bool) -> Scale:
    """The scale of one source. Stain floors have no range without validation rows: then the sigmoid, which keeps their order."""
    from wsol.cli.scoring import Again, fit_scale

    kind = contest.settings.scale
    if floor and not contest.tuning and kind in ("fitted", "none"):
        kind = "probability"
    validation = Again(lambda: (one.read(e, contest.sizes[e.sample]) for e in contest.tuning))
    return fit_scale(kind, validation, rectified=one.rectified, bounded=one.bounded)


def tune(contest: Contest, one: Source, scale: Scale, scored: Mapping[str, Any]) -> Tuning:
    """Counts of the validation maps; without validation rows, the score histograms of the scored maps and no mask."""
    from wsol.cli.scoring import score
    from wsol.cli.tuning import Split, Tuning
    from wsol.evaluation import count_pixels, score_histogram

    masked: dict[str, PixelCounts] = {}
    histograms: dict[str, Any] = {}
    for entry in contest.tuning:
        stored = one.read(entry, contest.sizes[entry.sample])
        if contest.truth.has(entry.sample):
            mask = contest.opened(entry)
            with _about(one, entry):
                masked[entry.sample] = count_pixels(laid(stored, scale, mask.shape, entry.sample), mask)
        with _about(one, entry):
            histograms[entry.sample] = score_histogram(score(stored, scale, stored.array.shape, entry.sample))
    negatives = {e.sample for e in contest.tuning if e.label in contest.negative}
    split = Split(set(masked), negatives, {e.sample: e.patient for e in contest.tuning})
    files = sum(contest.truth.kind(sample) == "file" for sample in masked)
    return Tuning(masked, histograms or dict(scored), files, split)


def count(contest: Contest, one: Source, scale: Scale) -> Counted:
    """Lay every scored map on its mask and count."""
    from wsol.evaluation import PixelCurve

    samples: dict[str, PixelCounts] = {}
    labels: dict[str, str] = {}
    exact: dict[str, PixelCurve] = {}
    seconds, drawn = [], set()
    for entry in contest.scored:
        mask = contest.opened(entry)
        with _about(one, entry):
            stored = one.read(entry, contest.sizes[entry.sample])
            values = laid(stored, scale, mask.shape, entry.sample)
        labels[entry.sample] = contest.label(entry, bool(mask.any()))
        for group in ("all", labels[entry.sample]):  # one exact curve per group: 33 MB each, however many samples
            samples[entry.sample] = exact.setdefault(group, PixelCurve(exact=True)).add(values, mask)
        seconds.append(stored.seconds)
        drawn.add(DRAWN.get(stored.drawn, "unknown"))
    return Counted(samples, labels, exact, seconds, drawn.pop() if len(drawn) == 1 else "unknown")
