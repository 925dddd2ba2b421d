"""All that is known of one split of one dataset: what a section of the page is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from wsol.reporting.gallery import best_of_each_model
from wsol.reporting.layers import Album
from wsol.reporting.svg import Palette
from wsol.reporting.table import Row
from wsol.reporting.verdict import best_stain

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """The rows of one split of one dataset, and what was made from them; `id` starts the ids of the page's elements."""

    id: str
    table: Sequence[Row]
    differences: Sequence[Facts] = ()
    rankings: Sequence[Facts] = ()
    probes: Sequence[Facts] = ()
    histories: Sequence[Facts] = ()
    root: Path = Path(".")
    album: Album = field(default_factory=Album)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.table[0].dataset

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.table[0].split

    @cached_property
    def trained(self) -> list[Row]:
        """Rows of trained models, best first."""
        return [r for r in self.table if not r.floor]

    @cached_property
    def best(self) -> list[Row]:
        """The best map of each model."""
        return best_of_each_model(self.table)

    @cached_property
    def stain(self) -> Row | None:
        """The best stain map."""
        return best_stain(self.table)

    @cached_property
    def palette(self) -> Palette:
        """Colors of all figures."""
        return Palette.of(self.table)


def parts(
    table: Iterable[Row],
    *,
    differences: Sequence[Facts] = (),
    rankings: Sequence[Facts] = (),
    probes: Sequence[Facts] = (),
    histories: Sequence[Facts] = (),
    root: Path = Path("."),
    album: Album | None = None,
) -> list[Part]:
    """One part for each split of each dataset, in the order of `table`.

    A probe of a split that was not scored goes to the first part of its dataset: it asks the network, not the masks.

    Raises:
        ValueError: a comparison, a ranking or a probe of a dataset or split without scores.
    """
    tables = {k: list(group) for k, group in groupby(table, key=lambda r: (r.dataset, r.split))}
    first: dict[str, tuple[str, str]] = {}
    for dataset, split in tables:
        first.setdefault(dataset, (dataset, split))

    def home(key: Facts, what: str, strict: bool) -> tuple[str, str]:
        place = (str(key["dataset"]), str(key["split"]))
        found = place if place in tables else None if strict else first.get(place[0])
        if found is None:
            raise ValueError(f"a {what} is about {place[0]}, split {place[1]}; there are scores of {sorted(tables)} only")
        return found

    def of(place: tuple[str, str], items: Sequence[Facts], what: str, strict: bool = True) -> list[Facts]:
        return [one for one in items if home(one.get("key", one), what, strict) == place]

    return [
        Part(
            f"s{i}",
            rows,
            of(place, differences, "comparison"),
            of(place, rankings, "ranking"),
            of(place, probes, "probe", strict=False),
            [h for h in histories if str(h["key"].get("dataset", place[0])) == place[0]],
            root,
            album or Album(),
        )
        for i, (place, rows) in enumerate(tables.items())
    ]
