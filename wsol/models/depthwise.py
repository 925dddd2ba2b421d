"""Depthwise convolution whose bfloat16 gradient on a CPU takes the quick ways.

oneDNN has quick kernels for most of it, but falls to slow ones for the weight gradient of 5x5 filters (more than half of the time
of an EfficientNet-Lite0 training step) and for the input gradient at stride 2. The numbers are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def depthwise(x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """`conv2d(x, weight, groups=c)` for x (b, c, h, w) and weight (c, 1, k, k); bfloat16 on a CPU takes the quick gradient."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled():
        out: Tensor = _Depthwise.apply(x, weight, stride, padding)
        return out
    return functional.conv2d(x, weight, None, stride, padding, 1, x.shape[1])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, size = ctx.stride, ctx.padding, weight.shape[-1]
        input_slope = weight_slope = None
        if ctx.needs_input_grad[0]:
            kind = torch.float32 if max(stride) > 1 else x.dtype
            input_slope = _backward(slope.to(kind), x.to(kind), weight.to(kind), stride, padding, 0).to(x.dtype)
        if ctx.needs_input_grad[1]:
            if size == 5 and max(stride) == 1:
                weight_slope = _by_windows(slope, x, padding)
            else:
                kind = torch.float32 if size == 5 else x.dtype
                weight_slope = _backward(slope.to(kind), x.to(kind), weight.to(kind), stride, padding, 1)
            weight_slope = weight_slope.to(weight.dtype)
        return input_slope, weight_slope, None, None


def _by_windows(slope: Tensor, x: Tensor, padding: tuple[int, int]) -> Tensor:
    """The weight gradient of a 5x5 filter at stride 1 from those of the four 3x3 filters in its corners, which cover it."""
    channels, (height, width) = x.shape[1], slope.shape[-2:]
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    small, out = x.new_empty(channels, 1, 3, 3), x.new_empty(channels, 1, 5, 5)
    for top in (0, 2):
        for left in (0, 2):
            part = padded[:, :, top : top + height + 2, left : left + width + 2]
            part = part.contiguous(memory_format=torch.channels_last)
            out[:, :, top : top + 3, left : left + 3] = _backward(slope, part, small, (1, 1), (0, 0), 1)
    return out


def _backward(slope: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], which: int) -> Tensor:
    """PyTorch's own gradient for the input (`which` 0) or the weight (1)."""
    wanted = [which == 0, which == 1, False]
    found = torch.ops.aten.convolution_backward(
        slope, x, weight, None, list(stride), list(padding), [1, 1], False, [0, 0], x.shape[1], wanted
    )
    gradient: Tensor = found[which]
    return gradient
