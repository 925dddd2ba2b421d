"""Guided ReLU: values as before, slopes by hand, every way to write a ReLU, nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.models import build_localizer, guided_relu

WAYS = {
    "functional.relu": functional.relu,
    "functional.relu inplace": lambda x: functional.relu(x * 1, inplace=True),
    "functional.relu positional": lambda x: functional.relu(x * 1, True),
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "method inplace": lambda x: (x * 1).relu_(),
    "module": nn.ReLU(),
    "module inplace": lambda x: nn.ReLU(inplace=True)(x * 1),
}
SIX = {
    "functional.relu6": functional.relu6,
    "functional.relu6 inplace": lambda x: functional.relu6(x * 1, inplace=True),
    "module": nn.ReLU6(),
    "module inplace": lambda x: nn.ReLU6(inplace=True)(x * 1),
    "hardtanh": lambda x: functional.hardtanh(x, 0, 6),
}


@pytest.mark.parametrize("way", [*WAYS, *(f"six {w}" for w in SIX)])
def test_only_positive_slopes_pass_and_only_where_the_input_did(way):
    six = way.startswith("six ")
    relu = SIX[way[4:]] if six else WAYS[way]
    x = torch.tensor([-2.0, 0.0, 1.0, 5.0, 7.0, 3.0], requires_grad=True)
    slope_above = torch.tensor([1.0, 1.0, 2.0, -3.0, 4.0, 0.5])
    with guided_relu():
        y = relu(x)
        (slope,) = torch.autograd.grad((y * slope_above).sum(), x)
    assert y.tolist() == [0, 0, 1, 5, 6 if six else 7, 3]
    assert slope.tolist() == [0, 0, 2, 0, 0 if six else 4, 0.5]
    (plain,) = torch.autograd.grad((relu(x) * slope_above).sum(), x)  # outside, as ever
    assert plain.tolist() == [0, 0, 2, -3, 0 if six else 4, 0.5]


def test_in_place_changes_the_tensor_itself():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    with guided_relu():
        y = x * 1
        functional.relu(y, inplace=True)  # the returned tensor is not used, as in torchvision's DenseNet
        (slope,) = torch.autograd.grad((y * torch.tensor([1.0, 1.0])).sum(), x)
    assert y.tolist() == [0, 2]
    assert slope.tolist() == [0, 1]


def test_two_layers_by_hand():
    """x = 1 -> relu(1 x) = 1 and relu(2 x) = 2 -> relu(3 a - 1 b) = 1: the plain slope is 3 - 2 = 1, the guided one 3."""
    x = torch.tensor(1.0, requires_grad=True)

    def net():
        return (3 * functional.relu(x) - functional.relu(2 * x)).relu()

    assert torch.autograd.grad(net(), x)[0] == 1
    with guided_relu():
        assert torch.autograd.grad(net(), x)[0] == 3


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_the_net_says_the_same_inside(backbone):
    net = build_localizer(backbone, "gap", 2, weights=None).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = net(x).logits
    with guided_relu():
        torch.testing.assert_close(net(x).logits, before)
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())


def test_a_net_without_relu_is_refused():
    x = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="met no ReLU in this net"), guided_relu():
        functional.hardtanh(functional.silu(x))


def test_an_error_inside_is_the_error_outside():
    with pytest.raises(KeyError, match="mine"), guided_relu():
        raise KeyError("mine")
    x = torch.tensor([1.0], requires_grad=True)
    assert torch.autograd.grad(-x.relu(), x)[0] == -1
