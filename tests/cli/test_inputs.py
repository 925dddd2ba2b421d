"""What is typed wrong on the command line is named with its option and a remedy; what the help shows can be typed."""

from __future__ import annotations

import errno
import json
import re
import shlex

import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from wsol.cli import main as room
from wsol.cli.files import read_settings
from wsol.cli.main import app


def test_settings_are_json_text_or_a_file_of_either_kind(tmp_path):
    (tmp_path / "a.yaml").write_text("samples: 2")
    (tmp_path / "a.json").write_text('{"samples": 2}')
    for text in (' {"samples": 2}', str(tmp_path / "a.yaml"), str(tmp_path / "a.json")):
        assert read_settings(text, "--settings") == {"samples": 2}


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("none.json", FileNotFoundError, r"--key: no file 'none\.json'; name a JSON or YAML file, or write the JSON itself"),
        ("[1, 2]", FileNotFoundError, r"--key: no file '\[1, 2\]'"),
        ("x" * 5000, FileNotFoundError, "--key: no file 'x{300}'"),
        ("{a: [", ValueError, "--key: neither JSON nor YAML: '{a: \\['"),
        ("LIST", ValueError, "--key: expected a mapping, got list"),
        ("LATIN", ValueError, "--key: neither JSON nor YAML"),
    ],
)
def test_settings_that_are_neither_are_named_with_their_option(tmp_path, text, kind, says):
    (tmp_path / "LIST").write_text("[1]")
    (tmp_path / "LATIN").write_bytes("a: ü".encode("latin-1"))
    text = str(tmp_path / text) if text.isupper() else text
    with pytest.raises(kind, match=says):
        read_settings(text, "--key")


def test_files_that_a_probe_lacks_are_named_with_their_option(tmp_path):
    for name in ("m.parquet", "b-cl.safetensors", "probe.json"):
        (tmp_path / name).write_text("{}")
    words = ["--model", "b-cl.safetensors", "--manifest", "m.parquet", "--settings", "probe.json", "--out", "o.json", "--key"]
    words = [str(tmp_path / word) if "." in word else word for word in words]
    for wrong, option in (("key.json", "--key"), ("[", "--key")):
        found = CliRunner().invoke(app, ["probe", *words, wrong])
        assert str(found.exception).startswith(f"{option}: no file '{wrong}'")
    (tmp_path / "probe.json").unlink()
    found = CliRunner().invoke(app, ["probe", *words, "{}"])
    assert re.match(r"--settings: no file '.*probe\.json'", str(found.exception))


def test_the_example_of_prepare_runs_where_its_files_are(tmp_path, monkeypatch):
    """As a shell would split it; the classes are those of the sheet."""
    monkeypatch.chdir(tmp_path)
    lines = [f"s{i},s{i}.svs,{['normal', 'tumor'][i % 2]},p{i}" for i in range(10)]
    (tmp_path / "sheet.csv").write_text("\n".join(["sample,path,label,patient", *lines]))
    for i in range(10):
        (tmp_path / f"s{i}.svs").touch()
    told = get_command(app).commands["prepare"].help
    example = next(" ".join(part.split()) for part in told.split("\n\n") if part.startswith("Example: "))
    found = CliRunner().invoke(app, shlex.split(example)[2:], catch_exceptions=False)
    assert found.exit_code == 0
    assert set(pd.read_parquet(tmp_path / "m.parquet")["sample"]) == {f"s{i}" for i in range(10)}


@pytest.mark.parametrize(
    ("text", "says"), [("folds: [0, 0]", "stands twice"), ("a: [", "not valid YAML"), (None, "no such configuration file")]
)
def test_config_prints_json_of_a_study_that_cannot_be_read(tmp_path, text, says):
    file = tmp_path / "study.yaml"
    if text:
        file.write_text(text)
    found = CliRunner().invoke(app, ["config", str(file), "--json"])
    told = json.loads(found.stdout)
    assert (found.exit_code, told["good"], told["file"]) == (1, False, str(file))
    assert any(says in finding for finding in told["findings"])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "results/maps.h5"), "No space left on device: results/maps.h5; check"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; check the path"),
    ],
)
def test_a_full_disk_ends_in_one_line(monkeypatch, capsys, error, says):
    def full():
        raise error

    monkeypatch.setattr(room, "app", full)
    with pytest.raises(SystemExit, match="1"):
        room.main()
    assert says in capsys.readouterr().err
