"""`wsol audit`: what a careful reviewer would ask of the numbers, of a study here or of another tool's results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsol.cli.audit_study import Reading, read_study
from wsol.cli.files import write_json

if TYPE_CHECKING:
    from wsol.evaluation import Audit, Finding


def audit(
    *,
    scores: list[Path],
    manifest: Path,
    masks: Path | None,
    results: Path | None,
    ledger: Path | None,
    out: Path | None,
    samples: int = 64,
) -> Audit:
    """Audit the scores of one dataset, and write the findings to `out` (JSON).

    Args:
        scores: files of `wsol evaluate`; without any, only splits and masks are audited.
        manifest: of `wsol prepare`.
        masks: of `wsol prepare`; None: masks are not checked.
        results: folder of the results, where maps and training records are; None: these are not checked.
        ledger: CSV with the looks at the test set; None: not checked. A file that is not there has no looks.
        out: JSON to write; None: none.
        samples: maps that are read per method, and masks per audit. Labels and roles are always read in full.

    Returns:
        The findings, worst first, as a sequence that also says which checks were made.

    Raises:
        ValueError: the scores are of another dataset than the manifest.
        FileNotFoundError: a score file, the manifest or the masks are not there.
    """
    from wsol.data import read_manifest
    from wsol.evaluation import examine

    listing = read_manifest(manifest)
    found = examine(read_study(listing, Reading(scores, masks, results, ledger, samples)))
    _write(out, listing.name, found)
    return found


def audit_foreign(
    *,
    sheet: Path,
    maps: Path | None,
    masks: Path | None,
    out: Path | None,
    positive: Sequence[str] = (),
    samples: int = 64,
) -> Audit:
    """Audit the results of any other tool, and write the findings to `out` (JSON).

    Args:
        sheet: CSV of the samples; see `wsol.cli.audit_foreign.COLUMNS`.
        maps: folder of maps named after their samples; None: the column `map`, or no maps.
        masks: folder of masks named after their samples; None: the column `mask`, or no masks.
        out: JSON to write; None: none.
        positive: the labels whose samples hold something to find; by default those with a usual name ("tumor", "1", ...).
        samples: maps and masks that are read.

    Raises:
        ValueError: a mistake in the sheet, with its row.
        FileNotFoundError: the sheet or a folder is not there.
    """
    from wsol.cli.audit_foreign import read_foreign
    from wsol.evaluation import examine

    found = examine(read_foreign(sheet, maps, masks, positive, samples))
    _write(out, sheet.stem, found)
    return found


def render(findings: Sequence[Finding]) -> str:
    """Findings for a terminal: errors first, each with its remedy, and a closing line of counts."""
    from wsol.evaluation import Audit
    from wsol.evaluation.findings import counted, worst_first

    lines = []
    for f in worst_first(findings):
        where = f" [{f.where}]" if f.where else ""
        lines.append(f"{f.severity:<7}  {f.check}: {f.text}{where}. To do: {f.remedy}.")
    numbers = {s: sum(f.severity == s for f in findings) for s in ("error", "warning", "note")}
    closing = ", ".join(counted(numbers[s], s) for s in numbers if numbers[s] or s != "note")
    if isinstance(findings, Audit):
        closing += f"; {counted(len(findings.passed), 'check')} passed"
        if findings.unchecked:
            closing += f", {len(findings.unchecked)} not made"
            reasons = dict.fromkeys(findings.unchecked.values())
            lines += [
                f"unknown  {', '.join(n for n, r in findings.unchecked.items() if r == reason)}: {reason}." for reason in reasons
            ]
    return "\n".join([*lines, closing])


def _write(out: Path | None, dataset: str, found: Audit) -> None:
    if out is not None:
        write_json(out, {"dataset": dataset, **found.to_dict()})
