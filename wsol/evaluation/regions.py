"""Lesion by lesion: which connected regions of a mask a map finds, how much of each, and which predicted regions touch none.

Pixels weigh large lesions most; here every lesion counts once. For detections as points see `froc`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsol._names import closest
from wsol.evaluation.boxes import Box, neighborhood
from wsol.evaluation.metrics import source
from wsol.evaluation.thresholds import smallest_flagged

RULES = ("any-overlap", "min-share")
"""When a lesion is hit: one flagged pixel is enough, or a share of its area is flagged."""

UNITS = ("px", "um2")


@dataclass(frozen=True)
class Lesion:
    """One connected region of a mask, or one id of a label image."""

    label: int  # its id in the label image; regions of a bool mask count from 1, by their first pixel, row by row
    area: int  # pixels
    area_um2: float  # NaN when the pixel size is unknown
    box: Box  # of all its pixels, both corners inside
    covered: float  # share of its pixels with score >= threshold
    hit: bool
    peak: float  # highest score inside


def checked_map(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """The score itself, or a ValueError that says what was expected: float32 (H, W), finite, in [0, 1]."""
    score = np.asarray(score)
    if score.dtype != np.float32 or score.ndim != 2 or score.size == 0:
        raise ValueError(
            f"score must be float32 (H, W) with pixels, got {score.dtype} {score.shape}; convert it where it is made"
        )
    low, high = float(score.min()), float(score.max())  # either is NaN if any score is
    if not (low >= 0 and high <= 1):
        raise ValueError(f"score must be finite and in [0, 1], got {low} ... {high}; a broken map is an error, not a blank one")
    return score


def _regions(
    mask: NDArray[np.bool_] | NDArray[np.integer], shape: tuple[int, ...], connectivity: int
) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """(ids, regions 0 ... n of (H, W)); region i + 1 has id i."""
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.shape != shape:
        raise ValueError(f"mask is {mask.shape} but score is {shape}; resize the score to the mask, not the mask")
    structure = neighborhood(connectivity)
    if mask.dtype == np.bool_:
        regions, count = ndimage.label(mask, structure=structure)
        return np.arange(1, count + 1), regions
    if not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"mask must be bool, or whole ids with 0 as background; got {mask.dtype}")
    if mask.min() < 0:
        raise ValueError(f"ids of a label image must not be negative, got {int(mask.min())}; 0 is background")
    inside = mask > 0
    ids, which = np.unique(mask[inside], return_inverse=True)
    regions = np.zeros(shape, np.int32)
    regions[inside] = which + 1
    return ids.astype(np.int64), regions


def lesions(
    score: NDArray[np.float32],
    mask: NDArray[np.bool_] | NDArray[np.integer],
    threshold: float,
    *,
    rule: str = "any-overlap",
    min_share: float = 0.5,
    mpp: float | None = None,
    connectivity: int = 8,
) -> list[Lesion]:
    """What a map finds of each lesion, in the order of their labels.

    Args:
        score: float32 (H, W) in [0, 1].
        mask: bool (H, W), whose connected regions are the lesions; or int (H, W), where each id above 0 is one lesion, whether
            it touches another or lies in pieces.
        threshold: a pixel is flagged iff score >= threshold.
        rule: "any-overlap": hit iff a pixel is flagged; "min-share": iff at least `min_share` of its pixels are.
        min_share: in (0, 1], for "min-share" alone.
        mpp: micrometers per pixel, for areas in square micrometers.
        connectivity: 8 or 4 neighbors, for a bool mask.

    Raises:
        ValueError: scores that are NaN or outside [0, 1], shapes or types that do not fit, an unknown rule or connectivity.
    """
    from scipy import ndimage

    if rule not in RULES:
        raise ValueError(closest("hit rule", rule, RULES))
    if not 0 < min_share <= 1:
        raise ValueError(f"min_share must be in (0, 1], got {min_share}")
    if mpp is not None and not 0 < mpp < math.inf:
        raise ValueError(f"mpp must be a positive number of micrometers per pixel, got {mpp}")
    score = checked_map(score)
    ids, regions = _regions(mask, score.shape, connectivity)
    inside = np.flatnonzero(regions)
    which, scores = regions.ravel()[inside] - 1, score.ravel()[inside]
    area = np.bincount(which, minlength=len(ids))
    flagged = np.bincount(which[scores >= smallest_flagged(threshold)], minlength=len(ids))
    peak = np.zeros(len(ids), np.float32)
    np.maximum.at(peak, which, scores)
    covered = flagged / area
    hit = flagged > 0 if rule == "any-overlap" else covered >= min_share
    return [
        Lesion(
            label=int(ids[i]),
            area=int(area[i]),
            area_um2=float("nan") if mpp is None else float(area[i] * mpp**2),
            box=Box(columns.start, rows.start, columns.stop - 1, rows.stop - 1),
            covered=float(covered[i]),
            hit=bool(hit[i]),
            peak=float(peak[i]),
        )
        for i, (rows, columns) in enumerate(ndimage.find_objects(regions))
    ]


@source("")
def lesion_recall(found: Sequence[Lesion]) -> float:
    """Share of lesions that are hit, each counting once whatever its size; NaN without lesions."""
    return float(np.mean([lesion.hit for lesion in found])) if found else float("nan")


@dataclass(frozen=True)
class SizeBin:
    """Lesions with low <= area < high."""

    low: float
    high: float
    lesions: int
    hits: int

    @property
    def recall(self) -> float:
        """Share of them that are hit; NaN without any."""
        return self.hits / self.lesions if self.lesions else float("nan")


def recall_by_size(found: Sequence[Lesion], edges: Sequence[float], *, unit: str = "px") -> list[SizeBin]:
    """Recall of small and large lesions: n cuts make n + 1 bins, the first from 0, the last without end, so none is lost.

    Args:
        found: of one image or of many.
        edges: areas to cut at, ascending and positive.
        unit: of `edges`: "px", or "um2" (the lesions must then have been made with `mpp`).

    Raises:
        ValueError: edges that do not ascend from above 0, an unknown unit, or areas unknown in it.
    """
    if unit not in UNITS:
        raise ValueError(closest("unit of area", unit, UNITS))
    ends = [0.0, *(float(e) for e in edges), math.inf]
    if not all(a < b for a, b in pairwise(ends)):
        raise ValueError(f"edges must ascend and be above 0, got {list(edges)}")
    areas = [lesion.area if unit == "px" else lesion.area_um2 for lesion in found]
    if any(math.isnan(area) for area in areas):
        raise ValueError("areas in um2 are unknown: pass mpp to lesions(), or give the edges in pixels")
    bins = []
    for low, high in pairwise(ends):
        hits = [lesion.hit for lesion, area in zip(found, areas, strict=True) if low <= area < high]
        bins.append(SizeBin(low, high, len(hits), sum(hits)))
    return bins


@dataclass(frozen=True)
class PredictedRegions:
    """Connected regions of flagged pixels."""

    count: int
    touching: int  # those with a pixel on a lesion

    @property
    def precision(self) -> float:
        """Share of predicted regions that touch a lesion; NaN without any."""
        return self.touching / self.count if self.count else float("nan")

    def __add__(self, other: PredictedRegions) -> PredictedRegions:
        """Those of both images."""
        return PredictedRegions(self.count + other.count, self.touching + other.touching)


def predicted_regions(
    score: NDArray[np.float32],
    mask: NDArray[np.bool_] | NDArray[np.integer],
    threshold: float,
    *,
    min_area: int = 1,
    connectivity: int = 8,
) -> PredictedRegions:
    """How many connected regions a map flags, and how many of them touch a lesion.

    Args:
        score: float32 (H, W) in [0, 1].
        mask: bool (H, W), or ids with 0 as background.
        threshold: a pixel is flagged iff score >= threshold.
        min_area: smaller predicted regions, in pixels, do not count at all.
        connectivity: 8 or 4 neighbors.

    Raises:
        ValueError: scores that are NaN or outside [0, 1], shapes or types that do not fit, an unknown connectivity.
    """
    from scipy import ndimage

    score, mask = checked_map(score), np.asarray(mask)
    if mask.shape != score.shape:
        raise ValueError(f"mask is {mask.shape} but score is {score.shape}; resize the score to the mask, not the mask")
    if mask.dtype != np.bool_ and not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"mask must be bool, or whole ids with 0 as background; got {mask.dtype}")
    regions, count = ndimage.label(score >= smallest_flagged(threshold), structure=neighborhood(connectivity))
    large = np.bincount(regions.ravel(), minlength=count + 1)[1:] >= min_area
    touching = np.bincount(regions[mask != 0], minlength=count + 1)[1:] > 0
    return PredictedRegions(int(large.sum()), int((large & touching).sum()))
