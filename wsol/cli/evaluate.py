"""`wsol evaluate`: maps and masks become scores with intervals and badges. Here, and in `fit-floors`, masks are opened."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol.cli.config import Evaluate
from wsol.cli.files import atomic, read_json, write_json
from wsol.cli.scoring import BADGE, Maps, Scale, fit_scale, score

if TYPE_CHECKING:
    import pandas as pd

    from wsol.data import Manifest, Masks, StoredMap
    from wsol.evaluation import PixelCounts, Threshold

BOUNDED = {"all-ones", "random", "pixel-regression"}
"""Floors that already are in [0, 1]."""


def evaluate(
    settings: Evaluate,
    *,
    manifest: Path,
    masks: Path,
    maps: Path,
    validation: Path,
    record: Path,
    key: dict[str, Any],
    scores: Path,
    curves: Path,
) -> None:
    """Score every method of one map set of one checkpoint on one split; write `scores` (JSON) and `curves` (parquet)."""
    from wsol.data import read_manifest, read_masks
    from wsol.tracking import provenance

    listing, truth, run = read_manifest(manifest), read_masks(masks), read_json(record)
    rows = listing.rows(key["fold"], key["split"]).reset_index(drop=True)
    tuning = listing.rows(key["fold"], "valcl").reset_index(drop=True)
    split, tune = Maps(maps, rows["sample"]), Maps(validation, tuning["sample"])
    methods, made = split.first()
    scored: dict[str, Any] = {}
    counts: dict[str, dict[str, PixelCounts]] = {}
    for method in methods:
        scored[method], counts[method] = _method(settings, method, listing, truth, rows, split, tune, key, run, made)
    result = {
        "key": key,
        "classes": listing.classes,
        "mask_means": listing.mask_means,
        "note": listing.note,
        "supervision": run["supervision"],
        "classification": None if key["model"] == "floors" else _classification(rows, split, settings, listing),
        "methods": scored,
        "provenance": provenance(settings.model_dump(), inputs={"manifest": manifest, "masks": masks}, seed=key["seed"]),
    }
    _write_curves(curves, counts, rows)
    write_json(scores, result)
    if settings.ledger and key["split"] == "test":
        _ledger(Path(settings.ledger), key, result)


def _method(
    settings: Evaluate, method: str, listing: Manifest, truth: Masks, rows: pd.DataFrame, split: Maps, tune: Maps,
    key: dict[str, Any], run: dict[str, Any], made: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, PixelCounts]]:  # fmt: skip
    """Everything about one method: scale and threshold from validation, counts per sample, groups, negatives, badges."""
    from wsol.evaluation import PixelCurve, summarize

    floor = key["model"] == "floors"
    rectified = False if floor else _rectified(method, made)
    scale = fit_scale(settings.scale, (m for _, m in tune.read(method)), rectified=rectified, bounded=floor and method in BOUNDED)
    threshold = _threshold(settings, scale, truth, tune.read(method), set(listing.rows(key["fold"], "valpx")["sample"]))
    per_sample: dict[str, PixelCounts] = {}
    exact: dict[str, PixelCurve] = {}
    seconds, drawn = [], "whole image"
    names = dict(zip(rows["sample"], [listing.classes[i] for i in rows["label"]], strict=True))
    for sample, stored in split.read(method):
        seconds.append(stored.seconds)
        drawn = {"tile": "per tile"}.get(stored.drawn, drawn)
        if not truth.has(sample):
            continue
        mask = truth.open(sample, shape=stored.size)
        values = score(stored, scale, mask.shape)
        for group in ("all", names[sample]):  # one exact curve per group: 33 MB each, however many samples
            per_sample[sample] = exact.setdefault(group, PixelCurve(exact=True)).add(values, mask)
    kept = rows[rows["sample"].isin(per_sample)]
    summary = summarize(
        [per_sample[s] for s in kept["sample"]],
        samples=list(kept["sample"]),
        labels=[listing.classes[i] for i in kept["label"]],
        patients=_clusters(kept),
        threshold=threshold,
        exact={group: curve.exact_ap() for group, curve in exact.items()},
        replicates=settings.bootstrap,
        generator=np.random.default_rng(key["seed"]),
    )
    badges = _badges(method, scale, threshold, drawn, listing, key, run, made)
    facts = {
        "badges": badges,
        "seconds": float(np.median(seconds)),
        "scale": scale.to_dict(),
        "class": "+".join(listing.positive),
    }
    return {**facts, **summary}, per_sample


def _rectified(method: str, made: dict[str, Any]) -> bool:
    """Whether the final map of a method is rectified: a fact of its class."""
    from wsol._names import resolve
    from wsol.cams import METHODS

    name = next(m["method"] for m in made["methods"] if m["id"] == method)
    return bool(resolve("CAM method", name, METHODS, "wsol.cams").rectified)


def _clusters(rows: pd.DataFrame) -> list[str]:
    """The patient of each sample; the slide where no patient is known ("" if neither is)."""
    return list(rows["patient"].where(rows["patient"] != "", rows["slide"]))


def _threshold(
    settings: Evaluate, scale: Scale, truth: Masks, maps: Iterable[tuple[str, StoredMap]], allowed: set[str]
) -> Threshold:
    """The threshold, from validation maps and never from the split that is scored.

    Args:
        settings: says which source.
        scale: of the method.
        truth: masks; only those of `allowed` are opened.
        maps: of the validation split.
        allowed: validation samples (role valpx) whose masks may be opened.
    """
    from wsol.evaluation import PixelCounts, Threshold, best_threshold, count_pixels, otsu, score_histogram

    if settings.threshold == "fixed":
        return Threshold(settings.fixed, "fixed")
    masked: list[PixelCounts] = []
    histogram = np.zeros(1001, np.int64)
    for sample, stored in maps:
        if settings.threshold != "otsu" and sample in allowed and truth.has(sample):
            mask = truth.open(sample, shape=stored.size)
            masked.append(count_pixels(score(stored, scale, mask.shape), mask))
        histogram += score_histogram(score(stored, scale, stored.array.shape))
    if any(c.positives.any() for c in masked):
        return best_threshold(PixelCounts.total(masked), source="validation masks", masks=len(masked))
    if settings.threshold == "validation-masks":
        raise ValueError(
            "threshold: validation-masks, but no validation sample has a mask with foreground; use auto, otsu or fixed"
        )
    return otsu(histogram) if histogram.any() else Threshold(settings.fixed, "fixed")


def _badges(
    method: str,
    scale: Scale,
    threshold: Threshold,
    drawn: str,
    listing: Manifest,
    key: dict[str, Any],
    run: dict[str, Any],
    made: dict[str, Any],
) -> dict[str, str]:
    """The badges of one number, from what was really opened."""
    from wsol.evaluation import Badges
    from wsol.tracking import code_version

    checkpoint = {"b-cl": "validation labels (B-CL)"}.get(key["checkpoint"], key["checkpoint"])
    map_class = {"positive": "declared positive", "truth": "ground truth"}.get(made["map_class"], made["map_class"])
    return Badges(
        supervision=f"masks ({run['masks']})" if method == "pixel-regression" else run["supervision"],
        checkpoint=checkpoint,
        threshold=threshold.badge,
        map_class=map_class,
        scale=BADGE[scale.kind],
        split_unit=listing.split_unit,
        drawn=drawn,
        code=code_version(),
    ).to_dict()


def _classification(rows: pd.DataFrame, split: Maps, settings: Evaluate, listing: Manifest) -> dict[str, Any]:
    """Accuracy at image or slide level, with an interval by patient; samples without logits (no tissue) are left out."""
    from wsol.evaluation import summarize_classification

    logits = {sample: reader.logits(sample) for sample, reader in split.readers() if reader.has_logits(sample)}
    kept = rows[rows["sample"].isin(logits)]
    predicted = np.array([int(np.argmax(logits[s])) for s in kept["sample"]])
    return summarize_classification(
        kept["label"].to_numpy(), predicted, _clusters(kept), generator=np.random.default_rng(0), replicates=settings.bootstrap
    )


def _write_curves(path: Path, counts: dict[str, dict[str, PixelCounts]], rows: pd.DataFrame) -> None:
    """Per-sample counts of every method: one row per (method, sample) with its positive and negative pixels per bin."""
    import pandas as pd

    who = rows.set_index("sample")
    table = [
        {
            "method": m, "sample": s, "slide": who.loc[s, "slide"], "patient": who.loc[s, "patient"],
            "label": who.loc[s, "label"], "positives": c.positives, "negatives": c.negatives,
        }
        for m, per_sample in counts.items()
        for s, c in per_sample.items()
    ]  # fmt: skip
    with atomic(path) as temporary:
        pd.DataFrame(table, columns=["method", "sample", "slide", "patient", "label", "positives", "negatives"]).to_parquet(
            temporary
        )


def _ledger(path: Path, key: dict[str, Any], result: dict[str, Any]) -> None:
    """Append one row: a look at a test set that is meant to be looked at rarely."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    row = [
        datetime.now(UTC).strftime("%Y-%m-%d"),
        result["provenance"]["code"],
        *(str(v) for v in key.values()),
        " ".join(result["methods"]),
    ]
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["date", "code", *key, "methods"])
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())
