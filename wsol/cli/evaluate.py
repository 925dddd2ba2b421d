"""`wsol evaluate`: maps and masks become scores with intervals and badges. Here, and in `fit-floors`, masks are opened."""

from __future__ import annotations

import csv
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol.cli.classify import classification, clusters
from wsol.cli.curves import Scored, write_curves
from wsol.cli.files import read_json, write_json
from wsol.cli.job import Job, count
from wsol.cli.regions import boxes, regions
from wsol.cli.results import checkpoint_source
from wsol.cli.schema import Evaluate
from wsol.cli.scoring import BADGE, Scale
from wsol.cli.tuning import Tuning, candidates, chosen_threshold

if TYPE_CHECKING:
    from wsol.evaluation import PixelCounts, Threshold


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

    job = Job(settings, read_manifest(manifest), read_masks(masks), maps, validation, key, read_json(record))
    scored, columns = {}, zip(*(job.rows[c] for c in ("sample", "slide", "patient", "label")), strict=True)
    with write_curves(curves, {sample: Scored(*who) for sample, *who in columns}) as written:
        for method in job.methods:
            scored[method], counts = _method(job, method)
            written.add(method, counts)
    opened = {sample for sample in job.truth.opened if job.truth.kind(sample) == "file"}
    result = {
        "key": key,
        "classes": job.listing.classes,
        "mask_means": job.listing.mask_means,
        "note": job.listing.note,
        "protocol": settings.protocol,
        "supervision": job.run["supervision"],
        "classification": _classified(job),
        "methods": scored,
        "failures": [*job.scored.failures(), *job.tuned.failures()],
        "drawn_by": _drawn_by(job.made),
        "masks_opened": {"validation": len(opened & set(job.tuning["sample"])), "scored": len(opened & set(job.rows["sample"]))},
        "provenance": provenance(settings.model_dump(), inputs={"manifest": manifest, "masks": masks}, seed=key["seed"]),
    }
    write_json(scores, result)
    if settings.ledger and key["split"] == "test":
        _ledger(Path(settings.ledger), key, result)


def _method(job: Job, method: str) -> tuple[dict[str, Any], dict[str, PixelCounts]]:
    """Everything about one method: scale and threshold from validation, counts per sample, groups, negatives, badges."""
    from wsol.evaluation import PixelCounts, Threshold, as_published, summarize

    settings, listing = job.settings, job.listing
    scale = job.scale(method, settings.scale)
    tuning, counted = job.tune(method, scale), count(job, method, scale)
    threshold = chosen_threshold(settings, tuning, counted.histograms)
    kept = job.rows[job.rows["sample"].isin(counted.samples)]
    summary = summarize(
        [counted.samples[s] for s in kept["sample"]],
        samples=list(kept["sample"]),
        labels=[listing.classes[i] for i in kept["label"]],
        patients=clusters(kept),
        slides=list(kept["slide"]),
        threshold=threshold,
        candidates=candidates(settings, tuning, counted.histograms),
        exact={group: curve.exact_ap() for group, curve in counted.exact.items()},
        exact_auc={group: curve.exact_auc() for group, curve in counted.exact.items()},
        replicates=settings.bootstrap,
        generator=np.random.default_rng(job.key["seed"]),
    )
    if summary["transfer"] is not None:
        summary["transfer"]["validation"] = _few_masks(job, tuning)
    used = Threshold.from_dict(summary["threshold"])
    found, hits = regions(job, method, scale, used) if settings.regions else (None, {})
    for sample, region in hits.items():
        summary["samples"][sample] |= region
    facts = {
        "as_published": as_published(settings.as_published, PixelCounts.total(counted.samples.values()), used),
        "badges": _badges(job, method, scale, threshold, counted.drawn),
        "seconds": float(np.median(counted.seconds)),
        "scale": scale.to_dict(),
        "class": "+".join(listing.positive),
        "scales": _scales(job, method),
        "regions": found,
        "boxes": boxes(job, method, scale) if settings.boxes_px else None,
    }
    return {**facts, **summary}, counted.samples


def _drawn_by(made: dict[str, Any]) -> dict[str, Any]:
    """What drew the maps, so that the same can be drawn elsewhere: methods with options, class, halo, hash of the weights."""
    facts = {name: made.get(name) for name in ("methods", "map_class", "slides", "halo_px", "resize")}
    return {**facts, "sha256": made.get("recipe", {}).get("sha256")}


def _classified(job: Job) -> dict[str, Any] | None:
    """Class decisions of the model; floors make none."""
    if job.floors:
        return None
    return classification(job.rows, job.scored, job.listing, job.settings.bootstrap, job.temperature)


def _few_masks(job: Job, tuning: Tuning) -> dict[str, Any] | None:
    """How far the threshold would move with other validation masks."""
    from wsol.evaluation import few_masks

    if tuning.pooled is None:
        return None
    names = list(tuning.masked)
    found = few_masks(
        [tuning.masked[s] for s in names],
        [job.split.patients[s] or s for s in names],
        masks=tuning.files,
        generator=np.random.default_rng(job.key["seed"]),
        replicates=job.settings.bootstrap,
    )
    return found.to_dict()


def _scales(job: Job, method: str) -> dict[str, Any]:
    """What each scale would do to ranking and to threshold transfer; a scale that does not apply says why."""
    from wsol.evaluation import PixelCounts, transfer

    table: dict[str, Any] = {}
    for kind in job.settings.compare_scales:
        try:
            scale = job.scale(method, kind)
            counted = count(job, method, scale, groups=False)
            threshold = chosen_threshold(job.settings, job.tune(method, scale), counted.histograms)
        except ValueError as error:
            table[kind] = {"refused": str(error)}
            continue
        total, lost = PixelCounts.total(list(counted.samples.values())), transfer(counted.samples, threshold)
        table[kind] = {
            "badge": BADGE[scale.kind],
            "pxap": total.pxap,
            "ap": counted.exact["all"].exact_ap(),
            "threshold": threshold.value,
            "dice": lost.value,
            "oracle_dice": lost.best,
            "gap": lost.gap,
        }
    return table


def _badges(job: Job, method: str, scale: Scale, threshold: Threshold, drawn: str) -> dict[str, str]:
    """The badges of one number, from what was really opened."""
    from wsol.evaluation import Badges
    from wsol.tracking import code_version

    made, run = job.made, job.run
    return Badges(
        supervision=f"masks ({run['masks']})" if method == "pixel-regression" else run["supervision"],
        checkpoint=checkpoint_source(run, job.key["checkpoint"]),
        threshold=threshold.badge,
        map_class={"positive": "declared positive", "truth": "ground truth"}.get(made["map_class"], made["map_class"]),
        scale=BADGE[scale.kind],
        split_unit=job.listing.split_unit,
        drawn=drawn,
        code=code_version(),
        as_published=", ".join(run.get("settings", {}).get("as_published", [])),
    ).to_dict()


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
