"""`wsol report` and `wsol where`: the page, and where everything is."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wsol.cli.config import Config
from wsol.cli.differences import arenas, differences, ranking, write_differences
from wsol.cli.faults import faults
from wsol.cli.files import read_json
from wsol.cli.layers import Looker
from wsol.cli.results import commands, histories, jobs, kept, read_scores, statuses, thumbnails

PACKAGES = ("torch", "monai", "numpy", "openslide-python", "snakemake")
"""Whose versions the page says beside that of Python and its own."""


def report(
    paths: list[Path],
    *,
    out: Path,
    results: Path,
    title: str,
    audit: Path | None = None,
    probes: Sequence[Path] = (),
    pictures: int = 48,
    command: str = "",
) -> None:
    """One self-contained page; beside it the leaderboard and the paired differences as CSV.

    Args:
        paths: of the score files.
        out: the page.
        results: folder of the results; pictures, histories, statuses and costs are found there.
        title: of the page.
        audit: findings of `wsol audit`.
        probes: of `wsol probe`.
        pictures: samples of each split whose layers are shown.
        command: that made the study, for the provenance; trainings and evaluations say themselves how they were called.
    """
    from wsol.reporting import write_report

    scores = read_scores(paths, results)
    fields = arenas(paths)
    compared = [table for arena in fields for table in differences(arena)]
    write_differences(out.with_name("differences.csv"), compared)
    epochs = kept(scores, results)
    curves = [
        {"key": {"model": m, "fold": f, "seed": s}, "rows": rows, "kept": epochs.get((m, f, s), {})}
        for (m, f, s), rows in histories(scores, results).items()
    ]
    tiled = statuses(scores, results)
    write_report(
        out,
        scores,
        title=title,
        histories=curves,
        statuses=list({one["slide"]: one for one in [*tiled, *faults(tiled, scores)]}.values()),
        csv=out.with_name("leaderboard.csv"),
        differences=compared,
        rankings=[found for arena in fields if (found := ranking(arena))],
        probes=[read_json(path) for path in probes],
        audit=read_json(audit) if audit else None,
        look=Looker(results, out.parent.absolute()),
        pictures=pictures,
        thumbnails=thumbnails(scores, results),
        jobs=jobs(scores, results),
        commands=[*([("study", command)] if command else []), *commands(scores, results)],
        packages=_versions(),
    )


def _versions() -> dict[str, str]:
    """Package -> version, without importing any."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def table(paths: list[Path], split: str) -> str:
    """The leaderboard of one split as Markdown."""
    from wsol.reporting import markdown

    return markdown([read_json(path) for path in paths], split)


def records(paths: list[Path], split: str) -> list[dict[str, Any]]:
    """The same leaderboard for programs: an object per row, of the columns of leaderboard.csv."""
    from wsol.reporting import lines

    return lines([read_json(path) for path in paths], split)


def where(config: Config) -> dict[str, str]:
    """What a study makes for its reader -> where it is."""
    results, name = Path(config.results), config.prepare.name
    page = results / "report" / name
    return {
        "report": str(page / "index.html"),
        "leaderboard": str(page / "leaderboard.csv"),
        "differences": str(page / "differences.csv"),
        "heat maps": str(results / "heatmap" / name),
    }
