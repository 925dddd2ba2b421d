"""`wsol log` and `wsol dashboard` from the command line: what they write, say, and leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings

import pytest

from wsol.cli.log import init_tracking, log_runs, serve
from wsol.cli.main import main
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


@pytest.fixture
def served(monkeypatch):
    """What would have been run in the place of this process."""
    commands = []
    monkeypatch.setattr(os, "execve", lambda _, command, __: commands.append(command))
    return commands


def test_runs_are_shown_after_a_failed_init_has_cost_the_stamp(logged, tmp_path, capsys, served):
    """Snakemake deletes the outputs of a rule that failed; the database knows what was logged before."""
    (tmp_path / "log/t").mkdir(parents=True)
    shutil.copy(logged[0] / "log/mlflow.db", tmp_path / "log/mlflow.db")
    serve(tmp_path, 5000)
    told = capsys.readouterr().out
    assert told.startswith("t:\n")  # and no word of "Default", which MLflow makes and nobody logs to
    assert told.count("http://127.0.0.1:5000/#/experiments/1/runs") == 5
    assert f"sqlite:///{tmp_path}/log/mlflow.db" in served[0]
    shutil.copy(logged[0] / "log/t/experiment.json", tmp_path / "log/t/experiment.json")
    serve(tmp_path, 5000)
    assert capsys.readouterr().out == told  # once each, though the stamp names the place where the results were before


def test_an_empty_database_holds_nothing_and_one_of_words_is_told(tmp_path, served):
    (tmp_path / "log").mkdir()
    (tmp_path / "log/mlflow.db").write_text("")  # what an init leaves that was killed at once
    with pytest.raises(FileNotFoundError, match="nothing has been logged yet"):
        serve(tmp_path, 5000)
    (tmp_path / "log/mlflow.db").write_text("no database\n" * 100)
    with pytest.raises(RuntimeError, match=r"mlflow\.db cannot be read \(file is not a database\).*wsol doctor"):
        serve(tmp_path, 5000)
    assert served == []


@pytest.mark.parametrize("init", [["--init"], []], ids=["init", "log"])
@pytest.mark.parametrize(
    ("uri", "code", "said"),
    [
        ("", 1, "the tracking URI '' can never work: it is empty"),
        ("htp:/mlflow", 1, "did you mean 'http'"),
        ("mlflow.example.org", 1, "it has no scheme"),
        ("sqlite:////dev/null/mlflow.db", 3, "look whether the file and its folder can be written"),
    ],
)
def test_a_wrong_uri_and_a_database_out_of_reach_are_one_line_and_a_code(init, uri, code, said, tmp_path, monkeypatch, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WSOL_TRACEBACK", raising=False)
    monkeypatch.setattr(sys, "argv", ["wsol", "log", *init, "--tracking-uri", uri, "--experiment", "x", "--out", "out.json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("wsol: error: ")
    assert said in error
    assert hint.startswith("(set WSOL_TRACEBACK=1")
    assert list(tmp_path.iterdir()) == []


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
