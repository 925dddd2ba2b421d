"""Over- and under-activation: how much of each image a map activates in vain, and how much of the truth it leaves out.

The survey of Rony et al. (MELBA 2023) names both as open problems and shows them as pooled confusion matrices. Pooled numbers
hide that one map does the one on one image and the other on the next, so here every image has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsol.evaluation.counts import PixelCounts
from wsol.evaluation.intervals import plain
from wsol.evaluation.metrics import source

AREAS = ("true_area", "activated_area", "false_positive_area", "false_negative_area")
"""Shares of the image."""


@dataclass(frozen=True)
class Activation:
    """Areas of one image at one threshold, each a share of the image's pixels in [0, 1]; all NaN without pixels."""

    sample: str
    threshold: float
    true_area: float
    activated_area: float
    false_positive_area: float
    false_negative_area: float

    @property
    def error(self) -> float:
        """Activated area minus true area, in [-1, 1]: too much above 0, too little below; 0 also for a map that is misplaced."""
        return self.activated_area - self.true_area

    @property
    def over(self) -> float:
        """Share of the background that is activated, FP / (FP + TN); NaN where all is true."""
        return _share(self.false_positive_area, 1.0 - self.true_area)

    @property
    def under(self) -> float:
        """Share of the true area that is not activated, FN / (TP + FN); NaN where nothing is true."""
        return _share(self.false_negative_area, self.true_area)

    def to_dict(self) -> dict[str, float | None]:
        """The four areas as plain values for a JSON file."""
        return {name: plain(getattr(self, name)) for name in AREAS}


def activation(counts: Sequence[PixelCounts], thresholds: float | Sequence[float], samples: Sequence[str]) -> list[Activation]:
    """Areas of every image.

    Args:
        counts: one per image.
        thresholds: an edge of the bins for all images, or one per image.
        samples: (n,) names.

    Raises:
        ValueError: not one name per image, neither one threshold nor one per image, or a threshold that is no edge.
    """
    each = [float(thresholds)] * len(counts) if isinstance(thresholds, float | int) else [float(t) for t in thresholds]
    if not len(each) == len(counts) == len(samples):
        raise ValueError(
            f"need a name per image, and one threshold or one per image: got {len(samples)} names and {len(each)} thresholds for"
            f" {len(counts)} images"
        )
    return [_activation(c, t, str(name)) for c, t, name in zip(counts, each, samples, strict=True)]


def _activation(counts: PixelCounts, threshold: float, sample: str) -> Activation:
    at, pixels = counts.at(threshold), counts.pixels
    areas = [_share(part, pixels) for part in (at.tp + at.fn, at.tp + at.fp, at.fp, at.fn)]
    return Activation(sample, at.threshold, *areas)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def summarize_activation(images: Sequence[Activation], share: float = 0.5) -> dict[str, Any]:
    """Medians over images, and how many are over- and under-activated, as plain values (None where undefined).

    Args:
        images: from `activation`.
        share: an image is over-activated iff more than this share of its background is activated, under-activated iff more than
            this share of its true area is not; it can be both. Half is our choice: beyond it a map says of most background, or
            of most of the truth, the opposite of what is so.

    Returns:
        "true_area", "activated_area", "false_positive_area", "false_negative_area", "error": medians; "quartiles": {each of
        these: [lower, upper]}; "over": share of the `over_samples` images with a background that are over-activated; "under":
        share of the `under_samples` images with a true area that are under-activated; "rule" in words; "samples" with pixels.

    Raises:
        ValueError: no images, or a share outside (0, 1).
    """
    if not images:
        raise ValueError("no images to summarize: need at least one")
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    facts: dict[str, Any] = {}
    quartiles: dict[str, list[float | None]] = {}
    for name in (*AREAS, "error"):
        low, middle, high = _quartiles([getattr(image, name) for image in images])
        facts[name], quartiles[name] = middle, [low, high]
    for name in ("over", "under"):
        values = np.array([getattr(image, name) for image in images])
        values = values[~np.isnan(values)]
        facts[name] = float(np.mean(values > share)) if values.size else None
        facts[f"{name}_samples"] = int(values.size)
    rule = (
        f"over-activated: more than {share:g} of the background is activated;"
        f" under-activated: more than {share:g} of the true area is not"
    )
    samples = sum(image.true_area == image.true_area for image in images)
    return {**facts, "quartiles": quartiles, "rule": rule, "samples": samples}


def _quartiles(values: Sequence[float]) -> tuple[float | None, ...]:
    defined = np.array([v for v in values if v == v])
    return tuple(np.percentile(defined, [25, 50, 75]).tolist()) if defined.size else (None, None, None)


@source(
    "Rony et al., Deep weakly-supervised learning methods for classification and localization in histology images, MELBA 2023"
)
def activated_area(counts: PixelCounts, threshold: float) -> float:
    """Share of all pixels with score >= threshold, to be read beside the prevalence; the number is that of `flagged_area`."""
    return _activation(counts, threshold, "").activated_area


@source(
    "Rony et al., Deep weakly-supervised learning methods for classification and localization in histology images, MELBA 2023"
)
def false_positive_area(counts: PixelCounts, threshold: float) -> float:
    """FP / all pixels at a threshold: what over-activation costs, as a share of the image; NaN without pixels."""
    return _activation(counts, threshold, "").false_positive_area


@source(
    "Rony et al., Deep weakly-supervised learning methods for classification and localization in histology images, MELBA 2023"
)
def false_negative_area(counts: PixelCounts, threshold: float) -> float:
    """FN / all pixels at a threshold: what under-activation costs, as a share of the image; NaN without pixels."""
    return _activation(counts, threshold, "").false_negative_area
