"""What one evaluation works on: maps of two splits, masks, the manifest, and how they go together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol.cli.classify import temperature
from wsol.cli.schema import Evaluate
from wsol.cli.scoring import Again, Maps, Scale, fit_scale, laid, mask_of
from wsol.cli.tuning import Split, Tuning, tune

if TYPE_CHECKING:
    import pandas as pd

    from wsol.data import Manifest, Masks
    from wsol.evaluation import PixelCounts, PixelCurve

BOUNDED = {"all-ones", "random", "pixel-regression"}
"""Floors that already are in [0, 1]."""


@dataclass(frozen=True)
class Job:
    """What one evaluation works on: one map set of one checkpoint, one split, and the validation split beside it."""

    settings: Evaluate
    listing: Manifest
    truth: Masks
    maps: Path
    validation: Path
    key: dict[str, Any]
    run: dict[str, Any]

    @property
    def floors(self) -> bool:
        """Whether the maps need no training."""
        return bool(self.key["model"] == "floors")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Samples that are scored."""
        return self.listing.rows(self.key["fold"], self.key["split"]).reset_index(drop=True)

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """Validation samples."""
        return self.listing.rows(self.key["fold"], "valcl").reset_index(drop=True)

    @cached_property
    def scored(self) -> Maps:
        """Maps that are scored."""
        return Maps(self.maps, self.rows["sample"])

    @cached_property
    def tuned(self) -> Maps:
        """Maps of the validation samples."""
        return Maps(self.validation, self.tuning["sample"])

    @cached_property
    def made(self) -> dict[str, Any]:
        """How the maps were drawn, as their file says."""
        return self.scored.first()[1]

    @property
    def methods(self) -> list[str]:
        """Ids of the maps."""
        return self.scored.first()[0]

    @cached_property
    def split(self) -> Split:
        """What is known of the validation samples before a map is opened."""
        rows, listing = self.tuning, self.listing
        masked = set(listing.rows(self.key["fold"], "valpx")["sample"])
        positive = {i for i, name in enumerate(listing.classes) if name in listing.positive}
        empty = rows[~rows["label"].isin(positive)] if listing.mask_means == "class" else rows.iloc[:0]
        return Split(masked, set(empty["sample"]), dict(zip(rows["sample"], rows["patient"], strict=True)))

    @cached_property
    def temperature(self) -> float | None:
        """Fitted on validation labels; None without logits."""
        return None if self.floors else temperature(self.tuning, self.tuned, self.listing)

    def rectified(self, method: str) -> bool:
        """Whether the final map of a method is rectified: a fact of its class, or of the method that a wrapper is given."""
        from wsol.cams import drawer

        if self.floors:
            return False
        made = next(m for m in self.made["methods"] if m["id"] == method)
        return bool(drawer(made["method"], made["options"]).rectified)

    def scale(self, method: str, kind: str) -> Scale:
        """The scale of one method."""
        return fit_scale(
            kind,
            Again(lambda: (m for _, m in self.tuned.read(method))),
            rectified=self.rectified(method),
            bounded=self.floors and method in BOUNDED,
            temperature=self.temperature if kind == "temperature" else None,
            scored=chain(self.scored.read(method), self.tuned.read(method)) if kind == "per-slide" else (),
            slides={**dict(zip(self.rows["sample"], self.rows["slide"], strict=True)),
                    **dict(zip(self.tuning["sample"], self.tuning["slide"], strict=True))},
        )  # fmt: skip

    def tune(self, method: str, scale: Scale) -> Tuning:
        """Counts of the validation maps."""
        return tune(self.settings, scale, self.truth, self.tuned.read(method), self.split)


@dataclass(frozen=True)
class Counted:
    """Counts of the scored maps of one method: per sample, and exact per group ("all" and each class)."""

    samples: dict[str, PixelCounts]
    exact: dict[str, PixelCurve]
    seconds: list[float]
    drawn: str

    @property
    def histograms(self) -> dict[str, Any]:
        """Sample -> pixels per score bin."""
        return {s: c.histogram for s, c in self.samples.items()}


def count(job: Job, method: str, scale: Scale, groups: bool = True) -> Counted:
    """Lay every map on its mask and count; samples without a mask are not scored."""
    from wsol.evaluation import PixelCounts, PixelCurve

    names = {s: job.listing.classes[i] for s, i in zip(job.rows["sample"], job.rows["label"], strict=True)}
    samples: dict[str, PixelCounts] = {}
    exact: dict[str, PixelCurve] = {}
    seconds, drawn = [], "whole image"
    for sample, stored in job.scored.read(method):
        seconds.append(stored.seconds)
        drawn = {"tile": "per tile"}.get(stored.drawn, drawn)
        if not job.truth.has(sample):
            continue
        mask = mask_of(job.truth, sample, stored, job.settings.size)
        curves = [
            exact.setdefault(g, PixelCurve(exact=True)) for g in (("all", names[sample]) if groups else ("all",))
        ]  # 33 MB each
        parts = [[curve.add(*part) for curve in curves] for part in laid(stored, scale, mask, sample)]
        samples[sample] = PixelCounts.total(counts for counts, *_ in parts)
    return Counted(samples, exact, seconds, drawn)
