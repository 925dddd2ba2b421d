"""Convolutions in 8 bits, always inside `with`. As in `rewire` the calls are replaced, no module is touched.

A run in float32 is watched first. It shows how large the inputs of each convolution are, and who reads what: a batch norm and a
ReLU that alone read the result become part of the convolution, and where then one convolution alone reads it, it stays in 8 bits
between them. Calls are told apart by their order, so each later run must make the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from wsol.models.rewire import relu_cap

LEVELS = 127
"""Inputs take 0..127, 7 bits: processors without VNNI add pairs of products in 16 bits, where the eighth would overflow."""


class Quantized(TorchFunctionMode):
    """Inside `with`, the calls that `run` made are made again with the convolutions in 8 bits; all else stays float32.

    Weights are rounded to 8 bits, with one scale per output channel, after batch norm is folded in; inputs to 7 bits, with one
    scale per convolution from the range that `run` showed: what lies beyond it later is clipped. On a CPU, without gradients, for
    float32; other convolutions run as they are. The computing is oneDNN's.

    Example:
        >>> quick = Quantized(lambda: net.encode(sample))
        >>> with quick:
        ...     features = net.encode(images)
    """

    def __init__(self, run: Callable[[], object]) -> None:
        """`run` is called once, as it is, on images that show the ranges to come.

        Raises:
            ValueError: it met no convolution that can run in 8 bits.
        """
        super().__init__()
        with torch.no_grad(), _Watch() as watch:
            result = run()
            watch.note_survivors()
        del result  # alive until here, so that what the caller may read stays float32
        self._functions = [call.function for call in watch.calls]
        self._steps = dict(_steps(watch.calls))
        self._next = 0
        if not self._steps:
            raise ValueError(
                "int8 met no float32 convolution on a CPU (or this torch has no oneDNN), so it would change nothing: leave it out"
            )

    def __enter__(self) -> Self:
        """Start at the first call again."""
        self._next = 0
        super().__enter__()
        return self

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Called by torch in place of each of its functions.

        Raises:
            RuntimeError: it is not the one that `run` called at this point.
        """
        kwargs = kwargs or {}
        if _is_getter(func):
            return func(*args, **kwargs)
        number, self._next = self._next, self._next + 1
        if number >= len(self._functions) or self._functions[number] is not func:
            raise RuntimeError(
                f"int8 needs a net that does the same for all images, but this one calls {getattr(func, '__name__', func)} where "
                "it called something else before: leave int8 out"
            )
        if number not in self._steps:
            return func(*args, **kwargs)
        step, x = self._steps[number], args[0] if args else kwargs["input"]
        return x if step is None else step(x)


@dataclass(frozen=True, eq=False)
class _Conv:
    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    low: float  # of the input, and 0
    high: float


@dataclass(frozen=True, eq=False)
class _Norm:
    factor: Tensor  # batch norm is factor x + shift
    shift: Tensor


@dataclass(eq=False)
class _Call:
    function: Any
    what: _Conv | _Norm | float | Literal["pad"] | None  # a number: a ReLU with this cap
    source: int | None  # the call that made its input
    readers: list[int | None] = field(default_factory=list)  # numbers of the calls that read its output; None: somebody outside


