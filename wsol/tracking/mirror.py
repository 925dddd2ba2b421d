"""Run records copied into MLflow: idempotent, in batches, by one process at a time. The files stay the truth.

MLflow 3 facts that shape this: several processes creating one SQLite database break it (so `init` goes first, once); metrics are
append-only (so changed content becomes a new run and the old one is deleted); single-metric calls are slow and asynchronous ones
lose rows silently (so `log_batch`, synchronous); paths are stored absolute.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wsol.tracking.address import database_of
from wsol.tracking.dashboard import DESCRIPTION, VIEW, pictures_key, views
from wsol.tracking.origin import config_hash, file_hash
from wsol.tracking.record import Record
from wsol.tracking.server import connected
from wsol.tracking.weights import loading, log_weights, weights_hash

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

T = TypeVar("T")

RUN_KEY, CONTENT = "wsol.run_key", "wsol.content"
LAYOUT = 3
"""Goes into the content hash: raise it when records are written differently, and everything is logged anew."""
METRICS_PER_BATCH, WORDS_PER_BATCH = 900, 90
PICTURE_SIDE = 800


@dataclass
class Logged:
    """What `log` did: run ids by run key, and how many runs were new, replaced, or left alone."""

    runs: dict[str, str] = field(default_factory=dict)
    created: int = 0
    replaced: int = 0
    unchanged: int = 0


def init(tracking_uri: str, experiment: str, artifact_root: str | Path | None = None) -> str:
    """Creates database and experiment unless they exist; to be called once, before anything is logged in parallel.

    Args:
        tracking_uri: ``sqlite:////absolute/mlflow.db`` or ``http://host:port``; credentials only by MLflow's own
            environment variables.
        experiment: its name.
        artifact_root: folder for pictures; beside a SQLite database by default. A server decides by itself.

    Returns:
        The experiment's id.

    Raises:
        ValueError: the URI holds a secret, or can never work.
        TrackingError: the server does not answer, or refuses, or the database cannot be opened or written.
    """
    if database := database_of(tracking_uri):
        artifact_root = artifact_root or database.parent / "artifacts"
    with connected(tracking_uri) as client:
        known = client.get_experiment_by_name(experiment)
        if known is None:
            place = Path(artifact_root).absolute().as_uri() if artifact_root else None
            number = str(client.create_experiment(experiment, artifact_location=place))
        else:
            number = str(known.experiment_id)
            if known.lifecycle_stage == "deleted":
                client.restore_experiment(number)
        client.set_experiment_tag(number, "mlflow.note.content", DESCRIPTION)
        _save_views(client, number, [])
    return number


def log(records: Iterable[Record], tracking_uri: str, experiment: str) -> Logged:
    """Brings MLflow to what the records say; calling it again with the same records changes nothing.

    A run is found by its tag `wsol.run_key`. It is left alone when its tag `wsol.content`, which is written last, names the same
    content; else it is written anew and the old one deleted afterwards, so that a killed call is repaired by the next one.

    Raises:
        ValueError: the experiment does not exist (`init` creates it), two records have one key, or the URI holds a secret or can
            never work.
        TrackingError: the server does not answer, or refuses, or the database cannot be opened or written; what was logged until
            then stays and is completed by the next call.
    """
    wanted = list(records)
    with connected(tracking_uri) as client:
        known = client.get_experiment_by_name(experiment)
        if known is None:
            raise ValueError(
                f"no experiment {experiment!r} in the tracking database; run `wsol log --init` (rule mlflow_init) first"
            )
        done = _bring(client, str(known.experiment_id), wanted)
        _save_views(client, str(known.experiment_id), wanted)
    return done


def _save_views(client: MlflowClient, experiment_id: str, wanted: Sequence[Record]) -> None:
    """The views that the links open; before anything is logged those of the split test."""
    for key, state in views(sorted({split for record in wanted for split in splits(record)})).items():
        client.set_experiment_tag(experiment_id, f"{VIEW}{key}", state)


def _bring(client: MlflowClient, experiment_id: str, wanted: Sequence[Record]) -> Logged:
    """The runs as the records say."""
    old: dict[str, list[Run]] = {}
    for run in _all_runs(client, experiment_id):
        if RUN_KEY in run.data.tags:
            old.setdefault(run.data.tags[RUN_KEY], []).append(run)
    done = Logged()
    for record in wanted:
        if record.run_key in done.runs:
            raise ValueError(f"two records of {record.name}; merge them before logging")
        content, same, stale = content_hash(record), None, []
        for run in old.get(record.run_key, []):
            if same is None and run.data.tags.get(CONTENT) == content:
                same = run
            else:
                stale.append(run)
        if same is None:
            done.runs[record.run_key] = _write(client, experiment_id, record, content)
        else:
            done.runs[record.run_key] = same.info.run_id
        done.unchanged += same is not None
        done.replaced += same is None and bool(stale)
        done.created += same is None and not stale
        for run in stale:
            client.delete_run(run.info.run_id)
    return done


def content_hash(record: Record) -> str:
    """16 hex digits of all that is logged of a record, pictures and weights by their content."""
    plain = asdict(record) | {
        "layout": LAYOUT,
        "weights": weights_hash(record.weights),
        "pictures": [[p.sample, p.step, p.split, file_hash(p.path)] for p in record.pictures],
    }
    return config_hash(plain)


def _all_runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _write(client: MlflowClient, experiment_id: str, record: Record, content: str) -> str:
    from mlflow.entities import LoggedModelInput, Metric, Param, RunTag

    now = int(time.time() * 1000)
    run = client.create_run(experiment_id, run_name=record.name, start_time=now, tags={RUN_KEY: record.run_key})
    number = str(run.info.run_id)
    metrics = [Metric(k, v, now, 0) for k, v in record.metrics.items()]
    metrics += [Metric(k, v, now, step) for k, points in record.curves.items() for step, v in points]
    for some in _chunks(metrics, METRICS_PER_BATCH):
        client.log_batch(number, metrics=some, synchronous=True)
    for pairs in _chunks(list(record.params.items()), WORDS_PER_BATCH):
        client.log_batch(number, params=[Param(k, v[:6000]) for k, v in pairs], synchronous=True)
    model = log_weights(client, experiment_id, record)
    note = [record.note, "" if model is None or record.weights is None else loading(model, record.weights)]
    tags = {**record.tags, "mlflow.note.content": "\n\n".join(filter(None, note))}
    for pairs in _chunks([(k, v) for k, v in tags.items() if v], WORDS_PER_BATCH):
        client.log_batch(number, tags=[RunTag(k, v[:8000]) for k, v in pairs], synchronous=True)
    client.log_inputs(number, datasets=_datasets(record), models=None if model is None else [LoggedModelInput(model)])
    _log_pictures(client, number, record)
    client.set_tag(number, CONTENT, content)
    client.set_terminated(number, status="FINISHED", end_time=now)
    return number


def _datasets(record: Record) -> list[DatasetInput]:
    """What fills the Dataset column: the manifest's digest, or that of all inputs, with the scored splits as context."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = record.inputs.get("manifest") or config_hash(record.inputs)
    data = Dataset(name=str(record.key["dataset"]), digest=digest[:36], source_type="local", source="{}")
    return [DatasetInput(data, tags=[InputTag("mlflow.data.context", ", ".join(splits(record)) or "none")])]


def splits(record: Record) -> list[str]:
    """The splits that a record has scores of."""
    return sorted(k.removesuffix("/samples") for k in record.metrics if k.endswith("/samples") and "_" not in k)


def _log_pictures(client: MlflowClient, run_id: str, record: Record) -> None:
    """Overlays as one tile for each split whose slider goes from the worst to the best Dice; the table names the samples."""
    if not record.pictures:
        return
    from PIL import Image

    for picture in record.pictures:
        with Image.open(picture.path) as image:
            image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            key = pictures_key(picture.split)
            client.log_image(run_id, image.convert("RGB"), key=key, step=picture.step, synchronous=True)
    # The file and the tag that MLflow's own log_table would write; that one goes through pandas and warns.
    columns = ["split", "step", "sample"]
    table = {"columns": columns, "data": [[getattr(p, name) for name in columns] for p in record.pictures]}
    client.log_dict(run_id, table, "overlays.json")
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": "overlays.json", "type": "table"}]))


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
