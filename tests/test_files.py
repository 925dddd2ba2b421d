"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from wsol._files import atomic


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "said",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Error writing bytes to file"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_names_the_file_that_was_being_written(tmp_path, said):
    with pytest.raises(OSError, match=r"maps\.h5") as error, atomic(tmp_path / "maps.h5"):
        raise said
    assert error.value.errno == (getattr(said, "errno", None) or errno.ENOSPC)
    assert (error.value.filename, error.value.__cause__) == (str(tmp_path / "maps.h5"), said)
    assert list(tmp_path.iterdir()) == []


def test_where_the_disk_is_full_whatever_the_writer_says_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left"), atomic(tmp_path / "b.pt"):
        raise RuntimeError("unexpected pos 704 vs 598")
    monkeypatch.undo()
    for said in (RuntimeError("unexpected pos 704 vs 598"), PermissionError(13, "Permission denied", "elsewhere")):
        with pytest.raises(type(said)) as error, atomic(tmp_path / "b.pt"):
            raise said
        assert error.value is said


def test_what_a_killed_writer_left_goes_and_what_others_write_stays(tmp_path):
    path = tmp_path / "a[1].txt"
    killed = (
        "import os, sys; from wsol._files import atomic\n"
        "with atomic(sys.argv[1]) as temporary: temporary.write_text('x'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    other, living = tmp_path / ".b.4194304.part.txt", tmp_path / f".a[1].{os.getppid()}.part.txt"
    for file in (other, living):
        file.write_text("")
    with atomic(path) as temporary:
        temporary.write_text("whole")
    assert set(tmp_path.iterdir()) == {path, other, living}