class _Watch(TorchFunctionMode):
    """Notes the calls, and which reads the output of which."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self._makers = WeakTensorKeyDictionary()  # tensor -> number of the call that made it, or was last to change it in place

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        number = None if _is_getter(func) else len(self.calls)
        read = _tensors((args, kwargs))
        makers = [self._makers.get(x) for x in read]
        what = self._kind(func, args, kwargs)
        out = func(*args, **kwargs)
        made = _tensors(out)
        if number is not None:
            self.calls.append(_Call(func, what, makers[0] if makers else None))
            for x in made:
                self._makers[x] = number
        if made or getattr(func, "__name__", "") not in _OF_SHAPE:
            for maker in makers:
                if maker is not None:
                    self.calls[maker].readers.append(number)
        return out

    def note_survivors(self) -> None:
        """Whatever is still alive may be read from outside."""
        for number in self._makers.values():
            self.calls[number].readers.append(None)

    def _kind(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Conv | _Norm | float | Literal["pad"] | None:
        """What the call is, as far as it matters here."""
        if func is torch.conv2d:
            return self._conv(**dict(zip(_CONV, args, strict=False)), **kwargs)
        if func is functional.batch_norm:
            return _norm(**dict(zip(_NORM, args, strict=False)), **kwargs)
        if func is functional.pad:
            return "pad" if not kwargs.get("value") and kwargs.get("mode", "constant") == "constant" else None  # with zeros
        return relu_cap(func, args, kwargs)

    def _conv(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> _Conv | None:
        usual = input.ndim == 4 and input.dtype == torch.float32 and not isinstance(padding, str)
        if not usual or input.device.type != "cpu" or weight in self._makers or not torch.backends.mkldnn.is_available():
            return None  # weights that are made anew in each run may be others in the next
        low, high = (float(end) for end in input.aminmax())
        return _Conv(weight, bias, _two(stride), _two(padding), _two(dilation), groups, min(low, 0.0), max(high, 0.0))


_OF_SHAPE = ("__get__", "dim", "size", "numel", "stride", "is_contiguous")  # who asks this does not read the values

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def _norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> _Norm | None:
    if training or running_mean is None or running_var is None:
        return None
    factor = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    return _Norm(factor, (0 if bias is None else bias) - running_mean * factor)


def _steps(calls: list[_Call]) -> Iterator[tuple[int, _Step | None]]:
    """(number of a call, what to do in its place); None: nothing, a convolution before has done it."""
    for number, call in enumerate(calls):
        if not isinstance(call.what, _Conv):
            continue
        norm, cap, then = None, None, None
        following = _following(calls, number)
        if following is not None and isinstance(found := calls[following].what, _Norm):
            yield following, None
            norm, following = found, _following(calls, following)
        if following is not None and isinstance(top := calls[following].what, float):
            yield following, None
            cap, following = top, _following(calls, following)
            if following is not None and calls[following].what == "pad":
                following = _following(calls, following)
            if following is not None and isinstance(reader := calls[following].what, _Conv):
                then = reader
        yield number, _Step(call.what, norm, cap, then)


def _following(calls: list[_Call], number: int) -> int | None:
    """The one call that reads the output of call `number`, as its input; None where there are several, or others."""
    readers = calls[number].readers
    return readers[0] if len(readers) == 1 and readers[0] is not None and calls[readers[0]].source == number else None


class _Step:
    """One convolution in 8 bits, with the batch norm and the ReLU behind it."""

    def __init__(self, conv: _Conv, norm: _Norm | None, cap: float | None, then: _Conv | None) -> None:
        """`then` is the convolution that reads the 8 bits put out; None: put out float32."""
        weight = conv.weight.detach()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach()
        if norm is not None:
            weight, bias = weight * norm.factor.detach()[:, None, None, None], bias * norm.factor + norm.shift
        tiny = torch.finfo(torch.float32).tiny
        self.scale = max((conv.high - conv.low) / LEVELS, tiny)
        self.zero = round(-conv.low / self.scale)
        self.weight_scale = (weight.abs().amax((1, 2, 3)) / 127).clamp(min=tiny)
        rounded = (weight / self.weight_scale[:, None, None, None]).round().to(torch.int8)
        self.weight_zero = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = bias.detach().contiguous()
        self.place = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.weight = torch.ops.onednn.qconv_prepack(rounded, self.weight_scale, self.scale, self.zero, *self.place)
        if then is not None and cap is not None:
            cap = min(cap, then.high)  # beyond its 7 bits
            self.out: tuple[Any, ...] = (max(then.high / LEVELS, tiny), 0, torch.uint8)
        else:
            self.out = (1.0, 0, torch.float32)
        finite = cap is not None and cap < math.inf
        self.after = ("none" if cap is None else "hardtanh" if finite else "relu", [0.0, cap] if finite else [], "")

    def __call__(self, x: Tensor) -> Tensor:
        """Float32, or 8 bits of the convolution before -> float32, or 8 bits for the one that follows."""
        if x.dtype != torch.uint8:
            x = x.mul(1 / self.scale).add_(self.zero + 0.5).clamp_(0, LEVELS).to(torch.uint8)
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(
            x,
            self.scale,
            self.zero,
            self.weight,
            self.weight_scale,
            self.weight_zero,
            self.bias,
            *self.place,
            *self.out,
            *self.after,
        )
        return y


def _two(size: int | tuple[int, ...] | list[int]) -> list[int]:
    """One number for both axes, or the two (of a tuple of one, too)."""
    sizes = [size] if isinstance(size, int) else list(size)
    return sizes * 2 if len(sizes) == 1 else sizes


def _is_getter(func: Any) -> bool:
    """Whether it is the reading of an attribute, such as the shape."""
    return getattr(func, "__name__", "") == "__get__"


def _tensors(x: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(x, Tensor):
        return [x]
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, tuple | list) else ()
    return [found for part in parts for found in _tensors(part)]
