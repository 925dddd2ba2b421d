"""The files of a study as the plain rows that an audit looks at."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol.cli.audit_files import digests, map_facts, mask_facts, spread
from wsol.cli.files import read_json
from wsol.cli.plan import MAPS, RUN

if TYPE_CHECKING:
    from wsol.data import Manifest, MapReader
    from wsol.evaluation import Claim, MapFacts, MaskFacts, Placed, Study


@dataclass(frozen=True)
class Reading:
    """Which files are read, and how many maps and masks of them; as in `wsol.cli.audit.audit`."""

    scores: Sequence[Path]
    masks: Path | None
    results: Path | None
    ledger: Path | None
    samples: int


def read_study(listing: Manifest, reading: Reading) -> Study:
    """Everything that can be known of a study without running anything.

    Raises:
        ValueError: the scores are of another dataset than the manifest.
    """
    from wsol.evaluation import Study
    from wsol.tracking import file_hash

    scores = [(path, read_json(path)) for path in reading.scores]
    for path, one in scores:
        if one["key"]["dataset"] != listing.name:
            raise ValueError(f"{path}: scores of dataset {one['key']['dataset']!r}, but {listing.path} is of {listing.name!r}")
    folds = {int(one["key"]["fold"]) for _, one in scores} or set(listing.folds)
    samples = _placed(listing, folds)
    inputs = {"manifest": listing.path} | ({"masks": reading.masks} if reading.masks else {})
    return Study(
        samples=samples,
        split_unit=listing.split_unit,
        positive=frozenset(listing.positive),
        mask_means=listing.mask_means,
        claims=[claim for _, one in scores for claim in _claims(one, reading.results)] if scores else None,
        maps=_maps(listing, [one for _, one in scores], reading.results, reading.samples) if reading.results else None,
        masks=_masks(reading.masks, samples, reading.samples) if reading.masks else None,
        looks=_looks(reading.ledger) if reading.ledger else None,
        inputs={name: file_hash(path) for name, path in inputs.items()},
    )


def _placed(listing: Manifest, folds: set[int]) -> list[Placed]:
    from wsol.evaluation import Placed

    rows = list(listing.samples[listing.samples["fold"].isin(folds)].itertuples(index=False))
    known = digests({r.path for r in rows})
    return [
        Placed(
            r.sample, r.role, int(r.fold), listing.classes[r.label], r.patient, r.slide, str(Path(r.path).resolve()),
            known.get(r.path, ""),
        )
        for r in rows
    ]  # fmt: skip


def _run(key: dict[str, Any]) -> str:
    return f"{key['model']}, {key['checkpoint']}, {key['set']}, fold {key['fold']}, seed {key['seed']}"


def _claims(one: dict[str, Any], results: Path | None) -> Iterable[Claim]:
    """What one score file says of its methods."""
    from wsol.evaluation import Claim

    key = one["key"]
    record = {} if results is None else _record(key, results)
    for method, facts in one["methods"].items():
        threshold, oracle = facts.get("threshold") or {}, facts.get("oracle")
        yield Claim(
            run=_run(key),
            method=method,
            split=key["split"],
            fold=int(key["fold"]),
            floor=key["model"] == "floors",
            key=key,
            badges=facts.get("badges") or {},
            threshold=threshold.get("value"),
            source=threshold.get("source", ""),
            values=len(set((threshold.get("values") or {}).values())) or 1,
            oracle=((oracle["value"], oracle["value"]),) if oracle else (),
            prevalence=facts["groups"]["all"].get("prevalence"),
            scored={sample: row.get("prevalence") for sample, row in facts["samples"].items()},
            opened=(one.get("masks_opened") or {}).get("validation"),
            inputs=(one.get("provenance") or {}).get("inputs") or {},
            trained=record,
            beside=tuple(facts.get("as_published") or ()),
        )


def _record(key: dict[str, Any], results: Path) -> dict[str, Any]:
    """What the record of training says; {} where there is none."""
    path = results / "train" / RUN.format(**key) / ("none.json" if key["model"] == "floors" else "run.json")
    if not path.is_file():
        return {}
    run = read_json(path)
    manifest = ((run.get("provenance") or {}).get("inputs") or {}).get("manifest")
    train_on = (run.get("settings") or {}).get("train_on")
    return {"supervision": run.get("supervision"), "masks": run.get("masks"), "train_on": train_on, "manifest": manifest}


def _maps(listing: Manifest, scores: list[dict[str, Any]], results: Path, limit: int) -> list[MapFacts] | None:
    """Facts of the maps behind the scores: of each run and split a bounded number, samples that the model mistakes first; None
    where there are none any more.
    """
    found: list[MapFacts] = []
    for one in scores:
        key = one["key"]
        base = results / "localize" / MAPS.format(**key) / key["split"]
        base = base if base.is_dir() else base.with_name(f"{base.name}.h5")
        if base.exists():
            rows = listing.rows(int(key["fold"]), key["split"])
            labels = {s: listing.classes[i] for s, i in zip(rows["sample"], rows["label"], strict=True)}
            found += _maps_of(base, labels, listing.classes, one, limit)
    return found or None


def _maps_of(base: Path, labels: dict[str, str], classes: list[str], one: dict[str, Any], limit: int) -> list[MapFacts]:
    """Facts of the maps of one run and split; files that are not there or damaged are a finding of their own."""
    from wsol.data import MapReader
    from wsol.evaluation import MapFacts

    found: list[MapFacts] = []
    key = one["key"]
    files = {base: list(labels)}
    if base.is_dir():  # one file per slide
        files = {base / f"{s}.h5": [s] for s in spread(sorted(labels, key=lambda s: labels[s]), limit)}
    for path, samples in files.items():
        try:
            with MapReader(path) as reader:
                found += _read(reader, samples, labels, classes, one, limit)
        except (FileNotFoundError, RuntimeError) as error:
            found.append(MapFacts(_run(key), key["set"], key["split"], samples[0], problem=str(error)))
    return found


def _read(
    reader: MapReader, samples: list[str], labels: dict[str, str], classes: list[str], one: dict[str, Any], limit: int
) -> Iterable[MapFacts]:
    """Facts of the maps of one file, for every method that was scored."""
    from wsol.evaluation import MapFacts

    predicted = {s: classes[int(reader.logits(s).argmax())] for s in samples if reader.has_logits(s)}
    missed = spread([s for s in samples if s in predicted and predicted[s] != labels[s]], limit // 2)
    rest = sorted((s for s in samples if s not in missed), key=lambda s: labels[s])
    chosen = {*missed, *spread(rest, limit - len(missed))}
    key, floor = one["key"], one["key"]["model"] == "floors"
    for method in one["methods"]:
        there = set(reader.samples(method)) if method in reader.methods else set()
        for sample in [s for s in samples if s in chosen]:
            at = {"run": _run(key), "method": method, "split": key["split"], "sample": sample, "floor": floor}
            if sample not in there:
                yield MapFacts(**at, problem=reader.provenance.get("failure", {}).get("reason", "no map in the file"))
                continue
            stored = reader.read(method, sample)
            values = stored.array if stored.coverage is None else stored.array[stored.coverage]
            if values.size:  # a slide without tissue has no map
                target = None if floor else classes[stored.target]
                yield map_facts(values, **at, target=target, predicted=predicted.get(sample))


def _masks(path: Path, samples: list[Placed], limit: int) -> dict[str, MaskFacts]:
    """Facts of the masks of validation and test samples: whether each is there, and the ids of some of them."""
    from wsol.data import read_masks

    wanted = {s.sample for s in samples if s.role != "train"}
    rows = [r for r in read_masks(path).table.itertuples(index=False) if r.sample in wanted]
    opened = set(spread([r.sample for r in rows if r.kind == "file"], limit))
    return {
        str(r.sample): mask_facts(
            str(r.sample), Path(r.mask) if r.kind == "file" else None, tuple(json.loads(r.values)), r.sample in opened
        )
        for r in rows
    }


def _looks(path: Path) -> list[dict[str, str]]:
    """Rows of the ledger; none where nobody has looked yet."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
