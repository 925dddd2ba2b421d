"""A tracking URI that can never work is refused before anything runs, without MLflow, and without repeating a secret."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from wsol.cli.schema import Log
from wsol.tracking import check_uri

REFUSED_BY_MLFLOW = {
    "htp:/mlflow": "unknown scheme 'htp'; did you mean 'http'",
    "htp://mlflow": "unknown scheme 'htp'; did you mean 'http'",
    "postgres://host/name": "did you mean 'postgresql'",
    "localhost:5000": "unknown scheme 'localhost'",
    "s3://bucket/runs": "unknown scheme 's3'",
    "databricks-uc://one": "unknown scheme 'databricks-uc'",
    "mlflow.example.org": "it has no scheme",
    "127.0.0.1:5000": "it has no scheme",
    "./mlruns": "it has no scheme",
    "/data/mlruns": "takes no folders, unless told MLFLOW_ALLOW_FILE_STORE=true",
    "file:///data/mlruns": "takes no folders, unless told MLFLOW_ALLOW_FILE_STORE=true",
    "sqlite:/data/mlflow.db": "does not begin with sqlite:///",
    "sqlite://data/mlflow.db": "does not begin with sqlite:///",
    "SQLITE:////data/mlflow.db": "does not begin with sqlite:///",
    "sqlite:": "does not begin with sqlite:///",
    "postgresql:/host/name": "does not begin with postgresql://",
}
BELIEVED_BY_MLFLOW = {
    "": "it is empty",
    " ": "it is empty",
    "sqlite://": "does not begin with sqlite:/// and the path of a file",
    "sqlite:///:memory:": "does not begin with sqlite:/// and the path of a file",
    "http:/mlflow": "http:// is followed by the name of a host",
    "https:mlflow.example.org": "https:// is followed by the name of a host",
    "http://": "http:// is followed by the name of a host",
    "http://[::1": "http:// is followed by the name of a host",
    "http://host:port": "its port is no number from 1 to 65535",
    "http://host:65536": "its port is no number from 1 to 65535",
    "http://host:0": "its port is no number from 1 to 65535",
    "http://my host": "white space",
}
"""By name, until the first request or the end of the process."""

RIGHT = (
    "http://127.0.0.1:5000", "https://mlflow.example.org/behind/a/proxy", "HTTP://host:65535", "http://[::1]:5000", "databricks",
    "databricks://profile", "sqlite:////data/my results/mlflow.db", "sqlite:///mlflow.db", "sqlite:////a@b/mlflow.db",
    "sqlite+pysqlite:////data/mlflow.db", "postgresql://host/name", "postgresql:///name", "postgresql+psycopg2://me@host/name",
    "mysql+pymysql://host/name", "mssql+pyodbc://host/name?driver=ODBC",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_folders(monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)


@pytest.mark.parametrize(("uri", "fault"), [*REFUSED_BY_MLFLOW.items(), *BELIEVED_BY_MLFLOW.items()])
def test_what_can_never_work_is_one_line_with_what_came_what_was_expected_and_what_to_do(uri, fault):
    with pytest.raises(ValueError, match="can never work") as error:
        check_uri(uri)
    said = str(error.value)
    assert said.startswith(f"the tracking URI {uri!r} can never work: ")
    assert fault in said
    assert "sqlite:////absolute/mlflow.db" in said
    assert "correct log.tracking_uri, or --tracking-uri" in said
    assert "\n" not in said


@pytest.mark.parametrize("uri", REFUSED_BY_MLFLOW)
def test_mlflow_itself_says_no(uri, tmp_path, monkeypatch):
    """Nothing is refused here that it would have taken."""
    from sqlalchemy.exc import ArgumentError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    monkeypatch.chdir(tmp_path)
    with pytest.raises((MlflowException, ArgumentError)):
        MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", RIGHT)
def test_what_may_work_passes(uri):
    check_uri(uri)


def test_only_in_a_study_is_an_empty_one_right():
    assert Log(tracking_uri="").tracking_uri == ""
    with pytest.raises(ValueError, match="it has no scheme"):
        Log(tracking_uri="mlflow.example.org")


@pytest.mark.parametrize("uri", ["/data/mlruns", "file:///data/mlruns"])
def test_folders_pass_where_mlflow_is_told_to_take_them(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "True")
    check_uri(uri)
    with pytest.raises(ValueError, match="it has no scheme"):
        check_uri("mlflow.example.org")


def test_the_scheme_of_an_installed_plugin_passes(tmp_path, monkeypatch):
    arn = "arn:aws:sagemaker:eu-west-1:1:mlflow-tracking-server/x"
    with pytest.raises(ValueError, match="unknown scheme 'arn'"):
        check_uri(arn)
    (tmp_path / "a_plugin-1.dist-info").mkdir()
    (tmp_path / "a_plugin-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: a-plugin\nVersion: 1\n")
    (tmp_path / "a_plugin-1.dist-info/entry_points.txt").write_text("[mlflow.tracking_store]\narn=a_plugin:Store\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_uri(arn)


@pytest.mark.parametrize(
    "uri",
    ["http://me:hunter2/x@host", "me:hunter2@host", "hunter2:x@host", "hunter2://me@host", "htp://host/?token=hunter2",
     "http://me:hunter2@[host", "hunter2@host", "postgresql:me:hunter2@host"],
)  # fmt: skip
def test_a_secret_in_a_wrong_uri_is_not_repeated(uri):
    with pytest.raises(ValueError, match=r"secret|MLFLOW_TRACKING_TOKEN") as error:
        check_uri(uri)
    assert "hunter2" not in str(error.value)


def test_it_is_asked_without_mlflow():
    script = "import sys; from wsol.tracking import check_uri; check_uri('http://h'); print({'mlflow', 'torch'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"
