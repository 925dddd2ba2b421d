"""The way to MLflow: short patience, one writer at a time, and one kind of error for whatever goes wrong.

MLflow 3 facts that shape this: telemetry and hints are read while it is imported; a request is tried 7 times with 120 s each
unless told otherwise; what cannot be reached is an `MlflowException`, an `OSError`, or an error of requests or SQLAlchemy, as it
happens.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wsol.tracking.address import check_uri, database_of
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


@contextmanager
def connected(tracking_uri: str) -> Iterator[MlflowClient]:
    """A client, while no other process is logging there; the file of a SQLite database is made where there is none.

    Raises:
        ValueError: the URI holds a secret, or can never work.
        TrackingError: whatever MLflow fails by in here; it says what to do.
    """
    check_uri(tracking_uri)
    for name, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(name, value)
    with reached(tracking_uri), alone(tracking_uri):
        from mlflow import MlflowClient

        if database := database_of(tracking_uri):
            _try_to_write(database)
        yield MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _try_to_write(database: Path) -> None:
    """Raises what SQLite says of a file that cannot be written, at once: MLflow tries for two minutes to open it."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")


@contextmanager
def reached(tracking_uri: str) -> Iterator[None]:
    """Whatever MLflow fails by in here is a `TrackingError` that says what to do."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        said = " ".join(str(error).split())[:300]
        refused = any(f"error code {code}" in said or f"{code} Client Error" in said for code in (401, 403))
        raise TrackingError(
            f"MLflow at {tracking_uri} {'refuses' if refused else 'cannot be reached, or cannot write'}: {said}. All results "
            f"stand; {_remedy(tracking_uri, error, refused)}, and log again (the same command; a study: snakemake again, which "
            "has nothing else to do)"
        ) from error


def _remedy(tracking_uri: str, error: Exception, refused: bool) -> str:
    if refused:
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    if isinstance(error, ImportError):
        return "install what it names (the driver of a database, or a part of MLflow)"
    if database_of(tracking_uri):
        return "look whether the file and its folder can be written, and the file is a database of MLflow (wsol doctor)"
    return "look whether it runs and can be reached"


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
