"""One flat run: what was run, under which protocol, with what result. What a row of a dashboard shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsol.tracking.origin import config_hash


@dataclass(frozen=True)
class Picture:
    """An overlay of one sample: the file, and its place among the run's pictures (0 = worst Dice)."""

    sample: str
    path: Path
    step: int
    split: str


@dataclass
class Record:
    """One flat run: what was run (`key`, `params`, checkpoint in `weights`), under which protocol (`tags`), with what result."""

    key: dict[str, Any]
    name: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    note: str = ""
    weights: Path | None = None

    @property
    def run_key(self) -> str:
        """The hash that finds this run again."""
        return run_key(self.key)

    def put(self, name: str, value: float | None, factor: float = 1.0) -> None:
        """Notes a metric, rounded to 4 digits; a value that is None, NaN or infinite is noted as skipped."""
        if value is None or not math.isfinite(value):
            self.skipped.append(name)
        else:
            self.metrics[name] = round(float(value) * factor, 4)


def run_key(key: Mapping[str, Any]) -> str:
    """16 hex digits of what identifies a run; independent of the order of `key`."""
    return config_hash(key)
