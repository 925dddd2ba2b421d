"""Convolutions in 8 bits: exact where 8 bits hold the numbers, close elsewhere, and wrong for no net that is built otherwise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.models import Quantized, build_localizer

STEP = 1 / 64  # of weights; 127 of them are the largest


def whole(*shape, low, high, seed=0):
    """Whole numbers low..high, each end there."""
    x = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()
    x.flatten()[:2] = torch.tensor([low, high])
    return x


def exact(conv, seed=0):
    """Weights that are multiples of STEP, the largest of each channel 127 of them."""
    with torch.no_grad():
        conv.weight.copy_(whole(*conv.weight.shape, low=-127, high=127, seed=seed) * STEP)
        conv.weight.flatten(1)[:, 0] = 127 * STEP
        if conv.bias is not None:
            conv.bias.copy_(whole(*conv.bias.shape, low=-9, high=9, seed=seed))
    return conv


def both(net, *inputs):
    """The net in 8 bits, after a run on the first of the inputs; and as it is."""
    with torch.no_grad():
        quick = Quantized(lambda: net(inputs[0]))
        found = []
        for x in inputs:
            with quick:
                found.append(net(x))
        return found, [net(x) for x in inputs]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": (1, 2), "dilation": 2, "bias": False},
        {"groups": 2, "padding": (1,)},
        {"groups": 8, "stride": (1, 2)},
    ],
    ids=str,
)
def test_numbers_that_fit_into_8_bits_are_computed_exactly(options):
    conv = exact(nn.Conv2d(8, 8, 3, **options))
    for low, high in ((0, 127), (-50, 77), (-127, 0)):
        (found,), (expected,) = both(conv, whole(2, 8, 9, 11, low=low, high=high))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-3)
        assert expected.abs().max() > 100


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.Hardtanh(0, 20)], ids=str)
def test_batch_norm_and_relu_become_part_of_it(relu):
    norm = nn.BatchNorm2d(8, eps=0.0).eval()
    with torch.no_grad():
        norm.running_var.fill_(4.0)
        norm.weight.copy_(torch.tensor([1.0, -1.0, 2.0, 0.5, 1.0, 1.0, 4.0, 1.0]))
        norm.bias.copy_(whole(8, low=-9, high=9))
        norm.running_mean.copy_(whole(8, low=-5, high=5, seed=1))
    net = nn.Sequential(exact(nn.Conv2d(8, 8, 3)), norm, relu)
    found, expected = both(net, whole(2, 8, 9, 11, low=-27, high=100), whole(1, 8, 7, 5, low=-27, high=100, seed=3))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-3)


def test_between_two_convolutions_8_bits_are_kept():
    first, second = nn.Conv2d(1, 4, 1, bias=False), exact(nn.Conv2d(4, 3, 3))
    with torch.no_grad():
        first.weight.copy_(torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None, None, None])  # whole numbers stay whole numbers
    net = nn.Sequential(first, nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1)), second)
    seen = []
    net[2].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    (found,), (expected,) = both(net, whole(2, 1, 9, 11, low=0, high=127))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-3)
    assert seen == [torch.float32, torch.uint8, torch.float32]


class Awkward(nn.Module):
    """What may not be fused: a result that two read, one that goes out, a convolution that runs twice, a norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = (nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4, 4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x):
        raw = self.first(x)
        a = self.norms[0](raw) + raw  # batch norm is not alone
        b = functional.relu(self.norms[1](self.shared(a)))
        c = functional.relu(self.norms[2](self.shared(b + a)))  # another norm behind the same weights
        c.mul_(2)
        out = functional.relu(self.shared(c))
        last = functional.conv2d(b, self.shared.weight * b.mean())  # weights of its own for each input
        return b, out, self.last(out), last  # out is read by one convolution, and by who gets it


def test_what_others_read_is_left_as_it_was():
    torch.manual_seed(0)
    net = Awkward().eval()
    with torch.no_grad():
        for norm in net.norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    x = torch.rand(2, 3, 16, 16)
    found, expected = (sum(run, ()) for run in both(net, x, x / 2))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.06 * b.norm()


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_nothing_is_left_behind(backbone):
    torch.manual_seed(0)
    net = build_localizer(backbone, "gap", 2, weights=None).eval()
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = net.encode(x)
        quick = Quantized(lambda: net.encode(x))
        with quick:
            short = net.encode(x)
        after = net.encode(x)
    assert all(torch.equal(a, b) for a, b in zip(after.stages, expected.stages, strict=True))
    assert not torch.equal(short.last, expected.last)
    assert all(stage.dtype == torch.float32 for stage in short.stages)
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_resnet_stays_close():
    torch.manual_seed(0)
    net = build_localizer("resnet18", "gap", 2, weights=None).eval()
    images = torch.rand(4, 3, 64, 64)
    (found, other), (expected, second) = both(lambda x: net.encode(x).last, images[:3], images[3:])
    assert (found - expected).norm() < 0.06 * expected.norm()
    assert (other - second).norm() < 0.06 * second.norm()


def test_larger_inputs_than_seen_are_clipped():
    conv = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        quick = Quantized(lambda: conv(torch.tensor([-27.0, 100.0]).view(1, 1, 1, 2)))
        with quick:
            out = conv(torch.tensor([-300.0, 3.0, 300.0, 0.0]).view(1, 1, 2, 2))
    torch.testing.assert_close(out.flatten(), torch.tensor([-27.0, 3.0, 100.0, 0.0]))


def test_inputs_of_zeros():
    conv = exact(nn.Conv2d(3, 4, 3))
    (found,), (expected,) = both(conv, torch.zeros(1, 3, 8, 8))
    assert torch.equal(found, expected)


def test_another_course_is_refused():
    conv = exact(nn.Conv2d(3, 4, 3))

    def net(x):
        return conv(x).relu() if len(x) == 1 else conv(x).abs()

    with torch.no_grad():
        quick = Quantized(lambda: net(torch.rand(1, 3, 8, 8)))
        with pytest.raises(RuntimeError, match=r"does the same for all images, but this one calls abs where"), quick:
            net(torch.rand(2, 3, 8, 8))
        with quick:  # and it can go on
            net(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    "net",
    [lambda: torch.rand(3).relu(), lambda: functional.conv2d(torch.rand(1, 1, 4, 4).double(), torch.ones(1, 1, 1, 1).double())],
)
def test_a_net_without_convolutions_is_refused(net):
    with pytest.raises(ValueError, match="int8 met no float32 convolution on a CPU"):
        Quantized(net)
