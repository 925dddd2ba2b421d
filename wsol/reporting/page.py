"""The report: one HTML file that needs nothing beside it, put together from score files and what lies around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol.reporting.badges import KINDS
from wsol.reporting.cautions import cautions
from wsol.reporting.export import write_csv, write_text
from wsol.reporting.figures import history_figure
from wsol.reporting.layers import Album, Look
from wsol.reporting.part import Part, parts
from wsol.reporting.provenance import listed, provenance
from wsol.reporting.sections import (
    activation,
    classification,
    failures,
    faithfulness,
    gallery,
    leaderboard,
    published,
    quality,
    regions,
    runtime,
    scales,
    selection,
    thresholds,
)
from wsol.reporting.sections import audit as auditor
from wsol.reporting.sections import (
    differences as paired,
)
from wsol.reporting.sections.leaderboard import people
from wsol.reporting.svg import MAX_LINES
from wsol.reporting.table import Row, rows
from wsol.reporting.verdict import sentences

if TYPE_CHECKING:
    from jinja2 import Template


def write_report(
    path: str | Path,
    scores: Sequence[Mapping[str, Any]],
    *,
    title: str = "wsol",
    histories: Sequence[Mapping[str, Any]] = (),
    statuses: Iterable[Mapping[str, Any]] = (),
    differences: Sequence[Mapping[str, Any]] = (),
    rankings: Sequence[Mapping[str, Any]] = (),
    probes: Sequence[Mapping[str, Any]] = (),
    audit: Mapping[str, Any] | None = None,
    look: Look | None = None,
    pictures: int = 48,
    thumbnails: Mapping[str, Path] | None = None,
    jobs: Sequence[Mapping[str, Any]] = (),
    commands: Sequence[tuple[str, str]] = (),
    packages: Mapping[str, str] | None = None,
    root: str | Path = ".",
    csv: str | Path | None = None,
) -> list[Row]:
    """Writes the page, and the leaderboard as CSV beside it.

    Args:
        path: of the HTML file.
        scores: contents of scores.json files, floors included; ``samples.<sample>.overlay`` are picture paths, absolute or below
            `root`.
        title: of the page.
        histories: ``{"key": {"model", "fold", "seed"}, "rows": [{"epoch": 1, "train_loss": ...}, ...], "kept": {checkpoint:
            epoch}}``; `kept` may be missing.
        statuses: contents of the JSON files of `wsol tile`, and records of slides that could not be drawn: ``{"slide", "status",
            "reason"}`` and more; those that are not ok are listed as failures.
        differences: ``{"dataset", "split", "fold", "seed", "reference", "metric", "correction", "rows": [{"name", "mean", "low",
            "high", "p", "p_adjusted", "wins", "patients"}, ...]}``: each map against one, names as `Row.name` has them.
        rankings: ``{"dataset", "split", "fold", "seed", "threshold", "ranks": {name: [...]}, "tau", "changes"}``.
        probes: contents of probe.json files.
        audit: content of an audit.json.
        look: gives image, mask and heat of a sample; without it the overlays are shown.
        pictures: samples of each split that are shown; fewer where the page would become too large, which it says.
        thumbnails: slide -> the picture of its tissue and tiles.
        jobs: what ran: ``{"rule", "job", "seconds", "cpu", "memory"}``, see `sections.runtime`.
        commands: (what it made, command line).
        packages: package -> version, of what writes the page.
        root: folder that relative overlay paths start from.
        csv: where the leaderboard goes; ``leaderboard.csv`` beside the page by default.

    Returns:
        The rows of the leaderboard.

    Raises:
        ValueError: no scores at all, or something that is no content of a scores.json, or a comparison, ranking or
            probe without scores.
    """
    table, statuses = rows(scores), list(statuses)
    if not table:
        raise ValueError("no scores: a report needs at least one scores.json; run `wsol evaluate` first")
    splits = parts(
        table, differences=differences, rankings=rankings, probes=probes, histories=histories, root=Path(root),
        album=Album(look, pictures),
    )  # fmt: skip
    sections = [_section(part) for part in splits]
    page = _template().render(
        title=title,
        head=_head(table, scores),
        audit=auditor.section(audit),
        lost=[f"{s['slide']} ({s['status']})" for s in statuses if s["status"] != "ok"],
        sections=sections,
        study={
            "quality": quality.section(statuses, thumbnails or {}),
            "training": history_figure(histories, "training"),
            "runtime": runtime.section(jobs),
            "failures": failures.section([r for part in splits for r in part.best], statuses),
        },
        colors=gallery.colors(),
        viewer=viewer() if any(s.get("gallery", {}).get("layered") for s in sections) else "",
        kinds=[{"title": t, "words": w} for t, w in KINDS.values()],
        provenance=provenance(scores, commands, packages),
    )
    write_text(path, page)
    write_csv(csv or Path(path).parent / "leaderboard.csv", table)
    return table


def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("wsol.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


def viewer() -> str:
    """OpenSeadragon 6.1.1 (BSD 3-Clause) with its license: the script that shows large pictures."""
    folder = files("wsol.reporting") / "templates"
    license_, script = ((folder / f"openseadragon.{name}").read_text("utf-8") for name in ("license.txt", "min.js"))
    return f"/*!\n{license_}*/\n{script.partition('//# sourceMappingURL')[0]}"  # the map is not there


def _head(table: Sequence[Row], scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    trained = [r for r in table if not r.floor]
    folds, seeds = (sorted({n for r in table for n in getattr(r, k)}) for k in ("folds", "seeds"))
    sizes = {
        r.split: (max(q.samples for q in table if q.split == r.split), max(q.patients for q in table if q.split == r.split))
        for r in table
    }
    said = [
        ("Data", ", ".join(dict.fromkeys(r.dataset for r in table))),
        ("Classes", ", ".join(dict.fromkeys(c for r in table for c in r.classes))),
        *((f"Split {split}", people(n, p)) for split, (n, p) in sizes.items()),
        ("Models", ", ".join(dict.fromkeys(f"{r.model} ({r.checkpoint})" for r in trained))),
        ("Maps", ", ".join(dict.fromkeys(r.method for r in trained))),
        ("Runs", f"fold {listed(folds)} · seed {listed(seeds)}"),
        (
            "Training",
            ", ".join(dict.fromkeys(str(s["supervision"]) for s in scores if s.get("supervision") not in (None, "none"))),
        ),
    ]
    return [(k, v) for k, v in said if v]


def _section(part: Part) -> dict[str, Any]:
    """All that the page says of one split of one dataset; `order` names the sections that there is anything to say in."""
    shown = {name: made for name, make in SECTIONS.items() if (made := make(part))}
    files = [one for row in part.table for one, _ in row.parts]
    return {
        "id": part.id,
        "dataset": part.dataset,
        "split": part.split,
        "people": people(max(r.samples for r in part.table), max(r.patients for r in part.table)),
        "notes": list(dict.fromkeys(str(one["note"]) for one in files if one.get("note"))),
        "crowded": len(part.trained) > MAX_LINES,
        "survey": any(one.get("protocol") == "survey" for one in files),
        "any_foreground": any(one.get("mask_means") == "any-foreground" for one in files),
        "sentences": [*sentences(part.table), *cautions(part)],
        "leaderboard": leaderboard.section(part),
        "order": list(shown),
        **shown,
    }


SECTIONS: dict[str, Callable[[Part], Any]] = {
    "thresholds": thresholds.section,
    "scales": scales.section,
    "published": published.section,
    "selection": selection.section,
    "differences": paired.section,
    "activation": activation.section,
    "regions": regions.section,
    "classification": classification.section,
    "faithfulness": faithfulness.section,
    "gallery": gallery.section,
}
"""Name of a section, of its template and of its anchor -> what makes it, in reading order; left out where it makes nothing."""
