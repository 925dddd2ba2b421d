"""Checkpoints as MLflow's logged models: the weights once for each net, however many map methods were drawn with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from wsol.tracking.origin import config_hash
from wsol.tracking.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

NET, CONTENT = "wsol.net", "wsol.weights"
"""Tags of a logged model: what identifies the net (dataset, model, checkpoint, fold, seed), and the hash of its weights."""

IDENTITY = ("dataset", "model", "checkpoint", "fold", "seed")

LOADING = """\
The weights, with `mlflow.set_tracking_uri(...)` or MLFLOW_TRACKING_URI set to where this is shown:

```python
import mlflow, wsol.models

folder = mlflow.artifacts.download_artifacts("models:/{model_id}")
net = wsol.models.load_checkpoint(f"{{folder}}/{file}")
```
"""


def weights_hash(weights: Path | None) -> str:
    """The hash that a checkpoint's card names; empty without weights."""
    return "" if weights is None else str(json.loads(weights.with_suffix(".json").read_text())["sha256"])


def loading(model_id: str, weights: Path) -> str:
    """How the weights of a logged model are loaded, as Markdown."""
    return LOADING.format(model_id=model_id, file=weights.name)


def net_key(record: Record) -> str:
    """16 hex digits of what identifies the net of a record."""
    return config_hash({name: record.key[name] for name in IDENTITY})


def log_weights(client: MlflowClient, experiment_id: str, record: Record) -> str | None:
    """The id of the logged model that holds the weights of a record, which is made unless it is there; one that holds other
    weights of the same net, or was not finished, is deleted.

    None where the record has no weights, or the server is older than logged models (MLflow 3).
    """
    from mlflow.exceptions import MlflowException

    if record.weights is None:
        return None
    try:
        found = client.search_logged_models([experiment_id], filter_string=f"tags.`{NET}` = '{net_key(record)}'")
    except MlflowException as error:
        if error.get_http_status_code() == 404:
            return None
        raise
    same = None
    for model in found:
        ready = str(model.status).endswith("READY") and model.tags.get(CONTENT) == weights_hash(record.weights)
        if ready and same is None:
            same = str(model.model_id)
        else:
            client.delete_logged_model(model.model_id)
    return same or _write(client, experiment_id, record, record.weights)


def _write(client: MlflowClient, experiment_id: str, record: Record, weights: Path) -> str:
    key = record.key
    model = client.create_logged_model(
        experiment_id,
        name=f"{key['model']}-{key['checkpoint']}-fold{key['fold']}-seed{key['seed']}",
        tags={NET: net_key(record), CONTENT: weights_hash(weights)},
        params={name: str(key[name]) for name in IDENTITY},
        model_type="localizer",
    )
    for path in (weights, weights.with_suffix(".json")):
        client.log_model_artifact(model.model_id, str(path))
    client.set_logged_model_tags(model.model_id, {"mlflow.note.content": loading(model.model_id, weights)})
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)
