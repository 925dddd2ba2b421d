"""Regions of one method: lesions found and missed, by size, FROC of slides, and box accuracy. A second pass over the maps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.job import Job
from wsol.cli.scoring import Scale, score

if TYPE_CHECKING:
    from wsol.data import StoredMap
    from wsol.evaluation import BoxResult, Froc, Lesion, Threshold

LONGEST = 4096
"""Longest side at which the lesions of slides are looked for."""

FROC_MPP = 8.0
"""um per px at which CAMELYON16's evaluation works (its level 5)."""

FAINTEST = 0.01
"""Least confidence of a detection: a score of nothing is none."""


def regions(job: Job, method: str, scale: Scale, threshold: Threshold) -> tuple[dict[str, Any] | None, dict[str, dict[str, int]]]:
    """(regions of all scored samples as plain values, lesions and lesions hit per sample); None where no mask has any region."""
    from wsol.evaluation import Froc, PredictedRegions, lesions, predicted_regions

    found: dict[str, list[Lesion]] = {}
    predicted = PredictedRegions(0, 0)
    froc = Froc() if job.listing.kind == "slides" else None
    mpps = []
    for sample, stored, mpp in _scored(job, method):
        shape = _shrunk(stored.size, LONGEST if mpp else max(stored.size))
        mask, values = _mask(job, sample, stored, shape), score(stored, scale, shape, sample)
        here = mpp * stored.size[0] / shape[0] if mpp else None
        mpps.append(here)
        at = threshold.at(sample)
        found[sample] = lesions(values, mask, at, mpp=here)
        predicted = predicted + predicted_regions(values, mask, at)
        if froc is not None and mpp:
            _detect(job, sample, stored, scale, mpp, froc)
    every = [lesion for some in found.values() for lesion in some]
    if not every:
        return None, {}
    hits = {s: {"lesions": len(some), "lesions_hit": sum(lesion.hit for lesion in some)} for s, some in found.items()}
    unit = "um2" if all(mpps) else "px"
    facts = {
        "lesions": len(every),
        "hit": float(np.mean([lesion.hit for lesion in every])),
        "rule": "a lesion is hit if any of its pixels is flagged",
        "unit": unit,
        "by_size": _by_size(every, unit),
        "predicted": predicted.count,
        "predicted_right": None if not predicted.count else predicted.precision,
        "froc": None if froc is None else _froc_facts(froc, sum(not some for some in found.values())),
    }
    return facts, hits


def _scored(job: Job, method: str) -> Iterator[tuple[str, StoredMap, float | None]]:
    """(sample, map, um per px of level 0 where known) of the samples that have a mask."""
    from wsol.slides import open_slide

    columns = (job.rows[name].tolist() for name in ("sample", "path", "mpp"))
    where = {sample: (path, float(mpp)) for sample, path, mpp in zip(*columns, strict=True)}
    for sample, stored in job.scored.read(method):
        if not job.truth.has(sample):
            continue
        path, known = where[sample]
        mpp = None if math.isnan(known) else known
        if mpp is None and job.listing.kind == "slides":
            with open_slide(path) as slide:
                mpp = slide.mpp
        yield sample, stored, mpp


