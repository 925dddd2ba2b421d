"""Where a result comes from."""

from __future__ import annotations

import re
import subprocess

import pytest

import wsol
from wsol.tracking import code_version, config_hash, file_hash, provenance
from wsol.tracking.origin import version_of


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    package = tmp_path / "study" / "wsol"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "x")
    return package


def test_a_checkout_names_its_commit(checkout):
    assert version_of(checkout, "1.2") == f"1.2+g{git(checkout, 'rev-parse', 'HEAD')[:12]}"


def test_only_changes_of_the_package_make_it_dirty(checkout):
    (checkout.parent / "results.csv").write_text("1")
    assert not version_of(checkout, "1.2").endswith(".dirty")
    (checkout / "new.py").write_text("b = 2\n")
    assert version_of(checkout, "1.2").endswith(".dirty")


def test_an_installed_package_is_not_taken_for_the_repository_around_it(checkout):
    inside = checkout.parent / ".venv" / "lib" / "wsol"
    inside.mkdir(parents=True)
    assert version_of(inside, "1.2") == "1.2"


def test_without_git_a_checkout_is_unknown(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert version_of(checkout, "1.2") == "1.2+unknown"


def test_code_version_begins_with_the_packages():
    assert code_version().startswith(wsol.__version__)


def test_config_hash_knows_values_not_order():
    assert config_hash({"a": 1, "b": {"c": [1, 2], "d": None}}) == config_hash({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 1.5})
    assert config_hash({"a": [1, 2]}) != config_hash({"a": [2, 1]})
    with pytest.raises(TypeError):
        config_hash({"a": object()})
    with pytest.raises(ValueError, match="JSON"):
        config_hash({"a": float("nan")})


def test_file_hash_of_a_small_file_is_its_content(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 3_000_000)
    (tmp_path / "c").write_bytes(b"x" * 2_999_999 + b"y")
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") != file_hash(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        file_hash(tmp_path / "none")


def test_file_hash_of_a_large_file_samples_it_from_end_to_end(tmp_path):
    path = tmp_path / "slide"
    with path.open("wb") as file:
        file.truncate(3 << 30)  # sparse: no disk, and reading all of it would take seconds
    first = file_hash(path)
    assert re.fullmatch("s[0-9a-f]{15}", first)
    for place in (0, (3 << 30) - 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        assert file_hash(path) != first
        first = file_hash(path)
    with path.open("r+b") as file:
        file.truncate((3 << 30) - 1)
    assert file_hash(path) != first


def test_provenance_has_the_fields_of_a_result(tmp_path):
    (tmp_path / "a").write_text("a")
    found = provenance({"x": 1}, {"manifest": tmp_path / "a"}, seed=3)
    assert found["code"] == code_version()
    assert found["config"] == config_hash({"x": 1})
    assert found["inputs"] == {"manifest": file_hash(tmp_path / "a")}
    assert found["seed"] == 3
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["created"])
