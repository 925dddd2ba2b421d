"""Downloads against a server on the loopback that breaks off, changes its files, and knows ranges or does not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from wsol.cli.main import app
from wsol.data import COLLECTIONS, download
from wsol.data.downloads import CHUNK, Collection

DATA = np.random.default_rng(0).bytes(300_000)


def sha(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_broken_connection_goes_on_where_it_was(server, tmp_path):
    server.files["one.bin"], server.cuts = DATA, [CHUNK + 100, CHUNK]
    assert download(server.offers(sha(DATA)), tmp_path) == {"one.bin": sha(DATA)}
    assert (tmp_path / "one.bin").read_bytes() == DATA
    assert [span for _, span in server.asked] == [None, f"bytes={CHUNK}-", f"bytes={2 * CHUNK}-"]
    assert [p.name for p in tmp_path.iterdir()] == ["one.bin"]
    download(server.offers(sha(DATA)), tmp_path)
    assert len(server.asked) == 3  # what is there and right is not asked for


def test_a_second_call_goes_on_too(server, tmp_path):
    server.files["one.bin"], server.cuts = DATA, [CHUNK]
    with pytest.raises(RuntimeError, match=rf"{CHUNK} bytes are kept in .*\.one\.bin\.part: run the same command again"):
        download(server.offers(sha(DATA)), tmp_path, attempts=1)
    assert not (tmp_path / "one.bin").exists()
    assert download(server.offers(sha(DATA)), tmp_path, attempts=1)
    assert server.asked[-1][1] == f"bytes={CHUNK}-"
    assert (tmp_path / "one.bin").read_bytes() == DATA


def test_all_bytes_were_there_but_the_process_died(server, tmp_path):
    server.files["one.bin"] = DATA
    (tmp_path / ".one.bin.part").write_bytes(DATA)
    (tmp_path / ".one.bin.version.part").write_text(f'"{hashlib.md5(DATA).hexdigest()}"')
    download(server.offers(sha(DATA)), tmp_path)
    assert server.asked == [("/files/one.bin", "bytes=300000-")]
    assert (tmp_path / "one.bin").read_bytes() == DATA


@pytest.mark.parametrize("way", ["another version", "no ranges", "no version"])
def test_what_cannot_go_on_begins_anew(server, tmp_path, way):
    server.files["one.bin"] = DATA
    (tmp_path / ".one.bin.part").write_bytes(b"old" * 1000)
    if way != "no version":
        tag = hashlib.md5(b"old" * 2000 if way == "another version" else DATA).hexdigest()
        (tmp_path / ".one.bin.version.part").write_text(f'"{tag}"')
    server.ranges = way != "no ranges"
    download(server.offers(sha(DATA)), tmp_path)
    assert (tmp_path / "one.bin").read_bytes() == DATA


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    server.files["one.bin"] = DATA[:-1] + b"?"
    with pytest.raises(ValueError, match=r"(?s)one\.bin from http.*--checksum one\.bin=sha256"):
        download(server.offers(sha(DATA)), tmp_path)
    assert list(tmp_path.iterdir()) == []
    other = sha(server.files["one.bin"])
    assert download(server.offers(sha(DATA)), tmp_path, checksums={"one.bin": other}) == {"one.bin": other}


def test_without_a_known_checksum_the_first_download_is_recorded_and_holds(server, tmp_path):
    server.files["one.bin"] = DATA
    assert download(server.offers(), tmp_path) == {"one.bin": sha(DATA)}
    assert (tmp_path / "one.bin.sha256").read_text() == f"{sha(DATA).removeprefix('sha256:')}  one.bin\n"
    (tmp_path / "one.bin").write_bytes(b"damaged")
    download(server.offers(), tmp_path)
    assert (tmp_path / "one.bin").read_bytes() == DATA
    (tmp_path / "one.bin").unlink()
    server.files["one.bin"] = b"something else"
    with pytest.raises(ValueError, match=r"does not match the known hash"):
        download(server.offers(), tmp_path)


def test_sums_that_the_collection_lists_hold_its_files(server, tmp_path):
    many = Collection("free", "nobody", server.url, {"sums.md5": "", "a/one.bin": "", "a/two.bin": ""}, listed="sums.md5")
    md5 = hashlib.md5(DATA).hexdigest()
    server.files |= {"sums.md5": f"{md5} *training/one.bin\n".encode(), "a/one.bin": DATA, "a/two.bin": b"2"}
    found = download(many, tmp_path)
    assert found["a/one.bin"] == f"md5:{md5}"
    assert found["a/two.bin"] == sha(b"2")
    server.files["a/one.bin"] = b"damaged"
    (tmp_path / "a" / "one.bin").unlink()
    with pytest.raises(ValueError, match="does not match the known hash"):
        download(many, tmp_path)


@pytest.mark.parametrize("mirror", ["127.0.0.1:9/files", "data/files", "ftp://host/files"])
def test_a_mirror_is_a_url(server, tmp_path, mirror):
    with pytest.raises(ValueError, match=rf"--mirror '{mirror}': a URL that begins with https://"):
        download(server.offers(), tmp_path, mirror=mirror)
    with pytest.raises(RuntimeError, match="give another --mirror"):
        download(server.offers(), tmp_path, mirror="http:///files")


def test_a_server_that_stalls_is_asked_again_from_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr("wsol.data.downloads.TIMEOUT", (5.0, 0.3))
    server.files["one.bin"], server.cuts, server.stalls = DATA, [CHUNK], 3.0
    started = time.perf_counter()
    download(server.offers(sha(DATA)), tmp_path)
    assert time.perf_counter() - started < 2.5  # the wait ended before the stall did
    assert [span for _, span in server.asked] == [None, f"bytes={CHUNK}-"]
    assert (tmp_path / "one.bin").read_bytes() == DATA


def test_a_slow_server_is_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr("wsol.data.downloads.TIMEOUT", (5.0, 1.0))
    server.files["one.bin"], server.pause = DATA, 0.2  # longer in all than the time without a byte
    download(server.offers(sha(DATA)), tmp_path)
    assert len(server.asked) == 1
    assert (tmp_path / "one.bin").read_bytes() == DATA


def test_another_part_than_asked_for_is_not_taken_for_the_file(server, tmp_path):
    server.files["one.bin"], server.shift = DATA, 7
    (tmp_path / ".one.bin.part").write_bytes(DATA[:1000])
    (tmp_path / ".one.bin.version.part").write_text(f'"{hashlib.md5(DATA).hexdigest()}"')
    download(server.offers(), tmp_path)  # of which no checksum is known
    assert (tmp_path / "one.bin").read_bytes() == DATA


def test_a_missing_file_and_a_wrong_name_are_named(server, tmp_path):
    with pytest.raises(RuntimeError, match=r"the server answers 404 .*; give another --mirror"):
        download(server.offers(), tmp_path)
    with pytest.raises(ValueError, match=r"a checksum is given for \['two'\]"):
        download(server.offers(), tmp_path, checksums={"two": sha(DATA)})


def test_the_license_comes_first(server, tmp_path):
    server.files["CMU-1-Small-Region.svs"] = DATA
    words = ["fetch", "cmu-1-small-region", "--out", str(tmp_path), "--mirror", server.url]
    own = ["--checksum", f"CMU-1-Small-Region.svs={sha(DATA)}"]
    for typed in ("n\n", ""):
        refused = CliRunner().invoke(app, [*words, *own], input=typed)
        assert refused.exit_code == 1
        assert "CC0" in refused.output
        assert "accept it with --accept-license" in str(refused.exception)
    assert server.asked == []
    assert CliRunner().invoke(app, [*words, *own], input="y\n").exit_code == 0
    done = CliRunner().invoke(app, [*words, "--accept-license", *own])
    assert done.exit_code == 0, done.exception
    assert "CC0" in done.output
    assert len(server.asked) == 1
    assert "did you mean 'glas'" in str(CliRunner().invoke(app, ["fetch", "gals", "--out", "x"]).exception)
    bad = CliRunner().invoke(app, [*words, "--accept-license", "--checksum", "a=b"])
    assert "expected NAME=sha256:HEX" in str(bad.exception)


def test_what_is_offered_says_its_license_and_the_checksum_of_the_scan_is_right(shared_data):
    assert set(COLLECTIONS) == {"glas", "cmu-1-small-region", "camelyon16-sample"}
    scan = (shared_data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    assert COLLECTIONS["cmu-1-small-region"].files == {"CMU-1-Small-Region.svs": sha(scan)}


def test_importing_asks_nobody():
    script = "import wsol.data.downloads, wsol.cli.fetch, sys; print({'pooch', 'requests', 'urllib3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
