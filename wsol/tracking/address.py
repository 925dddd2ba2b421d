"""What a tracking URI may be, decided without asking MLflow: a study with a wrong one ends before it begins.

Facts of MLflow 3.17 that shape this: a word without a scheme is a folder to it, and folders are refused unless the environment
allows them; the address of a server is believed until the first request; a scheme may be that of a plugin.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from wsol._names import closest

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
PLUGINS = "mlflow.tracking_store"
"""Entry points of MLflow's plugins, each named by its scheme."""


def check_uri(tracking_uri: str) -> None:
    """Raises ValueError for a tracking URI that holds a secret, or that can never work, whatever runs or does not.

    URIs stand in configurations, logs and command lines: nothing is repeated of one that holds a user, a password or a query.
    """
    try:
        parts = urlsplit(tracking_uri)
    except ValueError:
        parts = SplitResult(tracking_uri.partition(":")[0].lower(), "", "", "", "")
    web = parts.scheme in SERVERS
    if parts.password or (web and (parts.username or parts.query)):
        raise ValueError(
            "the tracking URI holds a password, a user or a query; give credentials by the environment variables "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and the URI without them"
        )
    if fault := _fault(tracking_uri, parts):
        came = f"the tracking URI {tracking_uri!r} can never work: {fault}"
        if re.search("[@?]", tracking_uri):
            came = "the tracking URI can never work, and is not repeated here, as it may hold a secret"
        raise ValueError(
            f"{came}; expected that of a server (https://mlflow.example.org, http://127.0.0.1:5000) or of a database "
            "(sqlite:////absolute/mlflow.db, postgresql://host/name): correct log.tracking_uri, or --tracking-uri"
        )


def _fault(uri: str, parts: SplitResult) -> str | None:
    """What is wrong with it."""
    if not uri.strip():
        return "it is empty"
    if uri == "databricks":
        return None
    scheme = parts.scheme
    if scheme in SERVERS:
        return _fault_of_server(uri, parts)
    if scheme.startswith("sqlite"):
        right = re.fullmatch(r"sqlite(\+\w+)?:///[^:?].*", uri)
        return None if right else "it does not begin with sqlite:/// and the path of a file"
    if scheme.partition("+")[0] in DATABASES:
        return None if uri.startswith(f"{scheme}://") else f"it does not begin with {scheme}://"
    if scheme == "file" or (not scheme and uri.startswith("/")):
        allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
        return None if allowed else "MLflow takes no folders, unless told MLFLOW_ALLOW_FILE_STORE=true"
    if not scheme:
        return "it has no scheme"
    known = ["databricks", *(plugin.name for plugin in entry_points(group=PLUGINS))]
    return None if scheme in known else closest("scheme", scheme, [*SERVERS, *DATABASES, *known])


def _fault_of_server(uri: str, parts: SplitResult) -> str | None:
    try:
        port_is_right = parts.port != 0
    except ValueError:
        port_is_right = False
    if re.search(r"\s", uri):
        return "there is white space in it"
    if not parts.hostname:
        return f"{parts.scheme}:// is followed by the name of a host"
    return None if port_is_right else "its port is no number from 1 to 65535"


def database_of(tracking_uri: str) -> Path | None:
    """The file of a SQLite tracking URI; None for a server or another database."""
    found = re.fullmatch(r"sqlite:///([^?]+)(\?.*)?", tracking_uri)
    return Path(found[1]).absolute() if found else None
