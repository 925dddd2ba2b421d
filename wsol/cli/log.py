"""`wsol log` and `wsol dashboard`: MLflow mirrors the files; the files stay the truth."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsol.cli.files import read_json, write_json
from wsol.cli.plan import RUN
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
        weights=_weights(scores, results),
    )
    done: Any = log(made, tracking_uri, experiment)
    write_json(out, {"experiment": experiment, **asdict(done)})
    print(f"{experiment}: {done.created} runs new, {done.replaced} replaced, {done.unchanged} as they were", file=sys.stderr)


def _weights(scores: list[dict[str, Any]], results: Path) -> dict[tuple[str, int, int, str], Path]:
    """(model, fold, seed, checkpoint) -> its file, for those that were kept."""
    found = {}
    for key in (one["key"] for one in scores):
        path = results / "train" / RUN.format(**key) / f"{key['checkpoint']}.safetensors"
        if path.is_file():
            found[(str(key["model"]), int(key["fold"]), int(key["seed"]), str(key["checkpoint"]))] = path
    return found


def _logged(database: Path) -> list[dict[str, str]]:
    """The stamps of all experiments that hold runs; Snakemake deletes the files of those whose last `mlflow_init` failed."""
    held = "SELECT experiment_id FROM runs WHERE lifecycle_stage = 'active'"
    asked = f"SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'active' AND experiment_id IN ({held})"
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(f"{asked} ORDER BY name").fetchall()
    except sqlite3.Error as error:
        raise RuntimeError(f"{database} cannot be read ({error}); look whether it is MLflow's and whole (wsol doctor)") from error
    return [{"tracking_uri": f"sqlite:///{database}", "experiment": name, "experiment_id": str(number)} for number, name in found]


def serve(results: Path, port: int) -> None:
    """Serve the dashboard on 127.0.0.1 until interrupted; for studies that are logged to a server only say where it is.

    Raises:
        FileNotFoundError: nothing has been logged yet.
        RuntimeError: the database cannot be read.
    """
    from wsol.tracking import links

    database = (results / "log" / "mlflow.db").absolute()
    stamps = [read_json(stamp) for stamp in sorted((results / "log").glob("*/experiment.json"))]
    if database.is_file() and database.stat().st_size:
        here = [(one["experiment"], one["experiment_id"]) for one in stamps if not str(one["tracking_uri"]).startswith("http")]
        stamps += [one for one in _logged(database) if (one["experiment"], one["experiment_id"]) not in here]
    if not stamps:
        raise FileNotFoundError(f"{database}: nothing has been logged yet; run `make demo` (or snakemake with your study) first")
    for known in stamps:
        uri = str(known["tracking_uri"])
        print(f"{known['experiment']}:", flush=True)
        address = uri if uri.startswith("http") else f"http://127.0.0.1:{port}"
        for what, link in links(address, known["experiment_id"]).items():
            print(f"  {what:<34} {link}", flush=True)
    if not database.is_file():
        return
    sys.stdout.flush()
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", f"sqlite:///{database}"]
    # In the place of this process, so that whoever stops it stops the server, by Ctrl-C or by a signal.
    os.execve(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], environment)
