"""Zips of downloads: what comes out of them is whole, that of the archive, and never in the place of somebody's own files."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile

import pytest

from wsol.data import download


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # without the hour
    return packed.getvalue()


@pytest.fixture
def fetch_zip(server, tmp_path):
    def run(files):
        server.files["set.zip"] = zipped(files)
        download(
            server.offers(f"sha256:{hashlib.sha256(server.files['set.zip']).hexdigest()}", name="set.zip"),
            tmp_path / "in",
        )
        return {
            p.relative_to(tmp_path / "in").as_posix(): p.read_text()
            for p in sorted((tmp_path / "in").rglob("*"))
            if p.is_file() and ".zip" not in p.name
        }

    return run


def test_zips_are_unpacked_once(fetch_zip, tmp_path):
    files = {"set/a.txt": "a", "../outside.txt": "b"}
    assert fetch_zip(files) == {"outside.txt": "b", "set/a.txt": "a"}
    assert not (tmp_path / "outside.txt").exists()
    (tmp_path / "in" / "set" / "a.txt").write_text("mine")
    assert fetch_zip(files)["set/a.txt"] == "mine"


def test_what_is_gone_is_unpacked_again_and_nothing_else(fetch_zip, tmp_path):
    files = {"set/a.txt": "a", "set/b/b.txt": "b"}
    fetch_zip(files)
    (tmp_path / "in" / "set" / "a.txt").write_text("mine")
    (tmp_path / "in" / "set" / "b" / "b.txt").unlink()
    (tmp_path / "in" / "set" / "own.txt").write_text("own")
    assert fetch_zip(files) == {"set/a.txt": "mine", "set/b/b.txt": "b", "set/own.txt": "own"}


def test_another_archive_replaces_what_came_out_of_the_one_before(fetch_zip, tmp_path):
    fetch_zip({"set/a.txt": "a", "set/old.txt": "old"})
    (tmp_path / "in" / "set" / "own.txt").write_text("own")
    assert fetch_zip({"set/a.txt": "new", "set/c.txt": "c"}) == {"set/a.txt": "new", "set/c.txt": "c", "set/own.txt": "own"}


def test_files_that_did_not_come_out_of_an_archive_stay(fetch_zip, tmp_path):
    (tmp_path / "in" / "set").mkdir(parents=True)
    (tmp_path / "in" / "set" / "a.txt").write_text("my own work")
    with pytest.raises(ValueError, match=r"set/a\.txt \(1 such files\) is there, did not come out of this archive.*move it away"):
        fetch_zip({"set/a.txt": "a", "set/b.txt": "b"})
    assert (tmp_path / "in" / "set" / "a.txt").read_text() == "my own work"
    assert not (tmp_path / "in" / "set" / "b.txt").exists()
    (tmp_path / "in" / "set" / "a.txt").write_text("a")  # unpacked by hand: the same
    assert fetch_zip({"set/a.txt": "a", "set/b.txt": "b"}) == {"set/a.txt": "a", "set/b.txt": "b"}


def test_unpacking_that_died_goes_on(fetch_zip, tmp_path, monkeypatch):
    files, replace = {"set/a.txt": "a", "set/b.txt": "b"}, os.replace

    def dies(source, target):
        if str(target).endswith("b.txt"):
            raise KeyboardInterrupt
        replace(source, target)

    fetch_zip({"set/a.txt": "old"})
    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        fetch_zip(files)
    monkeypatch.undo()
    assert fetch_zip(files) == files


def test_a_zip_that_is_none_is_named(server, tmp_path):
    server.files["set.zip"] = b"<html>please log in</html>"
    with pytest.raises(ValueError, match=r"set\.zip: no zip archive .*delete it and set\.zip\.sha256"):
        download(server.offers(name="set.zip"), tmp_path)