def _shrunk(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """`size` with its longest side at most `longest`."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _mask(job: Job, sample: str, stored: StoredMap, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask of a sample at `shape`: a pixel is positive where at least half of it is."""
    from wsol.slides import Box

    if job.truth.kind(sample) == "empty":
        return np.zeros(shape, bool)
    return job.truth.part(sample, stored.size, Box(0, 0, *stored.size[::-1]), shape)


def _by_size(found: list[Lesion], unit: str) -> list[dict[str, Any]]:
    """Lesions hit in each quarter of the sizes, smallest first."""
    from wsol.evaluation import recall_by_size

    areas = np.array([lesion.area if unit == "px" else lesion.area_um2 for lesion in found])
    cuts = [c for c in dict.fromkeys(np.percentile(areas, [25, 50, 75]).tolist()) if c > areas.min()]
    rows = []
    for part in recall_by_size(found, cuts or [float(areas.max()) + 1], unit=unit):
        covered = [lesion.covered for lesion, area in zip(found, areas, strict=True) if part.low <= area < part.high]
        if covered:
            high = None if math.isinf(part.high) else part.high
            row = {"low": part.low, "high": high, "lesions": part.lesions, "hit": part.recall}
            rows.append({**row, "covered": float(np.mean(covered))})
    return rows


def _detect(job: Job, sample: str, stored: StoredMap, scale: Scale, mpp: float, froc: Froc) -> None:
    """Add one slide to the FROC, at the resolution of the challenge."""
    from wsol.evaluation import detections, evaluation_mask, isolated_tumor_cells

    shape = _shrunk(stored.size, max(32, round(max(stored.size) * mpp / FROC_MPP)))
    here = mpp * stored.size[0] / shape[0]
    lesions = evaluation_mask(_mask(job, sample, stored, shape), mpp=here)
    points = detections(score(stored, scale, shape, sample), min_distance_px=max(1.0, 75 / here), threshold=FAINTEST)
    froc.add(points, lesions, isolated=isolated_tumor_cells(lesions, mpp=here))


def _froc_facts(froc: Froc, negatives: int) -> dict[str, Any] | None:
    result = froc.result()
    if not result.lesions or not result.slides:
        return None
    shown = result.false_positives <= 2 * max(result.rates)
    return {
        "score": result.score,
        "points": [{"fp": fp, "sensitivity": s} for fp, s in zip(result.rates, result.sensitivities, strict=True)],
        "curve": {"fp": result.false_positives[shown][::-1].tolist(), "sensitivity": result.sensitivity[shown][::-1].tolist()},
        "lesions": result.lesions,
        "slides": result.slides,
        "negatives": negatives,
    }


def boxes(job: Job, method: str, scale: Scale) -> dict[str, Any] | None:
    """Box accuracy over all thresholds, V1 and V2, of the regions of the masks; None where no mask has any region.

    The thresholds are the best ones on the scored masks, as published: these numbers are oracles.
    """
    from wsol.evaluation import BoxAccuracy, boxes_of

    largest, every = BoxAccuracy(multi_contour=False), BoxAccuracy()
    images: dict[str, tuple[npt.NDArray[np.bool_], int]] = {}
    for sample, stored, _ in _scored(job, method):
        shape = _shrunk(stored.size, job.settings.boxes_px)
        truth = boxes_of(_mask(job, sample, stored, shape))
        if truth:
            values = score(stored, scale, shape, sample)
            images[sample] = (largest.add(values, truth)[largest.iou.index(0.5)], stored.target)
            every.add(values, truth)
    if not images:
        return None
    v1, v2 = largest.result(), every.result()
    return {
        "max_box_acc": v1.accuracies[v1.iou.index(0.5)],
        "max_box_acc_v2": v2.accuracy,
        "at": {f"{iou:g}": value for iou, value in zip(v2.iou, v2.accuracies, strict=True)},
        "threshold": v1.best_threshold[v1.iou.index(0.5)],
        **_errors(job, images, v1),
        "images": v1.images,
    }


def _errors(job: Job, images: dict[str, tuple[npt.NDArray[np.bool_], int]], v1: BoxResult) -> dict[str, float | None]:
    """Localization error at the published threshold; with the true class given only where every map is that of the true class."""
    from wsol.evaluation import localization_error

    at = int(np.argmin(np.abs(v1.threshold - v1.best_threshold[v1.iou.index(0.5)])))
    kept = job.rows[job.rows["sample"].isin(images)]
    labels = kept["label"].to_numpy()
    own = all(images[s][1] == label for s, label in zip(kept["sample"], labels, strict=True))
    hits = np.array([bool(images[s][0][at]) for s in kept["sample"]])
    known = {"gt_known_error": float(np.mean(~hits)) if own else None, "top1_error": None}
    logits = {s: r.logits(s) for s, r in job.scored.readers() if s in images and r.has_logits(s)}
    if len(logits) == len(kept) and not job.listing.multilabel:  # which has no one true class
        # A map of another class than the true one belongs to a wrong prediction (or to a declared class that is not there).
        found = localization_error(hits, labels, np.array([logits[s] for s in kept["sample"]]))
        known["top1_error"] = found.top1
    return known
