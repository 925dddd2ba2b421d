"""What lies beside a table, in sentences: few masks, an order that hangs on the threshold, maps that ignore the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsol.reporting.export import percent
from wsol.reporting.part import Part
from wsol.reporting.table import Row, at
from wsol.reporting.verdict import Sentence

STABLE = 0.5
"""The order is said to hang on the threshold when the best map by PxAP is first at fewer thresholds than this share."""


@dataclass(frozen=True)
class Lead:
    """Where the best map by PxAP is first by Dice: the share of the thresholds, and how often maps overtake each other."""

    name: str
    share: float
    changes: int

    @property
    def text(self) -> str:
        """As a sentence."""
        return f"{self.name}, the best by PxAP, is first (or tied) at {percent(self.share, 0)} % of the thresholds."


def lead(table: Sequence[Row], ranking: Mapping[str, Any]) -> Lead | None:
    """The lead of the best map by PxAP in one ranking; None where nobody in it is in the table or has ranks.

    Args:
        table: of the ranking's dataset and split.
        ranking: ``fold``, ``seed``, ``ranks`` (name -> (points,), 1 is best, None where undefined), ``changes``.
    """
    pxap = {r.name: _pxap(r, ranking) for r in table if r.name in ranking["ranks"]}
    known = {name: v for name, v in pxap.items() if v is not None}
    if not known:
        return None
    winner = max(known, key=lambda name: known[name])
    columns = list(zip(*ranking["ranks"].values(), strict=True))
    own = ranking["ranks"][winner]
    first = [
        rank <= min(r for r in column if r is not None) for rank, column in zip(own, columns, strict=True) if rank is not None
    ]
    return Lead(winner, sum(first) / len(first), int(ranking["changes"])) if first else None


def _pxap(row: Row, ranking: Mapping[str, Any]) -> float | None:
    """PxAP of the run that a ranking is about."""
    for one, result in row.parts:
        if (one["key"]["fold"], one["key"]["seed"]) == (ranking["fold"], ranking["seed"]):
            return at(result, ("groups", "all", "pxap"))
    return None


def cautions(part: Part) -> list[Sentence]:
    """The findings about one split that do not stand in its table."""
    return [*_few_masks(part), *_order(part), *_sanity(part)]


def _few_masks(part: Part) -> list[Sentence]:
    """What is known of a threshold that a few masks chose, for the best map of each model."""
    said = [(row, row.found("transfer", "validation", "sentence")) for row in part.best]
    return [Sentence("note", f"Threshold of {row.name}: {words[0]}") for row, words in said if words]


def _order(part: Part) -> list[Sentence]:
    found = [(lead(part.table, ranking), ranking) for ranking in part.rankings]
    loose = [(stood, ranking) for stood, ranking in found if stood is not None and stood.share < STABLE]
    if not loose:
        return []
    several = len(found) > 1
    words = [
        f"{stood.name} is first at {percent(stood.share, 0)} % of the thresholds only"
        + (f" (fold {ranking['fold']}, seed {ranking['seed']})" if several else "")
        for stood, ranking in loose
    ]
    return [Sentence("careful", f"Who is best hangs on the threshold; of the best by PxAP, {'; '.join(words)}.")]


def _sanity(part: Part) -> list[Sentence]:
    failed: dict[str, dict[str, None]] = {}  # name -> the checks it failed, in order
    blind = []
    for probe in part.probes:
        model = f"{probe['key']['model']} ({probe['key']['checkpoint']})"
        for method, facts in probe["methods"].items():
            kinds = [kind for kind, one in (facts.get("sanity") or {}).items() if one.get("verdict") == "fails"]
            if kinds:
                failed.setdefault(f"{method} of {model}", {}).update(dict.fromkeys(kinds))
        blind += [
            f"{name} at {model}"
            for name, kinds in (probe.get("controls") or {}).items()
            if any(one.get("verdict") == "passes" for one in kinds.values())
        ]
    found = []
    if failed:
        names = ", ".join(f"{name} ({' and '.join(kinds)})" for name, kinds in failed.items())
        text = f"Maps that stay similar although weights are randomized or labels shuffled do not explain the model: {names}."
        found.append(Sentence("bad", text))
    if blind:
        words = f"The sanity check is blind here: a control that knows nothing of the model passes it: {', '.join(blind)}."
        found.append(Sentence("careful", words))
    return found
