"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LEAST = 64 * 1024
"""Bytes below which a disk is full: libraries that write by themselves say of it what they like."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and vanishes when it does not.

    What a writer of the same file left behind when it was killed goes, too: a run after a kill leaves nothing over. Each output
    has one writer at a time.

    Args:
        path: the file to be; folders above it are made.

    Raises:
        OSError: the disk is full, or the quota spent; `filename` is that of the file to be, whatever the writer said.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.part{glob.escape(path.suffix)}"):
        if not _alive(left.name.removesuffix(f".part{path.suffix}").rpartition(".")[2]):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        if number := _full(error, path.parent):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _full(error: Exception, folder: Path) -> int:
    """The number of the error where it is one of a full disk, else 0."""
    if isinstance(error, OSError) and error.errno in FULL:
        return int(error.errno or 0)
    said = next((number for number in FULL if os.strerror(number) in str(error)), 0)
    return said or (errno.ENOSPC if shutil.disk_usage(folder).free < LEAST else 0)


def _alive(pid: str) -> bool:
    """Whether a process of this machine has the number, or the text is none."""
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
