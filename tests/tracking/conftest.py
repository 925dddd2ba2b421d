"""Score files as small as they can be, with numbers that are easy to follow into the records."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

CLASSIFICATION = {"accuracy": 0.95, "balanced_accuracy": 0.94, "interval": [0.9, 0.99], "samples": 3, "patients": 2}
THRESHOLDS = [i / 100 for i in range(101)]


def group(pxap: float) -> dict:
    return {
        "pxap": pxap, "pxap_interval": [pxap - 0.05, pxap + 0.04], "ap": pxap + 0.01, "prevalence": 0.5, "dice": 0.61234567,
        "dice_interval": [None, None], "iou": 0.44, "precision": 0.6, "recall": None, "oracle_dice": 0.7, "oracle_iou": 0.54,
        "samples": 3, "patients": 2,
    }  # fmt: skip


def score_file(
    model="gap", methods=("cam", "grad-cam"), fold=0, seed=0, split="test", pxap=0.64712345, overlays: Path | None = None
) -> dict:
    """One scores.json; with `overlays`, tiny pictures are written there."""
    sample = {"iou": 0.4, "pxap": 0.6, "label": "b", "patient": "p1", "overlay": None}
    samples = {f"{split}_{i}": {"dice": d, **sample} for i, d in enumerate((0.5, 0.9, None))}
    for i, (name, values) in enumerate(samples.items()):
        if overlays is not None:
            values["overlay"] = f"{name}.png"
            Image.new("RGB", (24, 16), (80 * i, 90, 20)).save(overlays / values["overlay"])
    result = {
        "badges": {"supervision": "image label", "threshold": "validation masks (6)", "code": "0.1.0+gabc"},
        "seconds": 0.25, "threshold": {"value": 0.42, "source": "validation masks"},
        "oracle": {"value": 0.4, "source": "test oracle"},
        "groups": {"all": group(pxap), "mucin/ous": group(pxap + 0.1)},
        "negatives": {"flagged_area": 0.125, "interval": [0.1, 0.15], "samples": 2, "patients": 1},
        "curve": {
            "threshold": THRESHOLDS, "dice": [0.8 * (1 - abs(2 * t - 0.8) / 2) for t in THRESHOLDS], "iou": THRESHOLDS,
            "precision": [*THRESHOLDS[:-1], None], "recall": THRESHOLDS[::-1],
        },
        "samples": samples,
    }  # fmt: skip
    floor = model == "floors"
    return {
        "key": {
            "dataset": "glas", "model": model, "fold": fold, "seed": seed, "checkpoint": "none" if floor else "b-cl",
            "set": "floors" if floor else "fast", "split": split,
        },
        "classes": ["b", "mucin/ous"], "mask_means": "class", "note": "A note.",
        "classification": None if floor else dict(CLASSIFICATION),
        "methods": dict.fromkeys(methods, result), "supervision": "image label",
        "provenance": {"code": "0.1.0+gabc", "config": "aa", "created": "2026-11-23T11:00:00Z", "inputs": {"manifest": "1122"}},
    }  # fmt: skip


def filled(scores: dict) -> dict:
    """The same file with what newer ones have."""
    level = {"accuracy": 0.95, "auc": 0.97, "ece": 0.081, "brier": 0.1234, "samples": 3}
    more = {
        "macro": {"image": {"pxap": 0.61, "dice": 0.5, "units": 3}, "patient": {"pxap": 0.62, "dice": 0.51, "units": 2}},
        "transfer": {"gap": 0.09, "plateau_width": 0.11, "oracle_spread": {"iqr": 0.2, "lost": 0.043}, "validation": None},
        "activation": {"over": 0.25, "under": 0.125, "rule": "a rule"},
        "regions": {"lesions": 9, "hit": 0.75, "predicted_right": 0.6, "froc": {"score": 0.55}},
        "boxes": {"max_box_acc": 0.5, "max_box_acc_v2": 0.4, "gt_known_error": 0.45, "top1_error": None},
    }
    methods = {name: result | more for name, result in scores["methods"].items()}
    for result in methods.values():
        result["groups"] = {
            name: {**values, "normalized_ap": 0.31, "auc": 0.72, "dice_background": 0.64, "specificity": 0.59}
            for name, values in result["groups"].items()
        }
    return scores | {
        "methods": methods, "protocol": "ours",
        "classification": scores["classification"] and scores["classification"] | {"levels": {"sample": level}},
    }  # fmt: skip


@pytest.fixture(scope="session")
def make_scores():
    return score_file


@pytest.fixture(scope="session")
def make_full():
    return lambda **options: filled(score_file(**options))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The address of an MLflow server with a database and artifacts of its own below `folder`; gone at the end."""
    port = free_port()
    command = [
        sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db",
        "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    with open(folder / "server.log", "w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-3000:])
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a socket that takes connections and never says a word."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(16)
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """(address, folder) of a real tracking server."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder) as address:
        yield address, folder


@pytest.fixture
def dead():
    """The address of no server."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def silent():
    with silent_server() as address:
        yield address
