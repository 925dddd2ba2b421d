"""The command line: one verb per step of the workflow, and a few beside it. Every verb is a thin door to a file of this room."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from wsol import __version__
from wsol.cli import alone_verbs, besides, each, evaluation_verbs, tracking_verbs
from wsol.cli.config import ConfigError, parse
from wsol.cli.files import read_settings
from wsol.cli.schema import Heatmap, MapClass, Prepare, Section, Tile

app = typer.Typer(
    name="wsol",
    help="Weakly-supervised localization for histology: from slide labels to maps, and to numbers that can be trusted.\n\n"
    "Most users run the whole line with `snakemake --cores 2 --configfile my-study.yaml`; each verb below is one step of it.\n\n"
    "Start: `wsol doctor`, then `wsol new my-study --slides slides --labels labels.csv`.",
    epilog="Exit codes: 0 done; 1 wrong input, or a check that says no (its message says what to do); 2 wrong command line; 3 "
    "MLflow does not answer (results stand, log again); 130 interrupted. Messages go to standard error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ManifestPath = Annotated[Path, typer.Option(help="manifest.parquet written by `wsol prepare`", exists=True, dir_okay=False)]
MasksPath = Annotated[Path, typer.Option(help="masks.parquet written by `wsol prepare`", exists=True, dir_okay=False)]
Settings = Annotated[
    str, typer.Option(help="settings as JSON text, or the path of a JSON or YAML file; see docs/configuration.md")
]
Fold = Annotated[int, typer.Option(help="fold of the split", min=0)]
Threads = Annotated[int, typer.Option(help="CPU threads for tensor work", min=1)]


def _settings(text: str) -> dict[str, Any]:
    """Settings from JSON text or from a file."""
    return read_settings(text, "--settings")


def _section(schema: type[Section], text: str) -> Any:
    return parse(schema, _settings(text), "--settings")


@app.command("prepare")
def prepare_(
    settings: Settings,
    manifest: Annotated[Path, typer.Option(help="where to write the manifest (parquet)")],
    masks: Annotated[Path, typer.Option(help="where to write the mask table (parquet)")],
    workers: Annotated[int, typer.Option(help="processes that draw phantom slides", min=1)] = 1,
) -> None:
    """List samples, labels and roles of a dataset; masks go to a table of their own.

    Example: wsol prepare --settings '{"name": "mine", "source": "slides", "options": {"sheet": "sheet.csv",
    "classes": ["normal", "tumor"]}}' --manifest m.parquet --masks k.parquet
    """
    from wsol.cli.prepare import prepare

    typer.echo(prepare(_section(Prepare, settings), manifest=manifest, masks=masks, workers=workers), err=True)


@app.command("tile")
def tile_(
    manifest: ManifestPath,
    slide: Annotated[str, typer.Option(help="name of the slide in the manifest")],
    out: Annotated[Path, typer.Option(help="tile table (parquet); status (.json) and thumbnail (.png) stand beside it")],
    settings: Settings = "{}",
    strict: Annotated[bool, typer.Option("--strict", help="a slide that gives no tile is an error, not a record")] = False,
    masks: Annotated[Path | None, typer.Option(help="masks.parquet, for `labels: annotation` only", exists=True)] = None,
) -> None:
    """Find tissue and cut one slide into tiles (coordinates only).

    A slide that cannot be read, or has no tissue, leaves an empty table and a status with the reason; the exit code is 0.

    Example: wsol tile --manifest m.parquet --slide s1 --settings '{"mpp": 1.0, "tile_px": 256}' --out s1.parquet
    """
    from wsol.cli.tile import tile

    found = tile(_section(Tile, settings), manifest=manifest, slide=slide, out=out, strict=strict, masks=masks)
    typer.echo(f"{slide}: {found['status']}: {found.get('tiles', 0)} tiles {found.get('reason') or ''}", err=True)


@app.command("train")
def train_(
    manifest: ManifestPath,
    settings: Settings,
    out: Annotated[Path, typer.Option(help="folder of the run: checkpoints, history.csv, run.json")],
    fold: Fold = 0,
    seed: Annotated[int, typer.Option(help="seed of the run", min=0)] = 0,
    tiles: Annotated[Path | None, typer.Option(help="folder of tile tables (slide datasets)")] = None,
    parent: Annotated[
        list[Path] | None,
        typer.Option(help="checkpoint to start from, or to learn maps from: once per model of `from`", exists=True),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="checkpoints to keep, with commas: see `checkpoints` in docs/configuration.md")
    ] = "b-cl",
    threads: Threads = 1,
    masks: Annotated[
        Path | None,
        typer.Option(help="masks.parquet, for a strategy that is supervised by masks or a checkpoint masks-<n>", exists=True),
    ] = None,
    map_class: Annotated[
        MapClass, typer.Option(help="whose map is looked at by checkpoints that look at maps, as in localize.map_class")
    ] = "positive",
) -> None:
    """Fit one localizer.

    Example: wsol train --manifest m.parquet --settings '{"head": "lse", "train": {"epochs": 12}}' --out run

    Killed at any moment (kill -9, a full disk, the end of a job), the same command goes on after the last whole epoch and ends
    with the weights of a run that nobody killed, to the bit on a CPU. Other settings, inputs or starting weights begin anew.

    Out of memory: halve batch_size and set accumulate: 2, which takes the same steps; `crop` changes what is learned.

    Several GPUs: set processes: 4, and start `torchrun --standalone --nproc-per-node 4 --no-python wsol train ...`. Each process
    takes its share of every batch, so batch_size and loss curve stay; the first one validates and writes.
    """
    from wsol.cli.train import train
    from wsol.cli.turns import in_turn

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, one stands for all
    with in_turn(out, lambda text: typer.echo(text, err=True)) if first else nullcontext():
        train(
            _settings(settings), manifest=manifest, out=out, fold=fold, seed=seed, tiles=tiles, parents=parent or [],
            keep=keep.split(","), threads=threads, masks=masks, map_class=map_class,
        )  # fmt: skip


@app.command("localize")
def localize_(
    model: Annotated[Path, typer.Option(help="checkpoint (.safetensors)", exists=True)],
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option(help="map file (HDF5)")],
    settings: Settings = '{"methods": [{"id": "cam", "method": "cam", "options": {}}]}',
    split: Annotated[str, typer.Option(help="train, valcl, valpx or test")] = "test",
    fold: Fold = 0,
    slide: Annotated[str | None, typer.Option(help="one slide of the split (slide datasets)")] = None,
    tiles: Annotated[Path | None, typer.Option(help="tile table of that slide")] = None,
    threads: Threads = 1,
) -> None:
    """Draw every method of a map set with one encode per image: raw, signed maps at feature resolution.

    Example: wsol localize --model run/b-cl.safetensors --manifest m.parquet --split test --out maps.h5
    """
    from wsol.cli.localize import localize

    localize(
        _settings(settings),
        model=model,
        manifest=manifest,
        out=out,
        split=split,
        fold=fold,
        slide=slide,
        tiles=tiles,
        threads=threads,
    )


@app.command("fit-floors")
def fit_floors_(
    manifest: ManifestPath,
    masks: MasksPath,
    out: Annotated[Path, typer.Option(help="the fitted pixel regression (JSON)")],
    fold: Fold = 0,
    mpp: Annotated[float, typer.Option(help="um per px for slides", min=0.05)] = 2.0,
    tiles: Annotated[Path | None, typer.Option(help="folder of tile tables (slide datasets)")] = None,
) -> None:
    """Fit the pixel regression on the few validation masks: the floor that labels alone should beat.

    Example: wsol fit-floors --manifest m.parquet --masks k.parquet --out floors.json
    """
    from wsol.cli.floors import fit_floors

    fit_floors(manifest=manifest, masks=masks, out=out, fold=fold, mpp=mpp, tiles=tiles)


@app.command("draw-floors")
def draw_floors_(
    model: Annotated[Path, typer.Option(help="JSON written by `wsol fit-floors`", exists=True)],
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option(help="map file (HDF5)")],
    split: Annotated[str, typer.Option(help="train, valcl, valpx or test")] = "test",
    fold: Fold = 0,
    slide: Annotated[str | None, typer.Option(help="one slide of the split (slide datasets)")] = None,
    seed: Annotated[int, typer.Option(help="seed of the random map", min=0)] = 0,
    mpp: Annotated[float, typer.Option(help="um per px for slides", min=0.05)] = 2.0,
    tiles: Annotated[Path | None, typer.Option(help="tile table of that slide")] = None,
) -> None:
    """Draw the maps that need no network: all-ones, random, hematoxylin, blue minus red, pixel regression.

    Example: wsol draw-floors --model floors.json --manifest m.parquet --split test --out floors.h5
    """
    from wsol.cli.floors import draw_floors

    draw_floors(model=model, manifest=manifest, out=out, split=split, fold=fold, slide=slide, seed=seed, mpp=mpp, tiles=tiles)


@app.command("heatmap")
def heatmap_(
    manifest: ManifestPath,
    maps: Annotated[Path, typer.Option(help="map file of `wsol localize`", exists=True)],
    scores: Annotated[Path, typer.Option(help="scores.json of `wsol evaluate`", exists=True)],
    out: Annotated[Path, typer.Option(help="index.json; pictures and vector files are written beside it")],
    masks: Annotated[Path | None, typer.Option(help="masks.parquet, to draw the outline of the truth")] = None,
    settings: Settings = "{}",
) -> None:
    """Overlay PNG, QuPath GeoJSON and pyramidal OME-TIFF of maps, at the threshold that `evaluate` chose.

    Example: wsol heatmap --manifest m.parquet --maps maps.h5 --scores scores.json --out heatmap/index.json
    """
    from wsol.cli.heatmap import heatmap

    heatmap(_section(Heatmap, settings), manifest=manifest, masks=masks, maps=maps, scores=scores, out=out)


@app.command("report")
def report_(
    scores: Annotated[list[Path], typer.Option(help="scores.json; give the option once per file")],
    out: Annotated[Path, typer.Option(help="the page (HTML); leaderboard.csv and differences.csv stand beside it")],
    results: Annotated[Path, typer.Option(help="folder of the results, where pictures, histories and statuses are found")] = Path(
        "results"
    ),
    title: Annotated[str, typer.Option(help="title of the page")] = "wsol",
    audit: Annotated[Path | None, typer.Option(help="findings of `wsol audit` (JSON)", exists=True)] = None,
    probes: Annotated[list[Path] | None, typer.Option(help="JSON of `wsol probe`; give the option once per file")] = None,
    pictures: Annotated[int, typer.Option(help="samples of each split that are shown with their maps", min=0)] = 48,
    command: Annotated[str, typer.Option(help="what the study was started with, for the provenance")] = "",
) -> None:
    """One self-contained HTML page: leaderboard, thresholds, differences, maps in a viewer, quality, costs, provenance.

    Example: wsol report --scores a/scores.json --scores b/scores.json --results results --out report/index.html
    """
    from wsol.cli.report import report

    report(scores, out=out, results=results, title=title, audit=audit, probes=probes or [], pictures=pictures, command=command)


evaluation_verbs.attach(app, _section)
besides.attach(app)
each.attach(app)
alone_verbs.attach(app)
tracking_verbs.attach(app)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: a wrong input ends in one clear line and an exit code, not in a traceback."""
    from wsol.tracking import TrackingError

    # The allocator that pyarrow brings keeps what it has freed: tens of MB more in a step that reads and writes method by method.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        app()
    except (ConfigError, ValueError, FileNotFoundError, RuntimeError) as error:
        if os.environ.get("WSOL_TRACEBACK"):
            raise
        print(f"wsol: error: {error}\n(set WSOL_TRACEBACK=1 for the traceback)", file=sys.stderr)
        sys.exit(3 if isinstance(error, TrackingError) else 1)
    except OSError as error:
        print(
            f"wsol: error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}; check the path, "
            "permissions and free space",
            file=sys.stderr,
        )
        sys.exit(1)
