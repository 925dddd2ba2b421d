"""One process at a time in a folder: a lock that the system takes back when its holder dies, however it dies.

A Snakemake that was killed leaves its jobs running; the same command then starts a second training beside the first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

NAME = ".lock"


@contextmanager
def in_turn(folder: Path, waits: Callable[[str], None]) -> Iterator[None]:
    """Hold `folder` (made where it is missing) for this process; wait where another holds it.

    Args:
        folder: what is held, by a file `.lock` in it that is gone afterwards, and so is a folder that is empty then.
        waits: told in words before a wait; again where a third comes first.
    """
    path = folder / NAME
    with _locked(path, waits) as lock:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # nothing was written
                folder.rmdir()


def _locked(path: Path, waits: Callable[[str], None]) -> TextIO:
    """The file at `path`, open and locked."""
    import fcntl

    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # the one before may have left nothing
        try:
            lock = open(path, "a+")  # noqa: SIM115 (closing it lets go)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            waits(f"process {lock.read().strip() or '?'} works in {path.parent}: waiting for its end; stop it to go on at once")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is(path, lock.fileno()):
            return lock
        lock.close()  # the one before took its file away: lock the new one


def _is(path: Path, descriptor: int) -> bool:
    """Whether the file at `path` is the open one."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
