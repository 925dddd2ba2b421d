"""What is missing is seen, named with its remedy, and is the exit code."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsol.cli import doctor
from wsol.cli.doctor import GOOD, MISSING, WARNING, Check, code, examine, render, requirements
from wsol.cli.main import app


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.fixture
def here(monkeypatch):
    """The environment of the tests on the PATH."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.usefixtures("here")
def test_this_machine_can_run_its_own_tests(tmp_path):
    found = by_name(examine(tmp_path / "results"))
    for name in ("python", "packages", "libraries", "device", "weights efficientnet_lite0", "wsol", "snakemake", "write access"):
        assert found[name].status == GOOD, found[name]
    assert "torch 2." in found["device"].found


def test_every_requirement_is_looked_at():
    names = {name.lower() for name, _ in requirements()}
    assert {"torch", "monai", "mlflow", "snakemake", "openslide-python"} <= names
    assert "pytest" not in names
    assert "pytest" in {name for name, _ in requirements("dev")}


def test_a_package_that_is_missing_or_too_old_is_named_with_what_is_needed(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "monai":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "torch" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    (check,) = list(doctor._packages())
    assert check.status == MISSING
    assert "monai is not installed" in check.found
    assert "torch 0.0.1, needed is >=2.6" in check.found
    assert check.remedy.startswith("pip install")


def test_a_library_that_does_not_load_is_missing(monkeypatch):
    real = doctor.importlib.import_module

    def load(name):
        if name == "openslide":
            raise OSError("libopenslide.so.1: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", load)
    (check,) = list(doctor._native())
    assert (check.status, "libopenslide.so.1" in check.found) == (MISSING, True)
    assert "openslide-bin" in check.remedy


def test_commands_off_the_path_and_of_another_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(doctor._commands())
    assert found["snakemake"].status == found["wsol"].status == MISSING
    assert "source " in found["wsol"].remedy
    assert found["git"].status == WARNING
    (tmp_path / "wsol").write_text("#!/bin/sh\n")
    (tmp_path / "wsol").chmod(0o755)
    assert "another environment" in by_name(doctor._commands())["wsol"].found


@pytest.mark.parametrize(("amount", "status"), [(1.0, MISSING), (3.0, WARNING), (5.0, GOOD), (float("inf"), GOOD)])
def test_amounts(amount, status):
    assert doctor._amount("memory", amount, (2.0, 4.0), "close programs").status == status


@pytest.mark.parametrize(("free", "status"), [(1.5, MISSING), (4.0, WARNING), (7.9, WARNING), (8.0, GOOD)])
def test_memory_is_good_where_trainings_fit_into_it(monkeypatch, tmp_path, free, status):
    monkeypatch.setattr(doctor, "memory_gb", lambda: free)
    check = by_name(doctor._machine(tmp_path))["memory"]
    assert check.status == status
    assert (f"--resources mem_mb={1000 * free:.0f}" in check.remedy) == (status != GOOD)
    assert ("8 GB are a good start: a training takes" in check.remedy) == (status != GOOD)


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    found = by_name(doctor._machine(tmp_path / "a/b"))
    assert (found["write access"].status, found["write access"].found) == (MISSING, f"{tmp_path}: Permission denied")


def test_the_database_is_counted_damaged_or_on_a_network(monkeypatch, tmp_path):
    (tmp_path / "log").mkdir()
    database = tmp_path / "log/mlflow.db"
    assert "the first study makes it" in next(doctor._mlflow(tmp_path)).found
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE runs (lifecycle_stage TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [("active",), ("active",), ("deleted",)])
    connection.close()
    check = next(doctor._mlflow(tmp_path))
    assert (check.status, check.found) == (GOOD, f"{database}: 2 runs")
    database.write_bytes(b"nonsense" * 200)
    assert next(doctor._mlflow(tmp_path)).status == WARNING
    monkeypatch.setattr(doctor, "filesystem", lambda _: "nfs4")
    check = next(doctor._mlflow(tmp_path))
    assert (check.status, "log.tracking_uri" in check.remedy) == (WARNING, True)


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch, tmp_path):
    def broken():
        raise RuntimeError("odd machine")

    monkeypatch.setattr(doctor, "_device", broken)
    found = by_name(examine(tmp_path))
    assert "odd machine" in found["broken"].found
    assert "write access" in found


def test_code_and_words():
    checks = [Check("a", GOOD, "1"), Check("bb", MISSING, "none", "install it"), Check("c", WARNING, "old", "renew it")]
    assert (code(checks), code(checks[:1])) == (1, 0)
    told = render(checks)
    assert "MISS  bb  none\n          -> install it" in told
    assert told.endswith("1 missing, 1 warning")
    assert render(checks[:1]).endswith("nothing missing, no warnings")


@pytest.mark.usefixtures("here")
def test_the_verb_and_the_module_say_the_same(tmp_path):
    told = json.loads(CliRunner().invoke(app, ["doctor", "--results", str(tmp_path), "--json"]).stdout)
    done = subprocess.run([sys.executable, "-m", "wsol.cli.doctor", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert {c["name"] for c in json.loads(done.stdout)} >= {c["name"] for c in told if not c["name"].startswith("disk")}
    assert done.returncode == int(any(c["status"] == MISSING for c in json.loads(done.stdout)))
