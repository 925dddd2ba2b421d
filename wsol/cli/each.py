"""`wsol each`: one verb for several slides, one after another, in one process."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Annotated

import typer

from wsol.cli.files import write_json
from wsol.cli.progress import progress

PLACE = "@slide"
"""Stands for the name of the slide in the words of the verb."""


def attach(app: typer.Typer) -> None:
    """Add the verb to the command line, whose verbs it runs."""

    def each_(
        slides: Annotated[str, typer.Option(help="JSON list of names")],
        done: Annotated[Path, typer.Option(help="JSON list of the slides that are done, written when all are")],
        verb: Annotated[list[str], typer.Argument(help=f"a verb with its options, {PLACE} where the slide's name belongs")],
    ) -> None:
        """Run a verb for each of several slides in one process: the libraries are loaded once. The first error ends it.

        Example: wsol each --slides '["s1", "s2"]' --done d.json -- tile --manifest m.parquet --slide @slide --out @slide.parquet
        """
        each(app, _names(slides), verb, done=done)

    app.command("each")(each_)


def each(app: typer.Typer, slides: list[str], words: list[str], *, done: Path) -> None:
    """Run `words` of the command line `app` for each slide, `PLACE` being its name; then write the names to `done`.

    Raises:
        ValueError: the slide's name stands nowhere in the words, so that all slides would write the same files.
        Whatever the verb raises for a slide; `done` is not written then.
    """
    if not any(PLACE in word for word in words):
        raise ValueError(f"{PLACE} stands nowhere in {' '.join(words)!r}: each slide would be worked on the same way")
    done.unlink(missing_ok=True)
    command = typer.main.get_command(app)
    for slide in progress(slides, " ".join(["wsol", words[0]])):
        code = command.main([word.replace(PLACE, slide) for word in words], prog_name="wsol", standalone_mode=False)
        if code:
            raise typer.Exit(code)
        gc.collect()  # nets and tables of the last slide, which refer to themselves, are not to add up
    write_json(done, slides)


def _names(text: str) -> list[str]:
    try:
        names = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--slides: expected a JSON list of names, got {text!r} ({error})") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"--slides: expected a JSON list of one name or more, got {text!r}")
    return names
