"""Lesion detection as CAMELYON16 scores it: points with a confidence, against lesions that each count once (FROC).

Ehteshami Bejnordi et al., Diagnostic assessment of deep learning algorithms for detection of lymph node metastases in women with
breast cancer, JAMA 2017; the details are those of the challenge's evaluation script:

- The evaluation mask grows each annotation by half of 75 um, fills its holes and takes 8-connected regions: lesions closer than
  75 um are one, and a detection up to 37.5 um outside an annotation hits it.
- A region whose longest diameter (major axis of the ellipse of equal second moments), grown as it is, stays under 275 um holds
  only isolated tumor cells: it is no lesion to be found, and detections on it count neither way.
- Of several detections on a lesion the most confident counts, the others do not count at all. One on no region is false.
- False positives are counted per slide over all slides, with tumor or without; sensitivity is that of all lesions together.
- The score is the mean sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide, linear between the points of the curve;
  beyond its last point the sensitivity stays.

One difference: the script leaves out the lowest of all confidences, counting 0 for each region without a hit as one of them. As
long as any region has none (isolated cells always have none), that is exactly what is here; if every region is hit, it drops a
real point of the curve (one slide with its one lesion found scores 0 there), and this module keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsol.evaluation.counts import Floats
from wsol.evaluation.metrics import source
from wsol.evaluation.points import Detection

MERGE_UM = 75.0
"""Annotations closer than this are one lesion: the size of five tumor cells."""

ISOLATED_UM = 275.0
"""Grown regions shorter than this are isolated tumor cells: 200 um and the growth."""

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per slide at which the challenge takes the sensitivity."""


