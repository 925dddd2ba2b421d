"""The quick bfloat16 gradient is the gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsol.models.depthwise import depthwise


def plain(x, weight, stride, padding):
    return functional.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, x.shape[1])


@pytest.mark.parametrize("padding", [(2, 2), (0, 0), (2, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("size", [3, 5])
def test_gradients_equal_those_of_conv2d(size, stride, padding):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 11, 14, generator=generator).bfloat16().to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, size, size, generator=generator).bfloat16().float()
    slope = None
    found = []
    for kind, convolve in ((torch.bfloat16, depthwise), (torch.bfloat16, plain), (torch.float64, plain)):
        a = x.detach().clone().to(kind).requires_grad_(True)
        w = weight.clone().to(torch.promote_types(kind, torch.float32)).requires_grad_(True)
        y = convolve(a, w, stride, padding)
        slope = torch.randn(y.shape, generator=generator).bfloat16() if slope is None else slope
        y.backward(slope.to(kind))
        assert y.dtype == kind
        assert w.grad.dtype == w.dtype
        found.append((y.detach().double(), a.grad.double(), w.grad.double()))
    for ours, torchs, exact in zip(*found, strict=True):
        # Where a processor has no bfloat16, torch's own gradients are off by more than rounding; ours may be as far off.
        bound = max(0.01 * float(exact.abs().max()), 1.5 * float((torchs - exact).abs().max()))
        assert (ours - exact).abs().max() < bound


def test_other_precisions_take_the_plain_way():
    x, w = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True), torch.randn(3, 1, 5, 5, dtype=torch.float64)
    y = depthwise(x, w, (1, 1), (2, 2))
    assert torch.equal(y, functional.conv2d(x, w, None, 1, 2, 1, 3))
    assert "Convolution" in type(y.grad_fn).__name__
    assert depthwise(x.detach().bfloat16(), w.bfloat16(), (1, 1), (2, 2)).grad_fn is None
