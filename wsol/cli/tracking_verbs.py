"""The doors of the verbs that know MLflow: log, dashboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def attach(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    for name, verb in VERBS.items():
        app.command(name)(verb)


def log_(
    tracking_uri: Annotated[str, typer.Option(help="MLflow tracking URI")],
    experiment: Annotated[str, typer.Option(help="MLflow experiment")],
    out: Annotated[Path, typer.Option(help="stamp (JSON) that says what was logged")],
    init: Annotated[bool, typer.Option("--init", help="only create the database and the experiment")] = False,
    scores: Annotated[list[Path] | None, typer.Option(help="scores.json; give the option once per file")] = None,
    results: Annotated[Path, typer.Option(help="folder of the results, where pictures and histories are found")] = Path(
        "results"
    ),
    audit: Annotated[Path | None, typer.Option(help="findings of `wsol audit` (JSON), to tag the runs", exists=True)] = None,
) -> None:
    """Mirror results to MLflow, one flat run per method; logging twice changes nothing.

    A server that is dead or slow, or a database that cannot be opened, costs this step only, with exit code 3: run it again.
    Credentials come from the environment (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN), never
    from the URI.

    Example: wsol log --init --tracking-uri sqlite:////data/mlflow.db --experiment mine --out experiment.json

    Example: wsol log --tracking-uri sqlite:////data/mlflow.db --experiment mine --scores a/scores.json --out logged.json
    """
    from wsol.cli.log import init_tracking, log_runs

    if init:
        init_tracking(tracking_uri, experiment, out=out)
    else:
        log_runs(scores or [], results=results, tracking_uri=tracking_uri, experiment=experiment, out=out, audit=audit)


def dashboard_(
    results: Annotated[Path, typer.Option(help="folder of the results")] = Path("results"),
    port: Annotated[int, typer.Option(help="port on 127.0.0.1")] = 5000,
) -> None:
    """Serve the MLflow dashboard on 127.0.0.1 until interrupted, and say which links open what (docs/how-to/dashboard.md).

    Example: wsol dashboard --results results --port 5000
    """
    from wsol.cli.log import serve

    serve(results, port)


VERBS: dict[str, Callable[..., None]] = {"log": log_, "dashboard": dashboard_}
