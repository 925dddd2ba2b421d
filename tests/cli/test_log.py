"""`wsol log` and `wsol dashboard` from the command line: what they write, say, and leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings

import pytest

from wsol.cli.log import init_tracking, log_runs, serve
from wsol.cli.plan import RUN

SCRIPT = "import sys; from wsol.cli.main import main; sys.argv[0] = 'wsol'; main()"


def score_file(folder):
    """A scores.json as small as it can be, of one map method of one trained model, whose checkpoint stands in the results."""
    key = {"dataset": "t", "model": "gap", "fold": 0, "seed": 0, "checkpoint": "b-cl", "set": "fast", "split": "test"}
    run = folder / "results/train" / RUN.format(**key)
    run.mkdir(parents=True)
    (run / "b-cl.safetensors").write_bytes(b"weights")
    (run / "b-cl.json").write_text(json.dumps({"sha256": "ab"}))
    result = {"groups": {"all": {"pxap": 0.5, "samples": 2}}, "samples": {}, "badges": {}, "threshold": {"value": 0.5}}
    (folder / "scores.json").write_text(json.dumps({"key": key, "methods": {"cam": result}}))
    return folder / "scores.json"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    scores, results = score_file(folder), folder / "results"
    uri = f"sqlite:///{results}/log/mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        init_tracking(uri, "t", out=results / "log/t/experiment.json")
        log_runs([scores], results=results, tracking_uri=uri, experiment="t", out=results / "log/t/logged.json")
    return results, uri, scores


def test_the_stamp_counts_and_weights_are_found_beside_the_scores(logged, tmp_path, capsys):
    results, uri, scores = logged
    log_runs([scores], results=results, tracking_uri=uri, experiment="t", out=tmp_path / "again.json")
    stamp = json.loads((tmp_path / "again.json").read_text())
    assert (stamp["created"], stamp["replaced"], stamp["unchanged"], len(stamp["runs"])) == (0, 0, 1, 1)
    assert "t: 0 runs new, 0 replaced, 1 as they were" in capsys.readouterr().err
    from mlflow import MlflowClient

    (model,) = MlflowClient(uri).search_logged_models(
        [json.loads((results / "log/t/experiment.json").read_text())["experiment_id"]]
    )
    assert model.name == "gap-b-cl-fold0-seed0"


def test_a_study_on_a_server_has_its_links_there(tmp_path, capsys):
    (tmp_path / "log/t").mkdir(parents=True)
    stamp = {"tracking_uri": "https://mlflow.example.org", "experiment": "t", "experiment_id": "7"}
    (tmp_path / "log/t/experiment.json").write_text(json.dumps(stamp))
    serve(tmp_path, 5000)
    assert "https://mlflow.example.org/#/experiments/7/runs?workflowType=machine_learning" in capsys.readouterr().out


def test_without_anything_logged_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing has been logged yet"):
        serve(tmp_path, 5000)


def test_the_dashboard_answers_and_is_gone_when_its_process_is(logged, tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = [sys.executable, "-W", "ignore", "-c", SCRIPT, "dashboard", "--results", str(logged[0]), "--port", str(port)]
    with open(tmp_path / "out", "w") as out:
        running = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not answers(port) and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.3)
        assert answers(port), (tmp_path / "out").read_text()
        assert f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning" in (tmp_path / "out").read_text()
        running.send_signal(signal.SIGTERM)
        running.wait(60)
        deadline = time.monotonic() + 30
        while answers(port) and time.monotonic() < deadline:
            time.sleep(0.3)
        assert not answers(port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
