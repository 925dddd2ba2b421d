"""MLflow holds exactly what the records say, however often they are logged."""

from __future__ import annotations

import warnings

import pytest

from wsol.tracking import init, log, records
from wsol.tracking.mirror import CONTENT, RUN_KEY


@pytest.fixture(scope="session", autouse=True)
def _mlflow_imported():
    """Warnings of MLflow's own imports are not ours to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401


@pytest.fixture(scope="session")
def uri(tmp_path_factory):
    """One database for all tests (making it takes seconds), an experiment for each."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/deep/mlflow.db"


@pytest.fixture
def experiment(uri, request):
    init(uri, request.node.name)
    return request.node.name


def runs_of(uri, experiment):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_read_back_equals_the_record(uri, experiment, make_scores, tmp_path):
    record = records(
        [make_scores(methods=("cam",), overlays=tmp_path)], root=tmp_path, params={"gap": {f"p{i}": i for i in range(120)}}
    )[0]
    done = log([record], uri, experiment)
    client, (run,) = runs_of(uri, experiment)
    assert done.runs == {record.run_key: run.info.run_id}
    assert run.info.status == "FINISHED"
    assert run.info.run_name == record.name
    assert {k: v for k, v in run.data.metrics.items() if k not in record.curves} == record.metrics
    assert run.data.params == record.params
    assert {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")} == record.tags | {
        RUN_KEY: record.run_key, CONTENT: run.data.tags[CONTENT],
    }  # fmt: skip
    assert run.data.tags["mlflow.note.content"] == "A note."
    for name, points in record.curves.items():
        assert sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)) == sorted(points)
    pictures = [f.path for f in client.list_artifacts(run.info.run_id, "images") if f.path.endswith(".png")]
    assert len(pictures) == 3
    assert "overlays.json" in [f.path for f in client.list_artifacts(run.info.run_id)]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("glas", "1122", "test")


def test_logging_twice_changes_nothing(uri, experiment, make_scores):
    files = [make_scores(), make_scores("floors", ("random",))]
    first = log(records(files), uri, experiment)
    before = sorted((r.info.run_id, r.info.end_time) for r in runs_of(uri, experiment)[1])
    second = log(records(files), uri, experiment)
    assert (first.created, first.unchanged, second.created, second.replaced, second.unchanged) == (3, 0, 0, 0, 3)
    assert sorted((r.info.run_id, r.info.end_time) for r in runs_of(uri, experiment)[1]) == before
    assert second.runs == first.runs


def test_changed_content_replaces_the_run(uri, experiment, make_scores):
    first = log(records([make_scores()]), uri, experiment)
    changed = log(records([make_scores(pxap=0.5)]), uri, experiment)
    assert (changed.created, changed.replaced, changed.unchanged) == (0, 2, 0)
    client, runs = runs_of(uri, experiment)
    assert [r.data.metrics["test/pxap"] for r in runs] == [50, 50]
    assert not set(first.runs.values()) & set(changed.runs.values())
    assert len(client.get_metric_history(runs[0].info.run_id, "threshold_pct/dice")) == 101


def test_a_changed_picture_is_changed_content(uri, experiment, make_scores, tmp_path):
    from PIL import Image

    files = [make_scores(methods=("cam",), overlays=tmp_path)]
    log(records(files, root=tmp_path), uri, experiment)
    Image.new("RGB", (9, 9)).save(tmp_path / "test_0.png")
    assert log(records(files, root=tmp_path), uri, experiment).replaced == 1


def test_a_killed_log_is_repaired_by_the_next(uri, experiment, make_scores, monkeypatch):
    from mlflow import MlflowClient

    def killed(*_, **__):
        raise KeyboardInterrupt

    wanted = records([make_scores(methods=("cam",))])
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", killed)
        with pytest.raises(KeyboardInterrupt):
            log(wanted, uri, experiment)
    assert len(runs_of(uri, experiment)[1]) == 1
    log(wanted, uri, experiment)
    _, (run,) = runs_of(uri, experiment)
    assert run.info.status == "FINISHED"
    assert CONTENT in run.data.tags


def test_init_twice_is_one_experiment_with_absolute_artifacts(uri, tmp_path):
    first = init(uri, "again", tmp_path / "art")
    assert init(uri, "again", tmp_path / "art") == first
    from mlflow import MlflowClient

    experiment = MlflowClient(uri).get_experiment(first)
    assert experiment.artifact_location == (tmp_path / "art").as_uri()
    assert "One row is one map method" in experiment.tags["mlflow.note.content"]


def test_log_without_init_says_what_to_do(uri, experiment):
    with pytest.raises(ValueError, match="wsol log --init"):
        log([], uri, "never made")


def test_a_password_in_the_uri_is_refused():
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as error:
        init("http://me:secret@example.org", "x")
    assert "secret" not in str(error.value)
