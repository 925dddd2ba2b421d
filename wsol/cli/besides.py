"""The verbs beside the line: tables, lists, checks, and where things are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wsol.cli.config import ConfigError, load_config
from wsol.cli.reference import reference


def attach(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    for name, verb in VERBS.items():
        app.command(name)(verb)


def table_(
    scores: Annotated[list[Path], typer.Argument(help="scores.json files", exists=True)],
    split: Annotated[str, typer.Option(help="valcl or test")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="a JSON list, an object per row: fractions, with intervals")] = False,
) -> None:
    """Print the leaderboard of some score files as Markdown, in percent.

    Example: wsol table results/evaluate/glas/*/fold0/seed0/*/*/test/scores.json
    """
    from wsol.cli.report import records, table

    typer.echo(json.dumps(records(scores, split), indent=1) if as_json else table(scores, split))


def list_(
    what: Annotated[str, typer.Argument(help="backbones, heads, cams, strategies, metrics, sources or floors")],
    as_json: Annotated[bool, typer.Option("--json", help="a JSON list of objects with name, paper, summary")] = False,
) -> None:
    """Print what there is to choose from, each with its options, their defaults and what they mean.

    Example: wsol list cams --json
    """
    from wsol.cli.catalog import catalog

    rows = catalog(what)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    width = max(len(r["name"]) for r in rows)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['summary']}" + (f"  [{row['paper']}]" if row["paper"] else ""))
        for option, default in row.get("options", {}).items():
            value = " (required)" if default == "required" else f"={json.dumps(default)}"
            typer.echo(f"{'':<{width}}    {option}{value}  {row['meanings'][option]}".rstrip())


def config_(
    file: Annotated[Path | None, typer.Argument(help="a study to check")] = None,
    show_reference: Annotated[bool, typer.Option("--reference", help="print the configuration reference (Markdown)")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print what was found as JSON; the exit code stays")] = False,
) -> None:
    """Check a study, or print the reference of all keys.

    Nothing is run or written: samples are listed, and every model is built with random weights, takes a step on noise and draws a
    map, about a second each. All that would fail is listed at once.

    Example: wsol config my-study/study.yaml
    """
    if show_reference:
        typer.echo(reference())
    elif file is not None:
        _rehearse(file, as_json)
    else:
        raise ValueError("name a file to check, or give --reference")


def _rehearse(file: Path, as_json: bool) -> None:
    """Says whether a study would run; exit code 1 if not."""
    from wsol.cli.rehearsal import rehearse

    grid: dict[str, list[Any]] = {}
    try:
        study = load_config(file)
        findings = rehearse(study)
        grid = {"models": list(study.models), "maps": list(study.maps), "folds": study.folds, "seeds": study.seeds}
    except ConfigError as error:
        if not as_json:
            raise
        findings = error.findings
    if as_json:
        typer.echo(json.dumps({"file": str(file), "good": not findings, "findings": findings, **grid}, indent=1))
        raise typer.Exit(int(bool(findings)))
    if findings:
        raise ConfigError(str(file), findings)
    typer.echo(f"{file}: good; {len(study.models)} models, {len(study.maps)} map sets, folds {study.folds}, seeds {study.seeds}")


def where_(
    config: Annotated[Path, typer.Option(help="the study")] = Path("configs/demo.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object: what -> path")] = False,
) -> None:
    """Say where the report, the heat maps and the dashboard of a study are.

    Example: wsol where --config my-study/study.yaml
    """
    from wsol.cli.report import where

    found = where(load_config(config))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    beside = {"heat maps": "/   (overlay .png, QuPath .geojson, pyramidal .ome.tiff)"}
    typer.echo("\n".join(["", *(f"{what:<12} {path}{beside.get(what, '')}" for what, path in found.items())]))
    typer.echo(f"{'dashboard':<12} make dashboard   (or: wsol dashboard), then open the address it prints")


def faults_(
    tiles: Annotated[Path, typer.Option(help="folder of tile tables and statuses of the dataset", exists=True)],
    scores: Annotated[list[Path] | None, typer.Option(help="scores.json; give the option once per file")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="a slide that is known to be unusable; once per slide")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON of the records, written where all are accepted")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the records as JSON; the exit code stays")] = False,
) -> None:
    """List the slides of a study that could not be read or had no tissue; exit code 1 where there are some.

    Example: wsol faults --tiles results/tile/mine
    """
    from wsol.cli.faults import faults, unaccepted
    from wsol.cli.files import read_json, write_json

    statuses = [read_json(path) for path in sorted(tiles.glob("*.json"))]
    found = faults(statuses, map(read_json, scores or []))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    for one in [] if as_json else found:
        typer.echo(f"{one['slide']}: {one['status']}: {one['reason']}", err=True)
    left = [one["slide"] for one in unaccepted(found, accept or [], statuses)]
    if left:
        raise RuntimeError(
            f"{len(left)} of {len(statuses)} slides gave nothing and are left out: {', '.join(left)}; all else is done. Repair "
            "them, take them out of the sample sheet, or name them in `report.accepted`"
        )
    if out is not None:
        write_json(out, found)


def fetch_(
    name: Annotated[str, typer.Argument(help="glas, cmu-1-small-region or camelyon16-sample")],
    out: Annotated[Path, typer.Option(help="folder for the files")],
    accept_license: Annotated[bool, typer.Option("--accept-license", help="agree without being asked")] = False,
    mirror: Annotated[str | None, typer.Option(help="URL of another folder that holds the same files")] = None,
    checksum: Annotated[list[str] | None, typer.Option(help="NAME=sha256:HEX of a file, instead of ours")] = None,
) -> None:
    """Download a public data set: its license first, checksums after; a download that broke off goes on.

    Example: wsol fetch cmu-1-small-region --out data/slides
    """
    from wsol.cli.fetch import fetch

    def ask(question: str) -> bool:
        try:
            return typer.confirm(question)
        except typer.Abort:  # nobody is there to answer
            return False

    fetch(name, out=out, accept_license=accept_license, ask=ask, say=typer.echo, mirror=mirror, checksums=checksum or [])


def embed_(
    manifest: Annotated[Path, typer.Option(help="manifest.parquet written by `wsol prepare`", exists=True, dir_okay=False)],
    slide: Annotated[str, typer.Option(help="name of the slide in the manifest")],
    tiles: Annotated[Path, typer.Option(help="its tile table, of `wsol tile`", exists=True)],
    out: Annotated[Path, typer.Option(help="file of features (HDF5): features, coords, as TRIDENT writes them")],
    backbone: Annotated[str, typer.Option(help="`wsol list backbones`")] = "efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="imagenet, or a file with the backbone's weights")] = "imagenet",
    model: Annotated[Path | None, typer.Option(help="a checkpoint whose backbone is taken instead", exists=True)] = None,
    output_stride: Annotated[int, typer.Option(help="px per cell of the last stage, over which the mean is taken")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda[:n]")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads for tensor work", min=1)] = 1,
) -> None:
    """Write the features of the tiles of one slide, for models with `backbone: stored:WIDTH` and for other tools.

    Example: wsol embed --manifest m.parquet --slide s1 --tiles tiles/s1.parquet --out features/s1.h5
    """
    from wsol.cli.embed import embed

    found = embed(
        manifest=manifest, slide=slide, tiles=tiles, out=out, backbone=backbone, weights=weights, model=model,
        output_stride=output_stride, device=device, threads=threads,
    )  # fmt: skip
    typer.echo(f"{out}: {found}", err=True)


VERBS: dict[str, Callable[..., None]] = {
    "table": table_,
    "list": list_,
    "config": config_,
    "where": where_,
    "faults": faults_,
    "fetch": fetch_,
    "embed": embed_,
}
