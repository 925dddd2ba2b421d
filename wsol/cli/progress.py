"""How far a verb is: a bar on a terminal, in a log file a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO, TypeVar

T = TypeVar("T")

EVERY = 30.0
"""Seconds between two lines of a log, at least: work of a day leaves some thousand lines at most, work of a minute one or two."""


def progress(items: Sequence[T], title: str, *, stream: TextIO | None = None, every: float = EVERY) -> Iterator[T]:
    """The items, with a bar on a terminal; elsewhere a line each `every` seconds, and one at the end if there was one before.

    Args:
        items: what is worked on.
        title: what is done, e.g. "localize test".
        stream: where it is said; standard error by default.
        every: seconds between two lines.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, title, console=Console(file=stream))
        return
    start = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - said >= every:
            left = (now - start) / done * (len(items) - done)
            print(f"{title}: {done} of {len(items)}, {now - start:.0f} s, about {left:.0f} s left", file=stream, flush=True)
            said = now
        yield item
    if said > start:
        print(f"{title}: {len(items)} of {len(items)}, {time.monotonic() - start:.0f} s", file=stream, flush=True)
