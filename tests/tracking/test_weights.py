"""The weights of a net are logged once, and what comes back is the net."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
import torch

from wsol.models import build_localizer, save_checkpoint
from wsol.tracking import init, log, records


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401
    address = f"sqlite:///{tmp_path_factory.mktemp('weights')}/mlflow.db"
    init(address, "first")
    return address


def net(seed):
    return build_localizer(
        "efficientnet_lite0", "gap", 2, weights=None, output_stride=32, generator=torch.Generator().manual_seed(seed)
    ).eval()


def recorded(make_scores, path, **options):
    return records([make_scores(**options)], weights={("gap", 0, 0, "b-cl"): path})


def models_of(uri, experiment):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    number = client.get_experiment_by_name(experiment).experiment_id
    runs = [client.get_run(run.info.run_id) for run in client.search_runs([number])]  # a search leaves models out
    return client, client.search_logged_models([number]), runs


def test_the_lines_of_the_description_load_the_net(uri, make_scores, tmp_path, monkeypatch):
    init(uri, "loaded")
    made = net(0)
    path, _ = save_checkpoint(made, tmp_path / "b-cl.safetensors")
    log(recorded(make_scores, path), uri, "loaded")  # two map methods of one net
    _, (model,), runs = models_of(uri, "loaded")
    assert [run.inputs.model_inputs[0].model_id for run in runs] == [model.model_id] * 2
    assert (model.name, str(model.status)) == ("gap-b-cl-fold0-seed0", "READY")
    told = runs[0].data.tags["mlflow.note.content"]
    assert told == "A note.\n\n" + model.tags["mlflow.note.content"]
    (code,) = re.findall(r"```python\n(.*?)```", told, flags=re.DOTALL)
    page = (Path(__file__).parents[2] / "docs/how-to/dashboard.md").read_text()
    assert code.replace(model.model_id, "m-0123456789abcdef") in page
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    names: dict[str, object] = {}
    exec(code, names)
    assert len([line for line in code.splitlines() if line]) == 3
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(names["net"](images).logits, made(images).logits, rtol=0, atol=0)


def test_other_weights_take_the_place_of_the_old_ones(uri, make_scores, tmp_path):
    init(uri, "changed")
    path, card = save_checkpoint(net(0), tmp_path / "b-cl.safetensors")
    first = log(recorded(make_scores, path), uri, "changed")
    assert log(recorded(make_scores, path), uri, "changed").unchanged == 2
    save_checkpoint(net(1), path)
    again = log(recorded(make_scores, path), uri, "changed")
    assert (first.created, again.replaced) == (2, 2)
    _, (model,), runs = models_of(uri, "changed")
    assert model.tags["wsol.weights"] == json.loads(card.read_text())["sha256"]
    assert {run.inputs.model_inputs[0].model_id for run in runs} == {model.model_id}


def test_weights_that_were_not_finished_are_logged_again(uri, make_scores, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    init(uri, "killed")
    path, _ = save_checkpoint(net(0), tmp_path / "b-cl.safetensors")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "finalize_logged_model", killed)
        with pytest.raises(KeyboardInterrupt):
            log(recorded(make_scores, path), uri, "killed")
    log(recorded(make_scores, path), uri, "killed")
    _, (model,), runs = models_of(uri, "killed")
    assert str(model.status) == "READY"
    assert len(runs) == 2


def test_floors_and_servers_that_know_no_models_have_runs_all_the_same(uri, make_scores, tmp_path, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND

    def old(*_, **__):
        raise MlflowException("no such endpoint", error_code=ENDPOINT_NOT_FOUND)

    init(uri, "old")
    monkeypatch.setattr(MlflowClient, "search_logged_models", old)
    path, _ = save_checkpoint(net(0), tmp_path / "b-cl.safetensors")
    files = [*recorded(make_scores, path), *recorded(make_scores, path, model="floors", methods=("random",))]
    assert log(files, uri, "old").created == 3
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("old").experiment_id])
    runs = [client.get_run(run.info.run_id) for run in found]
    assert all(not run.inputs.model_inputs for run in runs)
    assert {run.data.tags["mlflow.note.content"] for run in runs} == {"A note."}
