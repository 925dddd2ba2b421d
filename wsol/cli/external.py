"""`wsol evaluate --frozen`: a model, its scale and its threshold, as they are, on samples that nothing was chosen on."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol._names import closest, resolve
from wsol.cli.classify import classification, clusters
from wsol.cli.config import Tile, parse
from wsol.cli.curves import Scored, write_curves
from wsol.cli.files import atomic, read_json, write_json
from wsol.cli.frozen import Frozen, freeze
from wsol.cli.scoring import BADGE, Maps, score

if TYPE_CHECKING:
    import pandas as pd

    from wsol.data import Manifest, Masks
    from wsol.evaluation import PixelCounts, PixelCurve

LONGEST = 4096
"""Longest side in px at which the flagged area of a sample without a mask is measured."""

MAP_CLASSES = {"declared positive": "positive", "predicted": "predicted", "ground truth": "truth"}


def evaluate_external(
    *,
    frozen: Path,
    model: Path,
    sheet: Path,
    out: Path,
    method: str | None = None,
    source: str = "images",
    threads: int = 1,
    mask_values: Mapping[str, Sequence[int]] | None = None,
    device: str = "auto",
    bootstrap: int = 1000,
    name: str = "",
) -> dict[str, Any]:
    """Draw and score a frozen method on an external sheet; scale and threshold are those of `frozen`, and nothing is refitted.

    Writes below `out`: `manifest.parquet`, `masks.parquet`, `maps.h5` (slides: `tiles/`, `maps/`), `scores.json` and
    `curves.parquet`. Samples without a mask are classified, and their flagged area is measured.

    Args:
        frozen: scores.json of the evaluation whose scale and threshold are kept.
        model: the checkpoint that it scored.
        sheet: sample sheet (CSV) as `wsol prepare` reads it; all its rows are scored, whatever its column split says.
        out: folder.
        method: id of the map; None for the only one of `frozen`.
        source: "images" or "slides".
        threads: CPU threads.
        mask_values: ids of the new masks that are foreground, per class; None for all above 0.
        device: "auto", "cpu" or "cuda".
        bootstrap: replicates of intervals.
        name: of the dataset in tables; the sheet's by default.

    Returns:
        The content of `scores.json`; `frozen_from` says which file, by path and hash.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: see `freeze`; mistakes in the sheet.
    """
    from wsol.data import read_manifest, read_masks

    if source not in ("images", "slides"):
        raise ValueError(closest("source", source, ("images", "slides")))
    fixed = freeze(frozen, method, model)  # before the new masks are even listed
    _prepare(fixed, source, sheet, out, mask_values, name or sheet.stem)
    settings = {
        "methods": [fixed.drawn],
        "map_class": MAP_CLASSES[fixed.facts["badges"]["map_class"]],
        "halo_px": fixed.scores["drawn_by"]["halo_px"],
        "slides": fixed.scores["drawn_by"].get("slides") or "tiles",  # scores from before slides were drawn whole do not say
        "resize": fixed.scores["drawn_by"].get("resize"),
        "device": device,
    }
    listing = read_manifest(out / "manifest.parquet")
    rows = listing.rows(0, "test")
    drawn = Maps(_draw(settings, model, listing, rows, out, threads), rows["sample"])
    return _score(fixed, listing, read_masks(out / "masks.parquet"), rows, drawn, out, model, bootstrap)


def _prepare(
    fixed: Frozen, source: str, sheet: Path, out: Path, mask_values: Mapping[str, Sequence[int]] | None, name: str
) -> None:
    """Manifest and masks of the new sheet, every row in the role test."""
    from wsol.data import SOURCES, write_manifest

    if not sheet.is_file():
        raise FileNotFoundError(f"no sample sheet at {sheet}; a CSV with the columns sample, path, label, patient is expected")
    classes = list(fixed.scores["classes"])
    positive = [c for c in classes if c in (fixed.facts["class"], *fixed.facts["class"].split("+"))]
    copy = out / "sheet.csv"
    _copy_sheet(sheet, copy)
    try:
        dataset = resolve("source", source, SOURCES, "wsol.data").dataset(
            sheet=copy, classes=classes, positive=positive, mask_means=fixed.scores["mask_means"], mask_values=mask_values
        )
    except ValueError as error:
        raise ValueError(str(error).replace(str(copy), str(sheet))) from error
    dataset.name = name
    write_manifest(dataset, out / "manifest.parquet", out / "masks.parquet")


def _copy_sheet(sheet: Path, copy: Path) -> None:
    """The sheet with every row in the split test and paths that hold from anywhere; row numbers stay."""
    with open(sheet, newline="", encoding="utf-8-sig") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    names = [cell.strip() for cell in header]
    keep = [i for i, name in enumerate(names) if name != "split"]
    with atomic(copy) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(names[i] for i in keep), "split"])
        for cells in lines:
            if len(cells) != len(names):  # the reader of sheets says what is wrong with it
                writer.writerow(cells)
                continue
            placed = [
                str((sheet.parent / cells[i].strip()).absolute())
                if names[i] in ("path", "mask") and cells[i].strip()
                else cells[i]
                for i in keep
            ]
            writer.writerow([*placed, "test" if any(placed) else ""])


def _draw(settings: dict[str, Any], model: Path, listing: Manifest, rows: pd.DataFrame, out: Path, threads: int) -> Path:
    """Draw the maps; the file, or the folder with one file per slide."""
    from wsol.cli.localize import localize
    from wsol.cli.tile import tile

    where: dict[str, Any] = {"model": model, "manifest": listing.path, "split": "test", "fold": 0, "threads": threads}
    if listing.kind == "images":
        localize(settings, out=out / "maps.h5", slide=None, tiles=None, **where)
        return out / "maps.h5"
    trained = read_json(model.with_suffix(".json"))["meta"]["settings"].get("tile", {})
    for slide in rows["sample"]:
        tiles = out / "tiles" / f"{slide}.parquet"
        tile(parse(Tile, trained, "settings.tile"), manifest=listing.path, slide=slide, out=tiles)
        localize(settings, out=out / "maps" / f"{slide}.h5", slide=slide, tiles=tiles, **where)
    return out / "maps"


@dataclass(frozen=True)
class Counted:
    """Counts of the maps of an external sheet at the frozen scale.

    Attributes:
        samples: sample -> counts, of those that have a mask.
        exact: group ("all" and each class) -> curve.
        flagged: sample -> share of the image at or above the frozen threshold, of all samples.
        seconds: per map.
        drawn: badge.
    """

    samples: dict[str, PixelCounts]
    exact: dict[str, PixelCurve]
    flagged: dict[str, float]
    seconds: list[float]
    drawn: str


def _count(fixed: Frozen, truth: Masks, drawn: Maps, labels: Mapping[str, str]) -> Counted:
    """Lay every map on its mask and count; what has no mask is only looked at for its flagged area."""
    from wsol.evaluation import PixelCurve

    samples: dict[str, PixelCounts] = {}
    exact: dict[str, PixelCurve] = {}
    flagged: dict[str, float] = {}
    seconds, how = [], "whole image"
    for sample, stored in drawn.read(fixed.method):
        shrink = 1.0 if truth.has(sample) else min(1.0, LONGEST / max(stored.size))
        shape = (max(1, round(stored.size[0] * shrink)), max(1, round(stored.size[1] * shrink)))
        values = score(stored, fixed.scale, shape, sample)
        flagged[sample] = float(fixed.threshold.apply(values).mean())
        if truth.has(sample):
            mask = truth.open(sample, shape=stored.size)
            for group in ("all", labels[sample]):
                samples[sample] = exact.setdefault(group, PixelCurve(exact=True)).add(values, mask)
        seconds.append(stored.seconds)
        how = {"tile": "per tile"}.get(stored.drawn, how)
    return Counted(samples, exact, flagged, seconds, how)


def _score(
    fixed: Frozen, listing: Manifest, truth: Masks, rows: pd.DataFrame, drawn: Maps, out: Path, model: Path, bootstrap: int
) -> dict[str, Any]:
    """Score the maps with what is frozen, and write scores.json and curves.parquet."""
    from wsol.tracking import file_hash, provenance

    labels = dict(zip(rows["sample"], [listing.classes[i] for i in rows["label"]], strict=True))
    counted = _count(fixed, truth, drawn, labels)
    temperature = (fixed.scores.get("classification") or {}).get("temperature")
    settings = {
        "frozen": fixed.facts["scale"] | {"threshold": fixed.threshold.to_dict()},
        "method": fixed.drawn,
        "bootstrap": bootstrap,
    }
    origin = f"Scale and threshold are those of {fixed.key['dataset']}, frozen: nothing was chosen on these samples."
    result = {
        "key": {**fixed.key, "dataset": listing.name, "split": "test"},
        "classes": listing.classes,
        "mask_means": listing.mask_means,
        "note": " ".join(text for text in (listing.note, origin) if text),
        "protocol": fixed.scores.get("protocol", "ours"),
        "supervision": fixed.scores["supervision"],
        "classification": classification(rows, drawn, listing, bootstrap, temperature),
        "methods": {fixed.method: _facts(fixed, counted, rows, labels, bootstrap)},
        "drawn_by": {**fixed.scores["drawn_by"], "methods": [fixed.drawn]},
        "masks_opened": {"validation": 0, "scored": len(truth.opened)},
        "frozen_from": {
            "path": str(fixed.path),
            "hash": file_hash(fixed.path),
            "dataset": fixed.key["dataset"],
            "split": fixed.key["split"],
            "code": fixed.facts["badges"]["code"],
            "model": str(model),
        },
        "provenance": provenance(
            settings,
            inputs={"manifest": listing.path, "masks": truth.path, "frozen": fixed.path, "model": model},
            seed=fixed.key["seed"],
        ),
    }
    kept = rows[rows["sample"].isin(counted.samples)]
    names = zip(kept["sample"], kept["slide"], kept["patient"], strict=True)
    who = {sample: Scored(slide, patient, listing.classes.index(labels[sample])) for sample, slide, patient in names}
    with write_curves(out / "curves.parquet", who) as written:
        written.add(fixed.method, counted.samples)
    write_json(out / "scores.json", result)
    return result


def _facts(fixed: Frozen, counted: Counted, rows: pd.DataFrame, labels: Mapping[str, str], bootstrap: int) -> dict[str, Any]:
    """What `scores.json` says of the method: as `wsol evaluate`, and the flagged area of all samples, masked or not."""
    from wsol.evaluation import Badges, summarize
    from wsol.tracking import code_version

    told = {**fixed.facts["badges"], "threshold": fixed.threshold.badge, "scale": BADGE[fixed.scale.kind]}
    badges = Badges.from_dict({**told, "split_unit": "unknown", "drawn": counted.drawn, "code": code_version()})
    facts = {
        "badges": badges.to_dict(),
        "seconds": float(np.median(counted.seconds)),
        "scale": fixed.scale.to_dict(),
        "class": fixed.facts["class"],
        "flagged": _flagged(counted, labels),
    }
    kept = rows[rows["sample"].isin(counted.samples)]
    if kept.empty:
        return {**facts, **_without_masks(fixed)}
    summary = summarize(
        [counted.samples[s] for s in kept["sample"]],
        samples=list(kept["sample"]),
        labels=[labels[s] for s in kept["sample"]],
        patients=clusters(kept),
        slides=list(kept["slide"]),
        threshold=fixed.threshold,
        candidates={fixed.threshold.source: fixed.threshold},
        exact={group: curve.exact_ap() for group, curve in counted.exact.items()},
        exact_auc={group: curve.exact_auc() for group, curve in counted.exact.items()},
        replicates=bootstrap,
        generator=np.random.default_rng(fixed.key["seed"]),
    )
    return {**facts, **summary}


def _flagged(counted: Counted, labels: Mapping[str, str]) -> dict[str, Any]:
    """Mean flagged area per class and of all samples, each sample counting once, and each sample's own."""
    groups = {"all": set(labels), **{name: {s for s in labels if labels[s] == name} for name in sorted(set(labels.values()))}}
    areas = {name: [area for s, area in counted.flagged.items() if s in group] for name, group in groups.items()}
    means = {name: {"mean": float(np.mean(each)), "samples": len(each)} for name, each in areas.items()}
    return {"groups": means, "samples": counted.flagged}


def _without_masks(fixed: Frozen) -> dict[str, Any]:
    """A method's numbers where no sample has a mask: none that needs one."""
    return {
        "threshold": fixed.threshold.to_dict(),
        "oracle": None,
        "groups": {"all": {"pxap": None, "dice": None, "prevalence": None, "samples": 0, "patients": 0}},
        "macro": {},
        "thresholds": {},
        "transfer": None,
        "activation": None,
        "negatives": None,
        "curve": {},
        "samples": {},
    }
