"""Does a map keep what the classifier looked at: average drop and its kin, ADCC, and the saliency metric of the tightest crop.

`full` and `kept` are probabilities of one class, (n,): on the image, and on what the map keeps of it (`masked_image`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from wsol.evaluation.counts import Floats, quotient
from wsol.evaluation.metrics import source
from wsol.evaluation.perturbation import Classify, Image, checked_image, probabilities, unit_score

SMALLEST_AREA = 0.05
SMALLEST_PROBABILITY = 1e-6
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def drops(full: ArrayLike, kept: ArrayLike) -> Floats:
    """Share of each image's probability that is lost: max(0, full - kept) / full, (n,) in [0, 1]; NaN where full is 0.

    Raises:
        ValueError: not two (n,), n > 0, of probabilities.
    """
    before, after = _pair(full, kept)
    return quotient(np.maximum(0, before - after), before)


@source("Chattopadhay et al., Grad-CAM++: Generalized Gradient-based Visual Explanations, WACV 2018")
def average_drop(full: ArrayLike, kept: ArrayLike) -> float:
    """Mean of `drops` over the images where they are defined, in [0, 1]; lower is better, and an all-ones map has 0.

    Raises:
        ValueError: not two (n,), n > 0, of probabilities.
    """
    lost = drops(full, kept)
    defined = lost[~np.isnan(lost)]
    return float(defined.mean()) if defined.size else float("nan")


@source("Chattopadhay et al., Grad-CAM++: Generalized Gradient-based Visual Explanations, WACV 2018")
def average_increase(full: ArrayLike, kept: ArrayLike) -> float:
    """Share of the images whose probability rises, strictly: kept > full; higher is better.

    Raises:
        ValueError: not two (n,), n > 0, of probabilities.
    """
    before, after = _pair(full, kept)
    return float((after > before).mean())


@source("Chattopadhay et al., Grad-CAM++: Generalized Gradient-based Visual Explanations, WACV 2018")
def win_rate(lost: ArrayLike, rival: ArrayLike) -> float:
    """Share of the images where one map drops strictly less than the rival's; higher is better. Two equal drops are nobody's win.

    Args:
        lost: `drops` of the method, (n,); images where one of the two is NaN are left out.
        rival: `drops` of the other method, on the same images.

    Returns:
        NaN if no image is left.

    Raises:
        ValueError: lengths differ.
    """
    mine, other = np.asarray(lost, np.float64), np.asarray(rival, np.float64)
    if mine.ndim != 1 or mine.shape != other.shape:
        raise ValueError(f"need the drops of two methods on the same images, both (n,); got {mine.shape} and {other.shape}")
    both = ~(np.isnan(mine) | np.isnan(other))
    return float((mine[both] < other[both]).mean()) if both.any() else float("nan")


@dataclass(frozen=True)
class Adcc:
    """The three parts of one image's ADCC, each in [0, 1].

    Attributes:
        coherency: (1 + r) / 2, r the correlation of the map with the map of what it keeps; NaN where either is constant.
        complexity: mean of the map.
        drop: see `drops`.
    """

    coherency: float
    complexity: float
    drop: float

    @property
    def value(self) -> float:
        """Harmonic mean of coherency, 1 - complexity and 1 - drop; 0 when one of them is 0 or undefined, as with its authors."""
        terms = (self.coherency, 1 - self.complexity, 1 - self.drop)
        if any(np.isnan(t) or t <= 0 for t in terms):
            return 0.0
        return 3 / sum(1 / t for t in terms)


@source("Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021")
def adcc(score: ArrayLike, again: ArrayLike, full: float, kept: float) -> Adcc:
    """Average drop, coherency and complexity of one image in one number; higher is better. The metric is the mean over images.

    All four belong to one class; the authors' code mixes the class of the map with the predicted one.

    Args:
        score: the map of the image, (H, W) in [0, 1]: with an all-ones map, and with an all-zero one, the value is 0.
        again: the map of the same method and class drawn on `masked_image(image, score)`, same size and range.
        full: probability of the class on the image.
        kept: its probability on the masked image.

    Raises:
        ValueError: sizes differ, NaN, or values outside [0, 1].
    """
    first = unit_score(score, np.shape(score))
    second = unit_score(again, first.shape)
    coherency = float("nan")
    if first.min() < first.max() and second.min() < second.max():
        a, b = first - first.mean(), second - second.mean()
        coherency = (1 + float(np.clip((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()), -1, 1))) / 2
    return Adcc(coherency, float(first.mean()), float(drops([full], [kept])[0]))


class Crop(NamedTuple):
    """Half-open box of whole pixels: columns x0 ... x1 - 1, rows y0 ... y1 - 1."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, eq=False)
