"""The stand-ins of `toy.py` as a fixture."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn


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


@pytest.fixture
def pixel_net():
    """Builds a small net whose head has a decoder: three stages of strides 2, 4, 8, two classes, random weights."""
    from wsol.models import Backbone, Localizer
    from wsol.models.heads.decoders import Decoded, Pixel

    class Tiny(Backbone):
        paper = "none"
        channels = (8, 12, 16)

        def __init__(self):
            super().__init__(freeze_bn=False)
            self.strides = (2, 4, 8)
            inside = (3, *self.channels[:-1])
            self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(inside, self.channels, strict=True))
            self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in self.channels)

        def normalize(self, images):
            return images - 0.5

        def stage(self, number, x):
            return self.norms[number](self.convs[number](x)).relu()

        @staticmethod
        def find_imagenet():
            raise RuntimeError("no weights")

    def build(head="decoded", seed=0, **options):
        kind = {"decoded": Decoded, "pixel": Pixel}[head]
        options = {"width": 8, **options} if head == "decoded" else options
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Localizer(Tiny(), kind(Tiny.channels, 2, **options)).train()

    return build