def evaluation_mask(mask: NDArray[np.bool_], *, mpp: float, merge_um: float = MERGE_UM) -> NDArray[np.int32]:
    """The regions that CAMELYON16 counts as one lesion each: int32 (H, W), 0 = outside, 1 ... n by their first pixel, row by row.

    Args:
        mask: bool (H, W), True on annotated tumor. Without any there is no region.
        mpp: micrometers per pixel of the mask (the challenge: level 5, 0.243 * 2**5 = 7.776).
        merge_um: each annotation grows by less than half of this.

    Raises:
        ValueError: the mask is not bool (H, W), or a size that is not positive.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(f"mask must be bool (H, W), got {mask.dtype} {mask.shape}; say which values are tumor, e.g. mask > 0")
    _check_sizes(mpp=mpp, merge_um=merge_um)
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    grown = ndimage.distance_transform_edt(~mask) < merge_um / (mpp * 2)
    labels, _ = ndimage.label(ndimage.binary_fill_holes(grown), structure=np.ones((3, 3)))
    return labels.astype(np.int32, copy=False)


def isolated_tumor_cells(regions: NDArray[np.integer], *, mpp: float, longest_um: float = ISOLATED_UM) -> list[int]:
    """Labels of an `evaluation_mask` whose longest diameter is under `longest_um`, ascending.

    Args:
        regions: int (H, W), 0 = outside.
        mpp: micrometers per pixel.
        longest_um: of the grown region.

    Raises:
        ValueError: regions that are not int (H, W), or a size that is not positive.
    """
    from skimage import measure

    _check_sizes(mpp=mpp, longest_um=longest_um)
    labels = _checked_regions(regions)
    return [int(region.label) for region in measure.regionprops(labels) if region.axis_major_length < longest_um / mpp]


def _check_sizes(**sizes: float) -> None:
    for name, value in sizes.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value}")


def _checked_regions(regions: NDArray[np.integer]) -> NDArray[np.integer]:
    labels = np.asarray(regions)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"regions must be int (H, W), got {labels.dtype} {labels.shape}; make them with evaluation_mask()")
    if labels.size and labels.min() < 0:
        raise ValueError(f"ids of regions must not be negative, got {int(labels.min())}; 0 is outside")
    return labels


@dataclass(frozen=True, eq=False)
class SlideFindings:
    """What the detections of one slide, or of many, amount to."""

    found: Floats  # (lesions hit,) the highest confidence on each
    false: Floats  # (false positives,) their confidences
    lesions: int  # to be found, hit or not
    slides: int = 1

    @staticmethod
    def total(parts: Iterable[SlideFindings]) -> SlideFindings:
        """All slides together."""
        parts = list(parts)
        return SlideFindings(
            np.concatenate([np.zeros(0), *(p.found for p in parts)]),
            np.concatenate([np.zeros(0), *(p.false for p in parts)]),
            sum(p.lesions for p in parts),
            sum(p.slides for p in parts),
        )


def slide_findings(
    points: Sequence[Detection],
    regions: NDArray[np.integer] | None = None,
    *,
    isolated: Iterable[int] = (),
    downsample: float = 1.0,
) -> SlideFindings:
    """Hits and false positives of one slide.

    Args:
        points: detections, in any order.
        regions: int (H, W), each id above 0 one lesion (see `evaluation_mask`); None for a slide without tumor, where every
            detection is false.
        isolated: ids that count neither way (see `isolated_tumor_cells`).
        downsample: pixels of the points' coordinates per pixel of `regions`.

    Raises:
        ValueError: a confidence outside (0, 1], a point outside the regions, or regions of the wrong type.
    """
    table = np.array(points, np.float64).reshape(-1, 3)
    wrong = ~((table[:, 2] > 0) & (table[:, 2] <= 1))
    if wrong.any():
        raise ValueError(f"confidences must be in (0, 1], got {table[wrong][0, 2]}; a detection of confidence 0 is none")
    if not np.isfinite(table[:, :2]).all():
        raise ValueError("coordinates of detections must be finite, got NaN or infinity")
    if regions is None:
        return SlideFindings(np.zeros(0), table[:, 2], 0)
    labels = _checked_regions(regions)
    _check_sizes(downsample=downsample)
    column, row = np.floor(table[:, :2].T / downsample).astype(np.int64)
    outside = (column < 0) | (row < 0) | (column >= labels.shape[1]) | (row >= labels.shape[0])
    if outside.any():
        x, y = table[outside][0, :2]
        raise ValueError(f"a detection at ({x:g}, {y:g}) lies outside regions {labels.shape} at downsample {downsample:g}")
    ids, skipped = np.unique(labels[labels > 0]), np.array(list(isolated), np.int64)
    targets = ids[~np.isin(ids, skipped)]
    hit = labels[row, column]
    best = np.zeros(len(targets))
    counted = np.isin(hit, targets)
    np.maximum.at(best, np.searchsorted(targets, hit[counted]), table[counted, 2])
    return SlideFindings(best[best > 0], table[hit == 0, 2], len(targets))


@dataclass(frozen=True, eq=False)
class FrocResult:
    """The curve of all slides added so far. NaN where there are no lesions or no slides."""

    score: float  # mean of `sensitivities`, in [0, 1]
    rates: tuple[float, ...]  # false positives per slide
    sensitivities: tuple[float, ...]  # at the rates
    threshold: Floats  # (n,) each confidence, ascending, and infinity: where nothing is detected
    false_positives: Floats  # (n,) per slide, of confidence >= threshold
    sensitivity: Floats  # (n,) share of lesions with a detection of confidence >= threshold
    lesions: int
    slides: int


class Froc:
    """FROC over slides, one at a time. States add up: workers and jobs merge exactly.

    Args:
        rates: false positives per slide at which sensitivity is taken.

    Raises:
        ValueError: no rate, or one that is not positive.

    Example:
        >>> froc = Froc()
        >>> for score, mask in slides:
        ...     regions = evaluation_mask(mask, mpp=8.0)
        ...     points = detections(score, min_distance_px=12, threshold=0.5)
        ...     froc.add(points, regions, isolated=isolated_tumor_cells(regions, mpp=8.0))
        >>> froc.result().score
    """

    def __init__(self, rates: Sequence[float] = RATES) -> None:
        if not rates or not all(0 < rate < math.inf for rate in rates):
            raise ValueError(f"rates must be one or more positive numbers of false positives per slide, got {tuple(rates)}")
        self.rates = tuple(float(rate) for rate in rates)
        self._parts: list[SlideFindings] = []

    @property
    def findings(self) -> SlideFindings:
        """All slides together."""
        return SlideFindings.total(self._parts)

    def add(
        self,
        points: Sequence[Detection],
        regions: NDArray[np.integer] | None = None,
        *,
        isolated: Iterable[int] = (),
        downsample: float = 1.0,
    ) -> SlideFindings:
        """Add one slide; returns its own findings, to keep. Arguments and errors as `slide_findings`."""
        findings = slide_findings(points, regions, isolated=isolated, downsample=downsample)
        self._parts.append(findings)
        return findings

    def __add__(self, other: Froc) -> Froc:
        """The state of both. Neither is changed.

        Raises:
            ValueError: the rates differ.
        """
        if not isinstance(other, Froc):
            return NotImplemented
        if self.rates != other.rates:
            raise ValueError(f"cannot add FROCs of different rates: {self.rates} and {other.rates}")
        total = Froc(self.rates)
        total._parts = [*self._parts, *other._parts]
        return total

    def result(self) -> FrocResult:
        """The curve and its score."""
        every = self.findings
        threshold = np.append(np.unique(np.concatenate([every.found, every.false])), np.inf)
        misses, hits = (_at_least(values, threshold) for values in (every.false, every.found))
        false_positives = misses / every.slides if every.slides else np.full(len(threshold), np.nan)
        sensitivity = hits / every.lesions if every.lesions else np.full(len(threshold), np.nan)
        at_rates = np.interp(self.rates, false_positives[::-1], sensitivity[::-1])
        return FrocResult(
            score=float(at_rates.mean()),
            rates=self.rates,
            sensitivities=tuple(float(value) for value in at_rates),
            threshold=threshold,
            false_positives=false_positives,
            sensitivity=sensitivity,
            lesions=every.lesions,
            slides=every.slides,
        )


def _at_least(values: Floats, threshold: Floats) -> NDArray[np.int64]:
    """How many values are >= each threshold."""
    return len(values) - np.searchsorted(np.sort(values), threshold, side="left")


@source("Ehteshami Bejnordi et al., Diagnostic assessment of deep learning algorithms for lymph node metastases, JAMA 2017")
def froc(state: Froc) -> float:
    """Mean sensitivity to lesions at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide; NaN without lesions."""
    return state.result().score


@source("Ehteshami Bejnordi et al., Diagnostic assessment of deep learning algorithms for lymph node metastases, JAMA 2017")
def lesion_sensitivity(state: Froc, threshold: float = 0.0) -> float:
    """Share of lesions, isolated tumor cells apart, with a detection of confidence >= threshold; NaN without lesions."""
    every = state.findings
    return int(np.count_nonzero(every.found >= threshold)) / every.lesions if every.lesions else float("nan")
