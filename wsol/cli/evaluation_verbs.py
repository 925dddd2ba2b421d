"""The doors of the verbs that make numbers: evaluate, probe, audit, compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from wsol._names import closest
from wsol.cli.schema import Evaluate, Probe, Section, Source

ManifestPath = Annotated[
    Path | None, typer.Option(help="manifest.parquet written by `wsol prepare`", exists=True, dir_okay=False)
]
MasksPath = Annotated[Path | None, typer.Option(help="masks.parquet written by `wsol prepare`", exists=True, dir_okay=False)]
Settings = Annotated[
    str, typer.Option(help="settings as JSON text, or the path of a JSON or YAML file; see docs/configuration.md")
]
Threads = Annotated[int, typer.Option(help="CPU threads for tensor work", min=1)]


def attach(app: typer.Typer, section: Callable[[type[Section], str], Any]) -> None:
    """Add these verbs to the command line; `section` reads settings against a schema."""
    _evaluate(app, section)
    _probe(app, section)
    app.command("audit")(audit_)
    app.command("compare")(compare_)


def _evaluate(app: typer.Typer, section: Callable[[type[Section], str], Any]) -> None:
    @app.command("evaluate")
    def evaluate_(
        manifest: ManifestPath = None,
        masks: MasksPath = None,
        maps: Annotated[Path | None, typer.Option(help="maps of the split: a file, or a folder with one file per slide")] = None,
        validation: Annotated[Path | None, typer.Option(help="maps of the validation split, for threshold and scale")] = None,
        record: Annotated[Path | None, typer.Option(help="run.json of the training run, or the floors' JSON")] = None,
        key: Annotated[str, typer.Option(help="JSON with dataset, model, fold, seed, checkpoint, set, split, or its file")] = "",
        scores: Annotated[Path | None, typer.Option(help="where to write scores.json")] = None,
        curves: Annotated[Path | None, typer.Option(help="where to write the per-sample counts (parquet)")] = None,
        settings: Settings = "{}",
        frozen: Annotated[Path | None, typer.Option(help="elsewhere: scores.json whose scale and threshold are kept")] = None,
        sheet: Annotated[Path | None, typer.Option(help="elsewhere: sample sheet (CSV); every row is scored")] = None,
        model: Annotated[Path | None, typer.Option(help="elsewhere: the checkpoint (.safetensors) of those scores")] = None,
        out: Annotated[Path | None, typer.Option(help="elsewhere: folder for manifest, maps and scores")] = None,
        method: Annotated[str | None, typer.Option(help="elsewhere: the map to draw; by default the only one")] = None,
        source: Annotated[str, typer.Option(help="elsewhere: images or slides")] = "images",
        threads: Threads = 1,
    ) -> None:
        """Score maps over all thresholds, with intervals by patient and a badge on every number.

        As a step of the workflow: --manifest --masks --maps --validation --record --key --scores --curves.

        On an external cohort, a frozen model with its frozen threshold (docs/how-to/evaluate-elsewhere.md):

        Example: wsol evaluate --frozen scores.json --model b-cl.safetensors --sheet other.csv --out elsewhere
        """
        if frozen is not None:
            from wsol.cli.external import evaluate_external

            given = _needed(sheet=sheet, model=model, out=out)
            evaluate_external(frozen=frozen, method=method, source=source, threads=threads, **given)
            typer.echo(f"scores: {given['out'] / 'scores.json'}", err=True)
            return
        from wsol.cli.evaluate import evaluate
        from wsol.cli.files import read_settings

        given = _needed(
            manifest=manifest, masks=masks, maps=maps, validation=validation, record=record, scores=scores, curves=curves
        )
        evaluate(section(Evaluate, settings), key=read_settings(key, "--key") if key else _missing("key"), **given)


def _needed(**given: Any) -> dict[str, Any]:
    """The options that this use of a verb cannot do without."""
    if missing := [f"--{name}" for name, value in given.items() if value is None]:
        raise ValueError(f"missing {', '.join(missing)}; `wsol evaluate --help` shows both uses of the verb")
    return given


def _missing(name: str) -> Any:
    raise ValueError(f"missing --{name}; `wsol evaluate --help` shows both uses of the verb")


def _probe(app: typer.Typer, section: Callable[[type[Section], str], Any]) -> None:
    @app.command("probe")
    def probe_(
        model: Annotated[Path, typer.Option(help="checkpoint (.safetensors)", exists=True)],
        manifest: Annotated[Path, typer.Option(help="manifest.parquet written by `wsol prepare`", exists=True, dir_okay=False)],
        out: Annotated[Path, typer.Option(help="where to write what was found (JSON)")],
        key: Annotated[str, typer.Option(help="JSON with dataset, model, fold, seed, checkpoint, set, split, or its file")],
        settings: Settings = "{}",
        masks: MasksPath = None,
        tiles: Annotated[Path | None, typer.Option(help="folder of tile tables (slide datasets)")] = None,
        shuffled: Annotated[Path | None, typer.Option(help="checkpoint of the same model trained on shuffled labels")] = None,
        threads: Threads = 1,
    ) -> None:
        """Ask the network about its maps: faithfulness (pixels taken away) and sanity (weights randomized, labels shuffled).

        Masks are opened only for pointing games, and the result says how many.

        Example: wsol probe --model b-cl.safetensors --manifest m.parquet --settings probe.json --key key.json --out out.json
        """
        from wsol.cli.files import read_settings
        from wsol.cli.probe import probe

        given, about = read_settings(settings, "--settings"), read_settings(key, "--key")
        drawn: dict[str, Any] = {name: given.pop(name) for name in ("methods", "map_class", "device") if name in given}
        checked = section(Probe, json.dumps(given)).model_dump(exclude={"shuffled"})
        probe(
            {**checked, **drawn}, model=model, manifest=manifest, masks=masks, key=about, out=out,
            shuffled=shuffled, tiles=tiles, threads=threads,
        )  # fmt: skip


def audit_(
    manifest: ManifestPath = None,
    masks: Annotated[Path | None, typer.Option(help="masks.parquet of `wsol prepare`; with --sheet: a folder of masks")] = None,
    scores: Annotated[list[Path] | None, typer.Option(help="scores.json; give the option once per file")] = None,
    results: Annotated[Path | None, typer.Option(help="folder of the results, where maps and training records are")] = None,
    ledger: Annotated[Path | None, typer.Option(help="CSV with the looks at the test set")] = None,
    sheet: Annotated[Path | None, typer.Option(help="of another tool: CSV, see docs/how-to/audit.md")] = None,
    maps: Annotated[Path | None, typer.Option(help="of another tool: folder of maps named after their samples")] = None,
    out: Annotated[Path | None, typer.Option(help="where to write the findings (JSON)")] = None,
    samples: Annotated[int, typer.Option(help="maps read per method, and masks", min=1)] = 64,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 if there is an error among the findings")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON, for scripts")] = False,
) -> None:
    """Look for the field's known sins: leaks, thresholds from test masks, maps of the true class, missing masks, missing floors.

    Example, of a study: wsol audit --manifest m.parquet --masks k.parquet --results results --scores a/scores.json

    Example, of any other tool: wsol audit --sheet sheet.csv --maps maps/ --masks masks/
    """
    from wsol.cli.audit import audit, audit_foreign, render

    if sheet is not None:
        found = audit_foreign(sheet=sheet, maps=maps, masks=masks, out=out, samples=samples)
    elif manifest is not None:
        found = audit(
            scores=scores or [], manifest=manifest, masks=masks, results=results, ledger=ledger, out=out, samples=samples
        )
    else:
        raise ValueError("give --manifest (a study) or --sheet (results of another tool)")
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else render(found))
    if strict and any(f.severity == "error" for f in found):
        raise typer.Exit(1)


def compare_(
    sheet: Annotated[Path, typer.Option(help="CSV: sample, patient, label, mask, split (val, test); maybe path", exists=True)],
    maps: Annotated[list[str], typer.Option(help="NAME=FOLDER of maps, or of a map file (.h5); once per tool")],
    out: Annotated[Path, typer.Option(help="folder for scores.json, curves.parquet, differences.csv")],
    split: Annotated[str, typer.Option(help="test or valcl")] = "test",
    scale: Annotated[str | None, typer.Option(help="fitted, none, probability; by default fitted with val rows")] = None,
    threshold: Annotated[str, typer.Option(help="auto, validation-masks, otsu, per-image-otsu, fixed ...")] = "auto",
    fixed: Annotated[float, typer.Option(help="the threshold when --threshold fixed", min=0, max=1)] = 0.5,
    protocol: Annotated[str, typer.Option(help="ours, or survey (allows --scale per-image)")] = "ours",
    reference: Annotated[str | None, typer.Option(help="NAME that the others are compared with; by default the first")] = None,
    negative: Annotated[list[str] | None, typer.Option(help="label whose samples hold nothing to find; repeatable")] = None,
    kind: Annotated[str, typer.Option(help="what the column path holds: images or slides")] = "images",
    floors: Annotated[bool, typer.Option(help="score maps that need no tool too")] = True,
    bootstrap: Annotated[int, typer.Option(help="replicates of the bootstrap over patients", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="of bootstrap and random floor", min=0)] = 0,
) -> None:
    """Score maps that any tool drew (npy, npz, TIFF, PNG, QuPath GeoJSON) and compare them in pairs, per patient.

    Example: wsol compare --sheet sheet.csv --maps theirs=heatmaps/ --maps ours=maps.h5 --out compared
    """
    from wsol.cli.compare import compare
    from wsol.cli.report import table

    if threshold not in (known := ["auto", *get_args(Source)]):
        raise ValueError(closest("threshold", threshold, known))
    named: dict[str, str] = {}
    for word in maps:
        name, sign, place = word.partition("=")
        if not sign or not name:
            raise ValueError(f"--maps {word!r}: NAME=FOLDER expected, e.g. --maps theirs=heatmaps/")
        if name in named:
            raise ValueError(f"--maps: the name {name!r} is given twice; each tool needs its own")
        named[name] = place
    compare(
        sheet=sheet, maps=named, out=out, split=split, protocol=protocol, scale=scale, threshold=threshold, fixed=fixed,
        negative=negative or [], with_floors=floors, reference=reference or next(iter(named)), kind=kind, bootstrap=bootstrap,
        seed=seed,
    )  # fmt: skip
    files = [path for path in (out / "scores.json", out / "floors" / "scores.json") if path.is_file()]
    typer.echo(table(files, split))
