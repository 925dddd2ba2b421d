"""What `from_module` takes for a plain mean and a linear layer is one for every image size and every size of the features."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.cams import cam
from wsol.models import from_module

SIZE = 64


class Plain(nn.Module):
    """Two strided convolutions, four cells a side at 64 px, and a tail that a subclass may change."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 12, 4, 4), nn.ReLU())
        self.top = nn.Linear(12, 3)

    def forward(self, x):
        return self.tail(self.body(x))

    def tail(self, f):
        return self.top(f.mean((2, 3)))


class FixedPool(Plain):
    def tail(self, f):  # the mean of the whole map at 64 px only; rows and columns beyond are not read
        return self.top(functional.avg_pool2d(f, 4)[:, :, 0, 0])


class NeedsItsSize(Plain):
    def tail(self, f):
        return self.top(functional.avg_pool2d(f, 4).flatten(1))


class Halves(Plain):
    def tail(self, f):  # uneven cells overlap at odd sizes
        return self.top(functional.adaptive_avg_pool2d(f, 2).mean((2, 3)))


class ClampedLogits(Plain):
    def tail(self, f):
        return super().tail(f).clamp(-30, 30)


class ClampedFeatures(Plain):
    def tail(self, f):
        return super().tail(f.clamp(max=50))


class Frozen(Plain):
    def forward(self, x):
        with torch.no_grad():
            f = self.body(x)
        return self.tail(f)


def made(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def images(*sides):
    x = torch.rand(2, 3, *sides, generator=torch.Generator().manual_seed(1))
    x[:, :, sides[0] // 2 :] *= 0.1
    return x


def test_a_plain_mean_is_taken_for_one_at_any_size():
    module = made(Plain)
    net = from_module(module, "body.3", size=SIZE)
    assert net.head.affine
    for sides in ((64, 64), (112, 112), (80, 96)):
        torch.testing.assert_close(net(images(*sides)).logits, module(images(*sides)))


@pytest.mark.parametrize("kind", [FixedPool, NeedsItsSize, Halves, ClampedLogits, ClampedFeatures])
def test_what_is_a_mean_at_one_size_only_is_not_taken_for_one(kind):
    module = made(kind)
    net = from_module(module, "body.3", size=SIZE)
    assert not net.head.affine
    torch.testing.assert_close(net(images(64, 64)).logits, module(images(64, 64)))
    if kind is not NeedsItsSize:
        torch.testing.assert_close(net(images(112, 112)).logits, module(images(112, 112)))


def test_pixels_that_no_slope_reaches_are_told():
    net = from_module(made(Frozen), "body.3", size=SIZE)
    assert cam("grad-cam", net, images(64, 64)).shape == (2, 4, 4)
    for method in ("gradient", "integrated-gradients", "smooth-grad", "guided-grad-cam"):
        with pytest.raises(ValueError, match="no slope comes back to the pixels"):
            cam(method, net, images(64, 64))


def test_other_types_than_the_net_has_are_told():
    double = from_module(made(Plain).double(), "body.3", size=SIZE)
    with pytest.raises(TypeError, match=r"images are torch.float32, the net is torch.float64: call images.to"):
        cam("grad-cam", double, images(64, 64))
    half = from_module(made(Plain).bfloat16(), "body.3", size=SIZE)
    with pytest.raises(TypeError, match=r"the net is torch.bfloat16: call net.float"):
        cam("grad-cam", half, images(64, 64).bfloat16())
