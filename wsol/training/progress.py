"""What one sees while a net trains: a bar on a terminal, one line per epoch in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsol.training.history import Row

if TYPE_CHECKING:
    from rich.progress import Progress


class Display:
    """Lines on standard error; the base is the log, `Bar` the terminal."""

    def __init__(self, epochs: int, lines: bool = True) -> None:
        self.epochs = epochs
        self.lines = lines

    def say(self, text: str) -> None:
        """A message that is never left out."""
        print(text, file=sys.stderr, flush=True)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """One training step is done."""

    def epoch(self, row: Row) -> None:
        """One epoch is done."""
        if self.lines:
            self.say(line(row, self.epochs))


class Bar(Display):
    """A bar per training, moving by steps, and the epochs' lines above it."""

    def __init__(self, epochs: int, bar: Progress) -> None:
        super().__init__(epochs)
        self.bar = bar
        self.task = bar.add_task("training", total=None)

    def say(self, text: str) -> None:
        """Print above the bar."""
        self.bar.console.print(text, markup=False, highlight=False)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        text = f"epoch {epoch}/{self.epochs}  loss {loss:.4f}"
        self.bar.update(self.task, total=steps * self.epochs, completed=(epoch - 1) * steps + step, description=text)


@contextmanager
def display(epochs: int, progress: bool | None) -> Iterator[Display]:
    """True: a bar; False: messages only; None: a bar on a terminal, else one line per epoch."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield Display(epochs, lines=progress is None)
        return
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        *Progress.get_default_columns()[:2], TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        yield Bar(epochs, bar)


def line(row: Row, epochs: int) -> str:
    """A row of the history as one line of text."""
    rest = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "seconds"))
    return f"epoch {row['epoch']:.0f}/{epochs}  {rest}  ({row['seconds']:.1f} s)"
