"""The doors of the verbs that need no study: new, doctor, predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


def attach(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    for name, verb in VERBS.items():
        app.command(name)(verb)


def predict_(
    slide: Annotated[Path, typer.Argument(help="a slide that OpenSlide reads, an OME-TIFF, a DICOM file, or a plain image")],
    model: Annotated[Path, typer.Option(help="checkpoint (.safetensors); its .json stands beside it", exists=True)],
    out: Annotated[Path | None, typer.Option(help="folder of the results; predict/NAME by default")] = None,
    scores: Annotated[
        Path | None, typer.Option(help="scores.json of an evaluation of this model: its scale and threshold are kept")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="with --scores: id of a map in it; else of `wsol list cams`, by default cam")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--class", help="whose map is drawn; by default the declared positive class's")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="slides (cut into tiles) or images (as they are); by default PNG, JPEG, BMP are images")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="um per px, where the file does not say, or says it wrong", min=0.02)] = None,
    memory_mb: Annotated[int, typer.Option(help="memory that drawing a slide may take, beside some 650 MB", min=64)] = 2048,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda[:n]")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads for tensor work", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Class probabilities and a heat map of one slide or image, without a study.

    Without --scores the colors span the map's own range: they say where, not how much, and nothing is outlined.

    Example: wsol predict slide.svs --model run/b-cl.safetensors --scores scores.json --method cam --out predicted
    """
    from wsol.cli.predict import predict

    found = predict(
        slide, model=model, out=out, scores=scores, method=method, target=target, kind=kind, mpp=mpp, memory_mb=memory_mb,
        device=device, threads=threads,
    )  # fmt: skip
    typer.echo(json.dumps(found, indent=1) if as_json else _told(found))


def _told(found: dict[str, Any]) -> str:
    """A prediction in a few lines."""
    drawn, predicted = found["map"], found["predicted"]
    named = predicted if isinstance(predicted, str) else ", ".join(predicted) or "none"
    lines = [f"{found['file']}: {named}"]
    lines += [f"  {name:<16} {share:.4f}" for name, share in found["probabilities"].items()]
    words = f"map: {drawn['method']} of {drawn['class']}; scale: {drawn['scale']}; "
    if drawn["threshold"] is None:
        words += "no threshold is known, so nothing is outlined"
    else:
        words += f"threshold: {drawn['threshold']:.3f} ({drawn['threshold_source']}); {found['flagged_area']:.1%} of the file"
    return "\n".join([*lines, words, *(f"  {kind:<10} {path}" for kind, path in found["files"].items())])


def new_(
    study: Annotated[Path, typer.Argument(help="folder to make; its name becomes that of the dataset")],
    slides: Annotated[Path, typer.Option(help="folder of slides or images, looked through with all folders in it")],
    labels: Annotated[Path, typer.Option(help="CSV: a column of files, one `label`; maybe patient, mpp, split, mask")],
    masks: Annotated[Path | None, typer.Option(help="folder of masks named like their slides", exists=True)] = None,
    positive: Annotated[str | None, typer.Option(help="label whose maps are drawn, such as tumor")] = None,
    mpp: Annotated[float | None, typer.Option(help="um per px of slides whose files do not say it", min=0.02)] = None,
    skip: Annotated[bool, typer.Option("--skip", help="leave out what cannot be matched or opened, instead of stopping")] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite the study that is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a study of a folder of slides and a CSV of labels: a commented configuration and a checked sample sheet.

    Every file is opened, resolutions are read, labels matched to files, patients and classes counted, and the study is rehearsed
    as by `wsol config`. What is wrong is said all at once, and nothing is written then.

    Example: wsol new my-study --slides slides --labels labels.csv
    """
    from wsol.cli.new import SHOWN, new

    made = new(study, slides=slides, labels=labels, masks=masks, positive=positive, mpp=mpp, skip=skip, force=force)
    if as_json:
        typer.echo(json.dumps(made, indent=1))
        return
    for kind, words in (("left out", made["left_out"]), ("note", made["notes"])):
        for text in words[:SHOWN]:
            typer.echo(f"{kind}: {text}", err=True)
        if len(words) > SHOWN:
            typer.echo(f"{kind}: and {len(words) - SHOWN} more; --json lists all", err=True)
    counts = ", ".join(f"{count} {label}" for label, count in made["classes"].items())
    typer.echo(f"{made['study']}: {made['samples']} {made['kind']} ({counts}) of {made['patients'] or 'unknown'} patients; run")
    typer.echo(f"  {made['next']}")


def doctor_(
    results: Annotated[Path, typer.Option(help="folder of the results, for disk, access and database")] = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Say what is missing on this machine, with remedies; exit code 1 if something is without which nothing works.

    Where even this command does not start: python -m wsol.cli.doctor

    Example: wsol doctor --json
    """
    from dataclasses import asdict

    from wsol.cli.doctor import code, examine, render

    checks = examine(results)
    typer.echo(json.dumps([asdict(c) for c in checks], indent=1) if as_json else render(checks))
    raise typer.Exit(code(checks))


VERBS: dict[str, Callable[..., None]] = {"new": new_, "doctor": doctor_, "predict": predict_}
