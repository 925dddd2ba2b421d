"""`wsol report` and `wsol where`: the page, and where everything is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsol.cli.config import Config
from wsol.cli.differences import arenas, differences, ranking, write_differences
from wsol.cli.faults import faults
from wsol.cli.files import read_json
from wsol.cli.results import histories, kept, read_scores, statuses


def report(
    paths: list[Path], *, out: Path, results: Path, title: str, audit: Path | None = None, probes: Sequence[Path] = ()
) -> None:
    """One self-contained page; beside it the leaderboard and the paired differences as CSV."""
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
    write_report(
        out,
        scores,
        title=title,
        histories=curves,
        statuses=faults(statuses(scores, results), scores),
        csv=out.with_name("leaderboard.csv"),
        differences=compared,
        rankings=[found for arena in fields if (found := ranking(arena))],
        probes=[read_json(path) for path in probes],
        audit=read_json(audit) if audit else None,
    )


def table(paths: list[Path], split: str) -> str:
    """The leaderboard of one split as Markdown."""
    from wsol.reporting import markdown

    return markdown([read_json(path) for path in paths], split)


def where(config: Config) -> str:
    """Where the report, the heat maps and the dashboard of a study are."""
    results, name = Path(config.results), config.prepare.name
    return "\n".join(
        [
            "",
            f"report     {results}/report/{name}/index.html",
            f"heat maps  {results}/heatmap/{name}/   (overlay .png, QuPath .geojson, pyramidal .ome.tiff)",
            f"numbers    {results}/report/{name}/leaderboard.csv, differences.csv",
            "dashboard  make dashboard   (or: wsol dashboard), then open the address it prints",
        ]
    )
