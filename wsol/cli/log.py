"""`wsol log` and `wsol dashboard`: MLflow mirrors the files; the files stay the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from wsol.cli.files import write_json
from wsol.cli.results import histories, read_scores, settings


def _set(uri: str) -> None:
    """Make the folder of a SQLite database."""
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)


def init_tracking(tracking_uri: str, experiment: str, *, out: Path) -> None:
    """Create database and experiment, once, before anything is logged."""
    from wsol.tracking import init

    _set(tracking_uri)
    write_json(out, {"tracking_uri": tracking_uri, "experiment": experiment, "experiment_id": init(tracking_uri, experiment)})


def log_runs(paths: list[Path], *, results: Path, tracking_uri: str, experiment: str, out: Path) -> None:
    """Bring MLflow to what the score files say; logging twice changes nothing."""
    from wsol.tracking import log, records

    scores = read_scores(paths, results)
    made = records(scores, histories=histories(scores, results), params=settings(scores, results))
    done: Any = log(made, tracking_uri, experiment)
    write_json(out, {"experiment": experiment, "runs": [record.run_key for record in made], "logged": str(done)})


def serve(results: Path, port: int) -> None:
    """Serve the dashboard on 127.0.0.1 until interrupted.

    Raises:
        FileNotFoundError: nothing has been logged yet.
    """
    from wsol.tracking import dashboard_command

    database = (results / "log" / "mlflow.db").absolute()
    if not database.is_file():
        raise FileNotFoundError(f"{database}: nothing has been logged yet; run `make demo` (or snakemake with your study) first")
    uri = f"sqlite:///{database}"
    print(dashboard_command(uri, port=port).split("then ")[-1].strip(), flush=True)
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    try:
        subprocess.run(command, check=True, env=environment)
    except KeyboardInterrupt:
        print("dashboard closed", file=sys.stderr)
