"""Temporary changes to what a net computes, always inside `with`. No module is touched: nothing is left to restore."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextmanager
def guided_relu() -> Iterator[None]:
    """Inside, every ReLU and ReLU6 lets back only slopes that are positive, at places where it lets its input through.

    The values of the net stay as they are. Modules, functions and methods are met alike (`nn.ReLU`, `functional.relu6`,
    `x.relu_()` ...), since the calls are rewired, not the modules; a ReLU written as a clamp is not. No graph of one pass may be
    half inside: build it and take its gradient here.

    Source: Springenberg et al., Striving for Simplicity: The All Convolutional Net, ICLR 2015 workshop.

    Raises:
        ValueError: on leaving, if no ReLU was met: then the slopes were ordinary ones.

    Example:
        >>> x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
        >>> with guided_relu():
        ...     (slope,) = torch.autograd.grad((x.relu() * torch.tensor([1.0, 1.0, -1.0])).sum(), x)
        >>> slope
        tensor([0., 1., 0.])
    """
    with _Rewired() as rewired:
        yield
    if not rewired.met:
        raise ValueError(
            "guided backpropagation met no ReLU in this net, so it would be the plain gradient: take a net with ReLU, "
            "or another method"
        )


class _Rewired(TorchFunctionMode):
    """Runs each call of a ReLU as a `_GuidedRelu`, all else as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        cap = relu_cap(func, args, kwargs)
        if cap is None:
            return func(*args, **kwargs)
        self.met += 1
        x = args[0] if args else kwargs["input"]
        place = _IN_PLACE.get(func, 1)
        inplace = place == 0 or kwargs.get("inplace", args[place] if len(args) > place else False)
        return _GuidedRelu.apply(x, cap, inplace)


_CAPS: dict[Any, float] = {
    functional.relu: math.inf,
    torch.relu: math.inf,
    torch.relu_: math.inf,
    Tensor.relu: math.inf,
    Tensor.relu_: math.inf,
    functional.relu6: 6.0,
}

_IN_PLACE = {torch.relu_: 0, Tensor.relu_: 0, functional.hardtanh: 3}
"""Function -> which argument says `inplace`; 0 where the function always is."""


def relu_cap(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Where the function stops rising, if it is a ReLU. `nn.ReLU6` calls hardtanh from 0 to 6."""
    if func is not functional.hardtanh:
        return _CAPS.get(func)
    low, high = (kwargs.get(name, args[i] if len(args) > i else default) for i, name, default in _HARDTANH)
    return float(high) if low == 0 else None


_HARDTANH = ((1, "min_val", -1.0), (2, "max_val", 1.0))


class _GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: float, inplace: bool) -> Tensor:
        out = x.clamp(0, cap)
        ctx.save_for_backward((out > 0) & (out < cap))
        if not inplace:
            return out
        ctx.mark_dirty(x)
        return x.copy_(out)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (passes,) = ctx.saved_tensors
        return slopes[0].relu() * passes, None, None
