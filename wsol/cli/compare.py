"""`wsol compare`: maps of any tool, ours beside them, scored by one rule on one sheet, with paired differences by patient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol._names import closest
from wsol.cli.config import Evaluate, parse
from wsol.cli.contest import Contest, Counted, count, scale_of, tune
from wsol.cli.curves import Scored, write_curves
from wsol.cli.files import write_json
from wsol.cli.foreign import Entry, read_entries, read_truth, shared_patients
from wsol.cli.mapsources import Source, floors, source

if TYPE_CHECKING:
    from wsol.evaluation import PixelCounts

SPLITS = ("test", "valcl")
SCALES = ("fitted", "none", "probability", "per-image")


def compare(
    *,
    sheet: Path,
    maps: Mapping[str, str | Path],
    out: Path,
    split: str = "test",
    protocol: str = "ours",
    scale: str | None = None,
    threshold: str = "auto",
    fixed: float = 0.5,
    foreground: Sequence[int] = (),
    negative: Sequence[str] = (),
    with_floors: bool = True,
    kind: str = "images",
    floors_mpp: float = 2.0,
    bootstrap: int = 1000,
    seed: int = 0,
    name: str = "",
    reference: str | None = None,
) -> dict[str, Any]:
    """Score maps that anything drew, by the same rule as ours, and compare them in pairs.

    Writes below `out`: `scores.json` and `curves.parquet` as `wsol evaluate` does (floors in `floors/`), and
    `differences.json` and `differences.csv`: every method against the best one, by patient, corrected for their number.

    Args:
        sheet: CSV, see `wsol.cli.foreign.read_entries`. Rows with split val give range and threshold.
        maps: name -> where its maps are, see `wsol.cli.mapsources.source`.
        out: folder.
        split: "test", or "valcl" to score the validation rows themselves.
        protocol: "ours", or "survey", which alone allows the scale "per-image".
        scale: "fitted" (range of the validation maps), "none" (maps in [0, 1]), "probability" (sigmoid), "per-image". None:
            fitted where there are validation rows, else none.
        threshold: as `evaluate.threshold`. "auto": validation masks, else Otsu on validation maps, else, without validation
            rows, Otsu on the scored maps.
        fixed: threshold of "fixed", on the scale of the scores.
        foreground: ids of a mask that are foreground; none for all above 0.
        negative: labels of samples that hold nothing to find: a blank mask of theirs is empty, not unknown.
        with_floors: whether maps that need no tool are scored too; stain floors need the column path.
        kind: of the column path, "images" or "slides".
        floors_mpp: um per px at which slides are read for stain floors.
        bootstrap: replicates of intervals.
        seed: of the bootstrap and the random floor.
        name: of the dataset in tables; the sheet's by default.
        reference: name that the others are compared with; None for the one with the highest PxAP.

    Returns:
        The content of `scores.json`.

    Raises:
        FileNotFoundError: a sheet, mask or map is missing.
        ValueError: mistakes in the sheet, in a map or in the settings; every method needs a map of every sample with a mask.
    """
    _check_names(maps, split, scale, reference)
    entries = read_entries(sheet, [n for n, where in maps.items() if not str(where)])
    tuning = [e for e in entries if e.split == "valcl"]
    settings = parse(
        Evaluate,
        {"protocol": protocol, "scale": scale or ("fitted" if tuning else "none"), "threshold": threshold, "fixed": fixed,
         "bootstrap": bootstrap, "compare_scales": []},
        "compare",
    )  # fmt: skip
    truth = read_truth(sheet, entries, foreground, negative)
    scored = [e for e in entries if e.split == split and truth.has(e.sample)]
    if not scored:
        raise ValueError(f"{sheet}: no row of split {split!r} has a mask; fill in the column mask")
    contest = Contest(settings, scored, tuning, truth, negative, kind, seed)
    sources = [source(n, where, sheet, [*scored, *tuning]) for n, where in maps.items()]
    key = {"dataset": name or sheet.stem, "fold": 0, "seed": seed, "split": split}
    facts = {"settings": settings.model_dump(), "maps": {n: str(where) for n, where in maps.items()}, "sheet": sheet}
    note = _note(contest, entries)
    result = _table(contest, sources, {**key, "model": "compared", "checkpoint": "unknown", "set": "compare"}, out, facts, note)
    files = [out / "scores.json"]
    if with_floors:
        below = floors([*scored, *tuning], kind, floors_mpp, seed)
        _table(contest, below, {**key, "model": "floors", "checkpoint": "none", "set": "floors"}, out / "floors", facts, note)
        files.append(out / "floors" / "scores.json")
    _differences(files, out, bootstrap, reference)
    return result


def _check_names(maps: Mapping[str, str | Path], split: str, scale: str | None, reference: str | None) -> None:
    """Raise ValueError for nothing to compare, and for names that are not there."""
    if not maps:
        raise ValueError("no maps to compare: name at least one, as NAME=FOLDER")
    if split not in SPLITS:
        raise ValueError(closest("split", split, SPLITS))
    if scale is not None and scale not in SCALES:
        raise ValueError(closest("scale of a comparison", scale, SCALES))
    if reference is not None and reference not in maps:
        raise ValueError(closest("reference", reference, maps))


def _note(contest: Contest, entries: Sequence[Entry]) -> str:
    """What a reader must know of these numbers; warns where a patient stands on both sides."""
    said = []
    if not contest.tuning:
        said.append("No validation rows: label-free thresholds were taken from the scored maps themselves.")
    if shared := shared_patients(entries):
        names = ", ".join(shared[:5]) + (" ..." if len(shared) > 5 else "")
        said.append(f"{len(shared)} patients stand in validation and in test ({names}).")
        warnings.warn(f"{said[-1]} What is chosen on validation has seen them; split by patient", UserWarning, stacklevel=3)
    return " ".join(said)


def _differences(files: Sequence[Path], out: Path, bootstrap: int, reference: str | None) -> None:
    """Every method against the reference; no table where there is one method only."""
    from wsol.cli.differences import arenas, differences, write_differences

    tables = [table for arena in arenas(files) for table in differences(arena, bootstrap, reference)]
    write_json(out / "differences.json", tables)
    write_differences(out / "differences.csv", tables)


def _table(
    contest: Contest, sources: Sequence[Source], key: dict[str, Any], out: Path, facts: dict[str, Any], note: str
) -> dict[str, Any]:
    """Score all `sources`, and write scores.json and curves.parquet."""
    from wsol.tracking import provenance

    floor = key["model"] == "floors"
    methods: dict[str, Any] = {}
    counts: dict[str, dict[str, PixelCounts]] = {}
    labels: dict[str, str] = {}
    for one in sources:
        methods[one.name], counted = _method(contest, one, floor)
        counts[one.name], labels = counted.samples, counted.labels
    opened = contest.truth.opened
    result = {
        "key": key,
        "classes": sorted(set(labels.values())),
        "mask_means": "class",
        "note": note,
        "protocol": contest.settings.protocol,
        "supervision": "none" if floor else "unknown",
        "classification": None,
        "methods": methods,
        "masks_opened": {
            "validation": len(opened & {e.sample for e in contest.tuning}),
            "scored": len(opened & {e.sample for e in contest.scored}),
        },
        "provenance": provenance(
            {"settings": facts["settings"], "maps": facts["maps"]}, inputs={"sheet": facts["sheet"]}, seed=contest.seed
        ),
    }
    who = {e.sample: Scored(e.slide, e.patient, result["classes"].index(labels[e.sample])) for e in contest.scored}
    with write_curves(out / "curves.parquet", who) as written:
        for name, per_sample in counts.items():
            written.add(name, per_sample)
    write_json(out / "scores.json", result)
    return result


def _method(contest: Contest, one: Source, floor: bool) -> tuple[dict[str, Any], Counted]:
    """Everything about the maps of one name, and their counts per sample."""
    from wsol.cli.scoring import BADGE
    from wsol.cli.tuning import candidates, chosen_threshold
    from wsol.evaluation import Badges, summarize
    from wsol.tracking import code_version, config_hash, file_hash

    settings = contest.settings
    scale = scale_of(contest, one, floor)
    counted = count(contest, one, scale)
    tuning = tune(contest, one, scale, counted.histograms)
    threshold = chosen_threshold(settings, tuning, counted.histograms)
    summary = summarize(
        [counted.samples[e.sample] for e in contest.scored],
        samples=[e.sample for e in contest.scored],
        labels=[counted.labels[e.sample] for e in contest.scored],
        patients=[e.cluster for e in contest.scored],
        slides=[e.slide for e in contest.scored],
        threshold=threshold,
        candidates=candidates(settings, tuning, counted.histograms),
        exact={group: curve.exact_ap() for group, curve in counted.exact.items()},
        exact_auc={group: curve.exact_auc() for group, curve in counted.exact.items()},
        replicates=settings.bootstrap,
        generator=np.random.default_rng(contest.seed),
    )
    badges = Badges(
        **one.told,
        threshold=threshold.badge,
        scale=BADGE[scale.kind],
        split_unit="unknown",
        drawn=counted.drawn,
        code=code_version(),
    )
    facts = {
        "badges": badges.to_dict(),
        "seconds": float(np.median(counted.seconds)),
        "scale": scale.to_dict(),
        "class": "foreground",
        "maps": config_hash({sample: file_hash(path) for sample, path in one.files.items()}) if one.files else None,
    }
    return {**facts, **summary}, counted
