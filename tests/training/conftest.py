"""The stand-ins of `toy.py` as a fixture."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toy():
    """The module `toy.py`."""
    spec = importlib.util.spec_from_file_location("training_toy", Path(__file__).with_name("toy.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(toy):
    """fit() on the stand-ins with quiet, fast defaults."""
    from wsol.training import build_strategy, fit

    def run(net=None, strategy=None, batches=toy.batches, **options):
        net = toy.Net() if net is None else net
        options = {"epochs": 2, "lr": 1e-3, "device": "cpu", "progress": False, **options}
        history = fit(net, strategy or build_strategy("classify"), batches, **options)
        return net, history

    return run
