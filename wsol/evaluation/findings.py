"""What an audit found: findings with a remedy each, and which checks were made, passed, or could not be made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

from wsol._names import closest

SEVERITIES = ("error", "warning", "note")
"""error: the number does not mean what it says; warning: a reader has to be told; note: the usual state, said aloud."""


class CannotTell(Exception):
    """What a check needs to know is not known; the message says what. A check that was not made has not passed."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        check: name of the check, of `wsol.evaluation.audit.CHECKS`.
        severity: of `SEVERITIES`.
        text: what was found, with names and counts.
        remedy: what to do about it.
        where: the fold, the run or the files, "" where the text says it.

    Raises:
        ValueError: an unknown severity, or no text.
    """

    check: str
    severity: str
    text: str
    remedy: str
    where: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(closest("severity", self.severity, SEVERITIES))
        if not self.check or not self.text:
            raise ValueError(f"a finding names its check and says what was found, got {self.check!r}: {self.text!r}")

    def to_dict(self) -> dict[str, str]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Audit(Sequence[Finding]):
    """The findings of one audit, worst first, as a sequence; and what was checked.

    Attributes:
        findings: worst first.
        checked: names of the checks that were made, those that passed included.
        unchecked: name of a check that could not be made -> why.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    unchecked: Mapping[str, str] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Finding]: ...
    def __getitem__(self, index: int | slice) -> Finding | Sequence[Finding]:
        return self.findings[index]

    def __len__(self) -> int:
        return len(self.findings)

    def number(self, severity: str) -> int:
        """How many findings are of one severity."""
        return sum(f.severity == severity for f in self.findings)

    @property
    def passed(self) -> list[str]:
        """Checks that were made and found neither an error nor a warning."""
        failed = {f.check for f in self.findings if f.severity != "note"}
        return [name for name in self.checked if name not in failed]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: `findings`, `checked`, `unchecked`, and the numbers of `errors` and `warnings`."""
        return {
            "findings": [f.to_dict() for f in self.findings],
            "checked": list(self.checked),
            "unchecked": dict(self.unchecked),
            "errors": self.number("error"),
            "warnings": self.number("warning"),
        }


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; otherwise in the order they came."""
    return tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))


def named(names: Iterable[Any], most: int = 4) -> str:
    """Names in words, each once: ``a, b, c, d and 7 more``."""
    every = list(dict.fromkeys(str(n) for n in names))
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def counted(number: int, noun: str) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
