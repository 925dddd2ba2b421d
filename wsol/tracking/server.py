"""The way to MLflow: no secret on it, short patience, one writer at a time, and one kind of error for whatever goes wrong.

MLflow 3 facts that shape this: telemetry and hints are read while it is imported; a request is tried 7 times with 120 s each
unless told otherwise; what cannot be reached is an `MlflowException`, an error of requests, or an `OSError`, as it happens.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wsol.tracking.origin import config_hash

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""A server that never answers is given up after some two minutes; the environment may say otherwise."""

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Nobody is told that this runs, and the log not of every run. Telemetry understands the word only, not 1."""


class TrackingError(RuntimeError):
    """MLflow could not be reached, or refused. No result is lost by it: files are the truth, and logging can be done again."""


def refuse_secrets(tracking_uri: str) -> None:
    """Raises ValueError, which repeats nothing of it, where a tracking URI holds a user, a password or a query.

    URIs stand in configurations, logs and command lines.
    """
    parts = urlsplit(tracking_uri)
    web = parts.scheme in ("http", "https")
    if parts.password or (web and (parts.username or parts.query)):
        raise ValueError(
            "the tracking URI holds a password, a user or a query; give credentials by the environment variables "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and the URI without them"
        )


def connect(tracking_uri: str) -> MlflowClient:
    """A client; nothing is asked of the server yet.

    Raises:
        ValueError: a secret in the URI.
    """
    refuse_secrets(tracking_uri)
    for name, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def database_of(tracking_uri: str) -> Path | None:
    """The file of a SQLite tracking URI; None for a server or another database."""
    found = re.fullmatch(r"sqlite:///(.+)", tracking_uri)
    return Path(found[1]).absolute() if found else None


@contextmanager
def reached(tracking_uri: str) -> Iterator[None]:
    """Whatever MLflow fails by in here is a `TrackingError` that says what to do."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException, OSError) as error:
        said = " ".join(str(error).split())[:300]
        refused = any(f"error code {code}" in said or f"{code} Client Error" in said for code in (401, 403))
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            if refused
            else "look whether it runs and can be reached"
        )
        raise TrackingError(
            f"MLflow at {tracking_uri} {'refuses' if refused else 'cannot be reached, or cannot write'}: {said}. All results "
            f"stand; {remedy}, and log again (the same command; a study: snakemake again, which has nothing else to do)"
        ) from error


@contextmanager
def alone(tracking_uri: str) -> Iterator[None]:
    """Waits until no other process of this machine (with SQLite: none that shares the file) is logging there.

    So that two that log the same run find each other's, instead of writing it twice. A process that dies lets go.
    """
    database = database_of(tracking_uri)
    name = f"wsol-{os.getuid()}-{config_hash({'uri': tracking_uri})}.lock"
    place = database.with_name(f"{database.name}.lock") if database else Path(tempfile.gettempdir()) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
