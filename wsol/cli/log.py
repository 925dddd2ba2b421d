"""`wsol log` and `wsol dashboard`: MLflow mirrors the files; the files stay the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from wsol.cli.files import read_json, write_json
from wsol.cli.results import histories, read_scores, settings


def init_tracking(tracking_uri: str, experiment: str, *, out: Path) -> None:
    """Create database and experiment, once, before anything is logged."""
    from wsol.tracking import init

    write_json(out, {"tracking_uri": tracking_uri, "experiment": experiment, "experiment_id": init(tracking_uri, experiment)})


def log_runs(
    paths: list[Path], *, results: Path, tracking_uri: str, experiment: str, out: Path, audit: Path | None = None
) -> None:
    """Bring MLflow to what the score files say; logging twice changes nothing."""
    from wsol.tracking import log, records

    scores = read_scores(paths, results)
    found = read_json(audit) if audit else None
    made = records(
        scores,
        histories=histories(scores, results),
        params=settings(scores, results),
        audit={found["dataset"]: found} if found else None,
    )
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
    for stamp in sorted((results / "log").glob("*/experiment.json")):
        known = read_json(stamp)
        link = dashboard_command(uri, known["experiment_id"], port=port).rsplit(maxsplit=1)[-1]
        print(f"{known['experiment']}: {link}", flush=True)
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
