"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys

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