class Saliency:
    """The saliency metric of one image over a sweep of thresholds; NaN and None where no pixel is flagged.

    Attributes:
        thresholds: (t,).
        values: log(max(area, 0.05)) - log(probability), (t,); lower is better.
        areas: share of the image that the crop covers, (t,).
        probabilities: of the class on the crop, (t,).
        crops: the boxes.
    """

    thresholds: Floats
    values: Floats
    areas: Floats
    probabilities: Floats
    crops: tuple[Crop | None, ...]


@source("Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017")
def saliency_metric(
    classify: Classify,
    image: Image,
    score: ArrayLike,
    target: int,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    batch: int = 32,
) -> Saliency:
    """Crop to the tightest box around all pixels with score >= threshold, resize it to the image's size, ask for its class.

    log(max(area, 0.05)) - log(max(p, 1e-6)): small crops that the classifier knows are good; the whole image has -log(p). Below 5
    percent of the image a smaller crop gains nothing. The resize is bilinear and does not keep the aspect ratio. A threshold has
    to be chosen on other images than those the metric is reported on.

    Args:
        classify: float32 (n, 3, H, W) RGB in [0, 1] -> probabilities (n, k).
        image: float32 (3, H, W), RGB in [0, 1].
        score: (H, W) in [0, 1].
        target: the class.
        thresholds: the sweep, each in [0, 1].
        batch: most crops per call of the classifier.

    Raises:
        ValueError: shapes that do not match, NaN, values outside [0, 1], no such class.
    """
    image = checked_image(image)
    values = unit_score(score, image.shape[1:])
    sweep = np.asarray(thresholds, np.float64)
    if sweep.ndim != 1 or not sweep.size or not ((sweep >= 0) & (sweep <= 1)).all():
        raise ValueError(f"thresholds must lie in [0, 1], at least one; got {list(thresholds)}")
    crops = tuple(tightest_crop(values, t) for t in sweep)
    distinct = list(dict.fromkeys(crop for crop in crops if crop is not None))
    asked = dict(zip(distinct, probabilities(classify, (_enlarged(image, c) for c in distinct), target, batch), strict=True))
    areas = np.array([(c.x1 - c.x0) * (c.y1 - c.y0) / values.size if c else np.nan for c in crops])
    found = np.array([asked[c] if c else np.nan for c in crops])
    metric = np.log(np.maximum(areas, SMALLEST_AREA)) - np.log(np.maximum(found, SMALLEST_PROBABILITY))
    return Saliency(sweep, metric, areas, found, crops)


def tightest_crop(score: ArrayLike, threshold: float) -> Crop | None:
    """The smallest box around all pixels with score >= threshold; None if there is none."""
    flagged = np.asarray(score) >= threshold
    rows, columns = np.flatnonzero(flagged.any(axis=1)), np.flatnonzero(flagged.any(axis=0))
    return Crop(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if rows.size else None


def _enlarged(image: Image, crop: Crop) -> Image:
    """The crop, resized to the image's size."""
    import cv2

    part = np.ascontiguousarray(image[:, crop.y0 : crop.y1, crop.x0 : crop.x1].transpose(1, 2, 0))
    if part.shape[:2] != image.shape[1:]:
        part = np.asarray(cv2.resize(part, (image.shape[2], image.shape[1]), interpolation=cv2.INTER_LINEAR), np.float32)
    return part.transpose(2, 0, 1).clip(0, 1)


def _pair(full: ArrayLike, kept: ArrayLike) -> tuple[Floats, Floats]:
    before, after = np.asarray(full, np.float64), np.asarray(kept, np.float64)
    if before.ndim != 1 or before.shape != after.shape or not before.size:
        raise ValueError(
            f"need the probability on each image and on what is kept of it, both (n,); got {before.shape}, {after.shape}"
        )
    both = np.concatenate([before, after])
    if not ((both >= 0) & (both <= 1 + 1e-6)).all():
        raise ValueError(f"probabilities must lie in [0, 1], got {both.min()} ... {both.max()}; apply softmax to logits first")
    return before, after
