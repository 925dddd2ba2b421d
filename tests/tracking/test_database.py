"""A database that cannot be opened is one kind of error, at once; several that make one do not break it."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings

import pytest

from wsol.tracking import TrackingError, init, log


@pytest.fixture(scope="module", autouse=True)
def _mlflow_imported():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401


def folder_that_is_a_file(place):
    (place / "file").write_text("")
    return place / "file/below/mlflow.db"


def file_that_is_a_folder(place):
    (place / "mlflow.db").mkdir()
    return place / "mlflow.db"


def file_of_words(place):
    (place / "mlflow.db").write_text("no database\n" * 100)
    return place / "mlflow.db"


@pytest.mark.parametrize("spoiled", [folder_that_is_a_file, file_that_is_a_folder, file_of_words])
@pytest.mark.parametrize("act", [lambda uri: init(uri, "x"), lambda uri: log([], uri, "x")], ids=["init", "log"])
def test_a_database_that_cannot_be_opened_is_one_line_at_once(spoiled, act, tmp_path):
    """MLflow alone tries for 102 s."""
    uri, start = f"sqlite:///{spoiled(tmp_path)}", time.monotonic()
    with pytest.raises(TrackingError, match="look whether the file and its folder can be written") as error:
        act(uri)
    assert time.monotonic() - start < 50
    assert uri in str(error.value)
    assert "\n" not in str(error.value)


def test_what_sqlalchemy_does_not_know_is_the_same_kind_of_error(tmp_path):
    from sqlalchemy.exc import SQLAlchemyError

    with pytest.raises(TrackingError, match=r"cannot be reached, or cannot write.*nosuch.*All results stand") as error:
        init(f"sqlite+nosuch:///{tmp_path}/mlflow.db", "x")
    assert isinstance(error.value.__cause__, SQLAlchemyError)


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(TrackingError, match=r"psycopg2.*install what it names"):
        init("postgresql://127.0.0.1:1/x", "x")


def test_three_that_make_one_database_at_once_make_one_experiment(tmp_path):
    script = "import sys; from wsol.tracking import init; print(init(sys.argv[1], 'x'))"
    command = [sys.executable, "-W", "ignore", "-c", script, f"sqlite:///{tmp_path}/mlflow.db"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [one.communicate(timeout=500) for one in running]
    assert [one.returncode for one in running] == [0] * 3, said
    assert {out.strip() for out, _ in said} == {"1"}
