"""What an audit looks at, as plain rows: samples and their roles, what each number claims, and facts of maps and masks.

Whoever reads the files (a study's, or another tool's) fills these in; the checks never open a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

SIDES: dict[str, tuple[str, ...]] = {"training": ("train",), "validation": ("valcl", "valpx"), "test": ("test",)}
"""What has to be apart -> its roles."""

ROLES = tuple(role for roles in SIDES.values() for role in roles)
"""train; valcl: validation by labels; valpx: validation by masks; test."""


@dataclass(frozen=True)
class Placed:
    """A sample in one role of one fold; "" where something is not known.

    Attributes:
        sample: its name.
        role: of `ROLES`.
        fold: of the split.
        label: name of its class.
        patient: whose it is.
        slide: which slide it is of.
        file: its image, resolved.
        digest: hash of its content.
    """

    sample: str
    role: str
    fold: int = 0
    label: str = ""
    patient: str = ""
    slide: str = ""
    file: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Claim:
    """What the numbers of one method on one split say of themselves.

    Attributes:
        run: model, checkpoint, map set, fold and seed in words.
        method: id of the map.
        split: which was scored, a role.
        fold: of the split.
        floor: whether the maps need no training.
        key: what identifies the run; the ledger's columns.
        badges: as `wsol.evaluation.Badges`; whatever is not known is missing.
        threshold: of the result.
        source: of the threshold, as `Threshold.source`; "" unknown.
        values: number of different thresholds among the samples (1: one for all).
        oracle: ranges of thresholds that are best on the scored masks (by one measure each); () unknown.
        prevalence: share of foreground in all scored pixels; None unknown.
        scored: sample -> share of foreground in its mask, None unknown.
        opened: validation masks that were opened; None unknown.
        inputs: name of an input file -> hash of its content.
        trained: what the record of training says (supervision, masks, manifest); {} unknown.
        beside: defects of the published code that were reproduced beside the result.
    """

    run: str
    method: str
    split: str
    fold: int = 0
    floor: bool = False
    key: Mapping[str, Any] = field(default_factory=dict)
    badges: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    source: str = ""
    values: int = 1
    oracle: tuple[tuple[float, float], ...] = ()
    prevalence: float | None = None
    scored: Mapping[str, float | None] = field(default_factory=dict)
    opened: int | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Method and run in words."""
        return f"{self.method} ({self.run})" if self.run else self.method


@dataclass(frozen=True)
class MapFacts:
    """What is known of one map.

    Attributes:
        run: as in `Claim`.
        method: id of the map.
        split: a role.
        sample: its name.
        target: class it was drawn for; None unknown.
        predicted: class the model decides for; None unknown.
        low: smallest value.
        high: largest value.
        digest: hash of the array.
        problem: why it is no usable map ("3 values are NaN or infinite"), or "".
        floor: whether it needs no training.
    """

    run: str
    method: str
    split: str
    sample: str
    target: str | None = None
    predicted: str | None = None
    low: float = 0.0
    high: float = 0.0
    digest: str = ""
    problem: str = ""
    floor: bool = False


@dataclass(frozen=True)
class MaskFacts:
    """What is known of one mask.

    Attributes:
        sample: its name.
        kind: "file", or "empty": declared to hold no foreground without a file.
        problem: why its file cannot be read, or "".
        ids: different values in the file, ascending; () where it was not read.
        foreground: the ids that are read as foreground; () for all above 0.
        share: of its pixels that are read as foreground; None where it was not read.
    """

    sample: str
    kind: str = "file"
    problem: str = ""
    ids: tuple[int, ...] = ()
    foreground: tuple[int, ...] = ()
    share: float | None = None


@dataclass(frozen=True)
class Study:
    """All that an audit looks at; None stands for what was not given, and its checks are then not made.

    Attributes:
        samples: of the folds that were scored.
        split_unit: what the split claims to keep apart, "" unknown.
        positive: names of the declared positive classes, empty if unknown.
        mask_means: "class": masks mark the positive class; "any-foreground"; "" unknown.
        foreign: whether another tool made the results.
        claims: one per method, run and split.
        maps: those that were looked at.
        masks: sample -> facts; a sample that is missing here has no mask.
        looks: rows of the ledger of looks at test sets.
        inputs: name -> hash of the files that the audit itself read.
    """

    samples: Sequence[Placed]
    split_unit: str = ""
    positive: frozenset[str] = frozenset()
    mask_means: str = ""
    foreign: bool = False
    claims: Sequence[Claim] | None = None
    maps: Sequence[MapFacts] | None = None
    masks: Mapping[str, MaskFacts] | None = None
    looks: Sequence[Mapping[str, str]] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def labels(self) -> dict[str, str]:
        """Sample -> label."""
        return {s.sample: s.label for s in self.samples}

    @cached_property
    def folds(self) -> list[int]:
        """Folds, ascending."""
        return sorted({s.fold for s in self.samples})

    @cached_property
    def roles(self) -> dict[tuple[int, str], dict[str, Placed]]:
        """(fold, role) -> its samples by name."""
        found: dict[tuple[int, str], dict[str, Placed]] = {}
        for s in self.samples:
            found.setdefault((s.fold, s.role), {})[s.sample] = s
        return found

    def held(self, fold: int, role: str) -> dict[str, Placed]:
        """The samples of one role of one fold, by name."""
        return self.roles.get((fold, role), {})

    def side(self, fold: int, side: str) -> dict[str, Placed]:
        """The samples of one of `SIDES` of one fold, by name."""
        return {name: s for role in SIDES[side] for name, s in self.held(fold, role).items()}

    def trained(self) -> list[Claim]:
        """The claims of maps that needed training."""
        return [c for c in self.claims or () if not c.floor]
