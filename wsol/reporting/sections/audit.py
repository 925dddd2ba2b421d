"""What the auditor found, worst first, and what it checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {"error": "bad", "warning": "careful", "note": "note"}


def section(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Errors and warnings for the top of the page, notes and the names of all checks for the list below.

    Raises:
        ValueError: a finding of a severity that is none of error, warning and note.
    """
    if audit is None:
        return None
    severities = [f["severity"] for f in audit["findings"]]
    if unknown := sorted({s for s in severities if s not in KINDS}):
        raise ValueError(f"an audit finding is an error, a warning or a note, got {', '.join(unknown)}")
    ordered = sorted(audit["findings"], key=lambda f: list(KINDS).index(f["severity"]))
    failed = {f["check"] for f in ordered if f["severity"] != "note"}
    checked = [str(name) for name in audit["checked"]]
    passed = [name for name in checked if name not in failed]
    unchecked = f", {n} not made" if (n := len(audit.get("unchecked") or {})) else ""
    counts = [f"{n} {word}{'' if n == 1 else 's'}" for word in ("error", "warning", "note") if (n := severities.count(word))]
    return {
        "dataset": str(audit.get("dataset") or ""),
        "loud": [f | {"kind": KINDS[f["severity"]]} for f in ordered if f["severity"] != "note"],
        "notes": [f for f in ordered if f["severity"] == "note"],
        "summary": f"{', '.join(counts) or 'nothing found'}; {len(passed)} of {len(checked)} checks passed{unchecked}",
        "passed": passed,
        "unchecked": _reasons(audit.get("unchecked") or {}),
    }


def _reasons(unchecked: Mapping[str, str]) -> list[tuple[str, str]]:
    """(checks that were not made, why), checks with one reason together."""
    return [
        (", ".join(n for n, why in unchecked.items() if why == reason), reason) for reason in dict.fromkeys(unchecked.values())
    ]
