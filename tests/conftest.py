"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest share the cores: more threads only wait for each other
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINT", "true")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with GlaS and the real slides; `WSOL_SHARED_DATA` names it, beside the project by default."""
    root = Path(os.environ.get("WSOL_SHARED_DATA", Path(__file__).parents[1] / "../shared/data")).resolve()
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set WSOL_SHARED_DATA to a folder with glas/ and slides/")
    return root
