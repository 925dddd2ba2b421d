"""A server that is dead, slow, guarded or far away, and many that log at once: no metric is lost, no secret is written."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from typing import ClassVar

import pytest

from wsol.tracking import TrackingError, check_uri, init, log, records

SECRET = "correct-horse-battery"

LOGGER = """
import json, sys
from wsol.tracking import log, records
uri, *files = sys.argv[1:]
log(records([json.load(open(file)) for file in files]), uri, "many")
"""


@pytest.fixture(scope="module", autouse=True)
def _mlflow_imported():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401


@pytest.fixture
def impatient(monkeypatch):
    """Give up after about two seconds."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


def runs_of(uri, experiment):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_eight_that_log_at_once_lose_nothing_and_double_nothing(kind, server, make_scores, tmp_path):
    """Each logs a run of its own, and all of them one and the same."""
    uri = server[0] if kind == "server" else f"sqlite:///{tmp_path}/mlflow.db"
    init(uri, "many")
    scores = [make_scores(methods=("cam",), seed=seed) for seed in range(9)]
    for seed, one in enumerate(scores):
        (tmp_path / f"{seed}.json").write_text(json.dumps(one))
    command = [sys.executable, "-W", "ignore", "-c", LOGGER, uri]
    running = [
        subprocess.Popen([*command, str(tmp_path / f"{seed}.json"), str(tmp_path / "8.json")], stderr=subprocess.PIPE, text=True)
        for seed in range(8)
    ]
    said = [one.communicate(timeout=300)[1] for one in running]
    assert [one.returncode for one in running] == [0] * 8, said
    wanted = {record.run_key: record for record in records(scores)}
    client, found = runs_of(uri, "many")
    assert sorted(run.data.tags["wsol.run_key"] for run in found) == sorted(wanted)
    for run in found:
        record = wanted[run.data.tags["wsol.run_key"]]
        assert {k: v for k, v in run.data.metrics.items() if k not in record.curves} == record.metrics
        for name, points in record.curves.items():
            assert sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)) == sorted(points)


def test_a_foreign_server_holds_what_the_record_says_and_logging_again_changes_nothing(server, make_scores, tmp_path):
    init(server[0], "foreign")
    wanted = records([make_scores(methods=("cam",), overlays=tmp_path)], root=tmp_path)
    assert log(wanted, server[0], "foreign").created == 1
    assert log(wanted, server[0], "foreign").unchanged == 1
    client, (run,) = runs_of(server[0], "foreign")
    assert {k: v for k, v in run.data.metrics.items() if k not in wanted[0].curves} == wanted[0].metrics
    assert len([f for f in client.list_artifacts(run.info.run_id, "images") if f.path.endswith(".png")]) == 3


@pytest.mark.usefixtures("impatient")
def test_a_dead_server_is_one_kind_of_error_that_says_what_stands(make_scores, dead):
    with pytest.raises(TrackingError, match="All results stand; look whether it runs"):
        init(dead, "x")
    with pytest.raises(TrackingError, match=dead):
        log(records([make_scores()]), dead, "x")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_never_answers_is_given_up(make_scores, silent):
    start = time.monotonic()
    with pytest.raises(TrackingError, match="cannot be reached"):
        log(records([make_scores()]), silent, "x")
    assert time.monotonic() - start < 30


@pytest.mark.usefixtures("impatient")
def test_the_verb_says_so_by_its_exit_code_and_leaves_no_stamp(make_scores, dead, tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(make_scores()))
    words = ["log", "--tracking-uri", dead, "--experiment", "x", "--out", str(tmp_path / "out.json")]
    script = "import sys; from wsol.cli.main import main; sys.argv[0] = 'wsol'; main()"
    command = [sys.executable, "-W", "ignore", "-c", script, *words, "--scores", str(tmp_path / "scores.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "log again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_a_server_that_dies_meanwhile_is_completed_by_the_next_call(server, make_scores, monkeypatch):
    from mlflow import MlflowClient
    from requests.exceptions import ConnectionError as Gone

    init(server[0], "dying")
    wanted, calls, real = records([make_scores()]), [], MlflowClient.log_batch

    def dying(self, *args, **options):
        calls.append(args)
        if len(calls) == 4:
            raise Gone("gone")
        return real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", dying)
        with pytest.raises(TrackingError, match="gone"):
            log(wanted, server[0], "dying")
    log(wanted, server[0], "dying")
    _, found = runs_of(server[0], "dying")
    assert sorted(run.data.tags["wsol.run_key"] for run in found) == sorted(record.run_key for record in wanted)
    assert all(run.info.status == "FINISHED" for run in found)


class Guarded(http.server.BaseHTTPRequestHandler):
    """Answers 401 without the right credentials, else that there is no such experiment."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.headers.get("Authorization", ""))
        right = self.headers.get("Authorization") == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
        body = b"You are not authenticated."  # as MLflow's own basic-auth says it
        if right:
            body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}).encode()
        self.send_response(404 if right else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.usefixtures("impatient")
def test_credentials_come_from_the_environment_and_are_not_repeated(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as guarded:
        threading.Thread(target=guarded.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{guarded.server_address[1]}"
        with pytest.raises(TrackingError, match=r"refuses.*MLFLOW_TRACKING_USERNAME"):
            log([], address, "x")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
        with pytest.raises(ValueError, match="no experiment 'x'"):  # it was let in
            log([], address, "x")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET + "-wrong")
        with pytest.raises(TrackingError) as error:
            log([], address, "x")
        assert SECRET not in str(error.value)
        guarded.shutdown()


def test_no_secret_is_in_what_a_server_keeps(server, make_scores, monkeypatch, tmp_path):
    address, folder = server
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    init(address, "secret")
    log(records([make_scores(overlays=tmp_path)], root=tmp_path), address, "secret")
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "server.db" for path in kept)
    assert any(path.suffix == ".png" for path in kept)
    for path in kept:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert base64.b64encode(f"me:{SECRET}".encode()) not in content, path


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{SECRET}@example.org", f"https://{SECRET}@example.org", f"https://example.org/?token={SECRET}",
        f"postgresql://me:{SECRET}@example.org/mlflow",
    ],
)  # fmt: skip
def test_a_secret_in_the_uri_is_refused_without_repeating_it(uri):
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_TOKEN") as error:
        check_uri(uri)
    assert SECRET not in str(error.value)
    for good in ("sqlite:////a/b.db", "http://127.0.0.1:5000", "https://example.org/mlflow", "postgresql://me@example.org/x"):
        check_uri(good)


OUTSIDE = """
import json, socket, sys, time
asked = []
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    asked.append(str(host))
    raise OSError("no network here")
socket.getaddrinfo = getaddrinfo
from wsol.tracking import init, log, records
init(sys.argv[1], "quiet")
log(records([json.load(open(sys.argv[2]))]), sys.argv[1], "quiet")
time.sleep(2)  # telemetry has a thread of its own
print(json.dumps(asked))
"""


def test_nobody_is_called(make_scores, tmp_path):
    """No name is looked up while a run is logged, though nothing says that this is a test or a build."""
    (tmp_path / "scores.json").write_text(json.dumps(make_scores(methods=("cam",))))
    told = ("MLFLOW", "PYTEST", "CI", "GITHUB", "DO_NOT_TRACK")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    command = [sys.executable, "-W", "ignore", "-c", OUTSIDE, f"sqlite:///{tmp_path}/m.db", str(tmp_path / "scores.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
