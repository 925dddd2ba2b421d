"""A small net with the shape of the real ones: three stages, the last after a ReLU. Quick, and every head fits it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from wsol.models import Backbone, Localizer
from wsol.models.heads.linear import Gap, Lse
from wsol.models.heads.masking import Masker


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """These nets are too small to share out: threads that wait for each other take ten times as long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Tiny(Backbone):
    paper = "none"
    channels = (8, 12, 16)

    def __init__(self) -> None:
        super().__init__()
        self.strides = (2, 4, 8)
        inside = (3, *self.channels[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(inside, self.channels, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in self.channels)

    def normalize(self, images):
        return images - 0.5

    def stage(self, number, x):
        return self.norms[number](self.convs[number](x)).relu()

    @staticmethod
    def find_imagenet() -> Path:
        raise RuntimeError("no weights")


def tiny(head: str = "gap", classes: int = 3, **options) -> Localizer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Localizer(Tiny(), {"gap": Gap, "lse": Lse}[head](16, classes, **options))
        for p in net.head.parameters():
            torch.nn.init.normal_(p)
    return net.eval()


def masking(head: str = "gap", classes: int = 3, **options) -> Localizer:
    """A net that draws masks; untrained, with a gate that differs between classes."""
    net = tiny(head, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Masker(Tiny.channels, classes, base=head, width=8, **options)
        torch.nn.init.normal_(made.selector.weight)
    made.base.load_state_dict(net.head.state_dict())
    return Localizer(net.backbone, made).eval()


@pytest.fixture(params=["gap", "lse"])
def net(request) -> Localizer:
    """A linear head; for the method that draws a trained mask, a masking network around it."""
    method = getattr(request.node, "callspec", None) and request.node.callspec.params.get("method")
    return masking(request.param) if method == "masker" else tiny(request.param)


@pytest.fixture
def gap_net() -> Localizer:
    return tiny("gap")


@pytest.fixture
def masking_net() -> Localizer:
    return masking()


@pytest.fixture
def lse_net() -> Localizer:
    return tiny("lse", r=2.0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 40, 56, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([0, 2, 1, 2])
