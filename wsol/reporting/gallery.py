"""Which samples are worth looking at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsol.reporting.table import Row


@dataclass(frozen=True)
class Found:
    """What a row says of one sample: the first of its runs that has it."""

    sample: str
    one: Mapping[str, Any]
    result: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def threshold(self) -> float | None:
        """The threshold of this sample: its own where the source is per image, else the common one."""
        chosen = self.result.get("threshold") or {}
        return (chosen.get("values") or {}).get(self.sample, chosen.get("value"))


def found(row: Row) -> dict[str, Found]:
    """Sample -> what the row says of it."""
    place: dict[str, Found] = {}
    for one, result in row.parts:
        for sample, values in (result.get("samples") or {}).items():
            place.setdefault(sample, Found(sample, one, result, values))
    return place


def ranked(row: Row) -> list[str]:
    """Samples from the best Dice at the chosen threshold to the worst, then those without foreground, least flagged first."""
    place = found(row)
    with_dice = [s for s in place if place[s].values.get("dice") is not None]
    without = [s for s in place if s not in set(with_dice)]
    return sorted(with_dice, key=lambda s: (-place[s].values["dice"], s)) + sorted(
        without, key=lambda s: (place[s].values.get("flagged_area") or 0.0, s)
    )


def telling(row: Row) -> dict[str, str]:
    """Rank -> sample: best, median and worst by Dice, and the most flagged sample without foreground."""
    place, order = found(row), ranked(row)
    dice = [s for s in order if place[s].values.get("dice") is not None]
    last = len(dice) - 1
    ranks = ({"best": 0} if dice else {}) | ({"median": last // 2} if last > 1 else {}) | ({"worst": last} if last > 0 else {})
    chosen = {name: dice[i] for name, i in ranks.items()}
    return chosen | ({"most flagged negative": order[-1]} if len(order) > len(dice) else {})


def evenly(order: Sequence[str], count: int) -> list[str]:
    """`count` of `order`, evenly spread, both ends among them."""
    if len(order) <= count:
        return list(order)
    return [order[round(i * (len(order) - 1) / max(count - 1, 1))] for i in range(count)]


def best_of_each_model(table: Sequence[Row], limit: int = 4) -> list[Row]:
    """The best row (by pooled PxAP) of each model and checkpoint, best first; floors are left out."""
    seen: dict[tuple[str, str], Row] = {}
    for row in table:
        if not row.floor:
            seen.setdefault((row.model, row.checkpoint), row)
    return list(seen.values())[:limit]
