"""What follows from the counts of several methods on the same samples: paired differences, and ranks over thresholds."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol.cli.curves import read_curves
from wsol.cli.files import atomic, read_json

if TYPE_CHECKING:
    from wsol.evaluation import PixelCounts

UNRANKED = {"all-ones", "random"}
"""Floors that nobody asks whether they are the best."""

METRICS = ("pxap", "dice")
WIDE = 24
"""More methods than this are not compared in pairs: a table of hundreds of corrected p values says nothing."""


class Stored(Mapping[str, Mapping[str, "PixelCounts"]]):
    """Method -> sample -> counts, read each time they are asked for: those of one method at a time are in memory."""

    def __init__(self) -> None:
        """No method yet."""
        self._places: dict[str, tuple[Path, str]] = {}

    def add(self, name: str, path: Path, method: str) -> None:
        """A method, as its file calls it, under a name."""
        self._places[name] = path, method

    def __getitem__(self, name: str) -> Mapping[str, PixelCounts]:
        return read_curves(*self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Aligned(Mapping[str, "list[PixelCounts]"]):
    """Method -> counts of the same samples in the same order."""

    def __init__(self, counts: Mapping[str, Mapping[str, PixelCounts]], methods: Sequence[str], samples: Sequence[str]) -> None:
        """`methods` of `counts`, each read when it is asked for."""
        self._counts, self._methods, self._samples = counts, methods, samples

    def __getitem__(self, name: str) -> list[PixelCounts]:
        found = self._counts[name]
        return [found[s] for s in self._samples]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


@dataclass
class Arena:
    """All methods that were scored on the same samples: one split of one fold and seed of one dataset."""

    key: dict[str, Any]
    counts: Mapping[str, Mapping[str, PixelCounts]]
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)
    pxap: dict[str, float] = field(default_factory=dict)
    floors: set[str] = field(default_factory=set)
    patients: dict[str, str] = field(default_factory=dict)

    @property
    def samples(self) -> list[str]:
        """Samples that every method was scored on."""
        return sorted(set.intersection(*(set(at) for at in self.thresholds.values())))


def arenas(paths: Iterable[Path]) -> list[Arena]:
    """The methods of score files, with the counts that stand beside each file, by what they were scored on."""
    found: dict[tuple[Any, ...], tuple[Arena, Stored]] = {}
    for path in paths:
        one = read_json(path)
        key = {k: one["key"][k] for k in ("dataset", "split", "fold", "seed")}
        if tuple(key.values()) not in found:
            stored = Stored()
            found[tuple(key.values())] = Arena(key, stored), stored
        _enter(*found[tuple(key.values())], one, path.with_name("curves.parquet"))
    return [arena for arena, _ in found.values() if len(arena.counts) > 1 and arena.samples]


def _enter(arena: Arena, stored: Stored, one: Mapping[str, Any], curves: Path) -> None:
    from pyarrow import parquet

    if not curves.is_file():
        raise FileNotFoundError(f"{curves}: the counts of the score file beside it are missing; run `wsol evaluate` again")
    table = parquet.read_table(curves, columns=["method", "sample", "slide", "patient"]).to_pandas()
    key = one["key"]
    for method, facts in one["methods"].items():
        if (key["model"] == "floors" and method in UNRANKED) or facts.get("badges", {}).get("as_published"):
            continue
        name = method if key["model"] == "floors" else f"{method} of {key['model']} ({key['checkpoint']})"
        if key["model"] == "floors":
            arena.floors.add(name)
        stored.add(name, curves, method)
        rows = table[table["method"] == method]
        samples: list[str] = rows["sample"].tolist()
        chosen = facts["threshold"]
        arena.thresholds[name] = {s: (chosen.get("values") or {}).get(s, chosen["value"]) for s in samples}
        arena.pxap[name] = facts["groups"]["all"]["pxap"] or 0.0
        arena.patients |= dict(zip(samples, rows["patient"].where(rows["patient"] != "", rows["slide"]).tolist(), strict=True))


def differences(arena: Arena, replicates: int = 1000, reference: str | None = None) -> list[dict[str, Any]]:
    """Every method against one: a table per metric, patients drawn together for both.

    Args:
        arena: methods scored on the same samples.
        replicates: of bootstrap and permutation test.
        reference: a method, as `arena` or its map is called; None for the one with the highest PxAP that is no floor.
    """
    from wsol.evaluation import compare

    samples = arena.samples

    def place(name: str) -> tuple[bool, bool, float]:
        named = reference is not None and (name == reference or name.startswith(f"{reference} of "))
        return not named, name in arena.floors, -arena.pxap[name]

    ranked = sorted(arena.counts, key=place)[:WIDE]
    aligned = Aligned(arena.counts, ranked, samples)
    if not any(counts.positives.any() for counts in aligned[ranked[0]]):
        return []
    tables = []
    for metric in METRICS:
        rows = compare(
            aligned,
            [arena.patients[s] for s in samples],
            metric,
            {name: [arena.thresholds[name][s] for s in samples] for name in ranked},
            ranked[0],
            generator=np.random.default_rng(0),
            replicates=replicates,
        )
        tables.append({**arena.key, "metric": metric, "reference": ranked[0], "correction": "holm", "rows": rows})
    return tables


def ranking(arena: Arena) -> dict[str, Any] | None:
    """Ranks of the methods at every threshold; None without positives."""
    from wsol.evaluation import PixelCounts, ranking_over_thresholds
    from wsol.evaluation.intervals import plain

    aligned = Aligned(arena.counts, list(arena.counts), arena.samples)
    pooled = {name: PixelCounts.total(counts) for name, counts in aligned.items()}
    if not any(c.positives.any() for c in pooled.values()):
        return None
    found = ranking_over_thresholds(pooled, "dice")
    return {
        **arena.key,
        "threshold": found.threshold.tolist(),
        "ranks": {name: [plain(float(v)) for v in line] for name, line in zip(found.methods, found.ranks, strict=True)},
        "best": list(found.best),
        "tau": [plain(float(v)) for v in found.tau],
        "changes": found.changes,
    }


def write_differences(path: Path, tables: Iterable[Mapping[str, Any]]) -> None:
    """One line per comparison, as fractions."""
    lines = [
        {k: v for k, v in table.items() if k != "rows"} | {f"method_{k}" if k == "name" else k: v for k, v in row.items()}
        for table in tables
        for row in table["rows"]
    ]
    columns = list(dict.fromkeys(name for line in lines for name in line)) or ["dataset"]
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(lines)
