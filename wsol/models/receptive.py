"""How far a net sees, and what it costs: what is needed to run it over a large image block by block, and get the same cells.

The reach is not guessed and not added up from kernel sizes: NaN is put where a block does not look, and the cells of the last
stage that turn NaN are those that the cut spoils. NaN passes through every layer, zero weights and ReLU included, so what is
found is what the architecture can see, not what these weights happen to look at. What computes with comparisons or windows could
still hide from it; therefore blocks are compared with the whole afterwards.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsol.models.localizer import Localizer

FURTHEST = 4096
"""px: a net that reaches further than half of this is not run block by block."""

CUTS = (1, 2, 3)
"""Cells by which an image is cut where blocks are compared with the whole: windows and patches of any period show."""

CLOSE = 1e-5
"""Largest difference between block and whole, as a share of the largest value: rounding of another order of sums."""


class GlobalReachError(ValueError):
    """The net's cells depend on the whole image, or on where it begins: no block says what the whole says."""


class Span(NamedTuple):
    """What a block reads along one axis.

    Attributes:
        start: first px.
        stop: px behind the last one.
        skip: cells of the block before the first one that is kept.
    """

    start: int
    stop: int
    skip: int


class Reach(NamedTuple):
    """How blocks of an axis of `length` px are to be cut so that their cells are those of the whole.

    Attributes:
        before: cells that a cut on the left, or above, spoils.
        after: cells that a cut on the right, or below, spoils.
        stride: px per cell.
        length: px of the whole axis.
        cells: cells of the whole axis.
    """

    before: int
    after: int
    stride: int
    length: int
    cells: int

    def span(self, first: int, last: int) -> Span:
        """What to read for the cells `first` to `last` - 1. Only at the image's own border does it end where it does.

        A block starts at a whole cell, and its length has the remainder of the whole one's: layers that pad on one side more
        than on the other (TensorFlow's 'SAME') decide that by the remainder.
        """
        if not 0 <= first < last <= self.cells:
            raise ValueError(f"cells must be a range in 0..{self.cells}; got {first} to {last}")
        start = max(0, first - self.before)
        rest = self.length % self.stride
        partial = self.cells - self.length // self.stride  # the cell of the rest, where the net makes one
        stop = (last + self.after - partial) * self.stride + rest
        return Span(start * self.stride, min(self.length, max(stop, start * self.stride + 1)), first - start)


def reach(net: Localizer, size: tuple[int, int]) -> tuple[Reach, Reach]:
    """The reach of the last stage (down, across) in images of `size` (H, W) px, found by NaN and checked by blocks.

    Raises:
        GlobalReachError: squeeze-and-excite, attention, instance or group norm, windows, a reach beyond half of `FURTHEST`, or a
            module that takes no such image; the message says what was seen.
    """
    with torch.inference_mode():
        down, across = (_axis(net, length, axis) for axis, length in zip((2, 3), size, strict=True))
    return down, across


def _axis(net: Localizer, length: int, axis: int) -> Reach:
    """The reach along one axis: on longer and longer strips until some cells stay clean on both sides."""
    stride, rest = net.output_stride, length % net.output_stride
    strip = 512 // stride * stride + rest
    while strip <= FURTHEST + rest:
        middle = (strip - rest) // 2
        images = _noise(net, strip, axis, count=2)
        images[0].narrow(axis - 1, 0, middle).fill_(torch.nan)
        images[1].narrow(axis - 1, middle + rest, strip - middle - rest).fill_(torch.nan)
        spoiled = _encoded(net, images).isnan().any(1).any(5 - axis - 1)
        left, right = (s.nonzero().flatten() for s in spoiled)
        cells = spoiled.shape[1]
        before = int(left[-1]) + 1 - middle // stride if len(left) else 0
        kept = cells - (strip - middle - rest) // stride  # cells of the clean part by itself
        after = kept - int(right[0]) if len(right) else 0
        if before + middle // stride < cells and after < kept:
            extra = cells - strip // stride
            found = Reach(max(before, 0), max(after, 0), stride, strip, cells)
            _check(net, found, axis)
            return found._replace(length=length, cells=length // stride + extra)
        strip = 2 * (strip - rest) + rest
    raise GlobalReachError(
        f"a pixel reaches cells more than {FURTHEST // 2} px away, as with squeeze-and-excite, attention, instance or group norm"
    )


def _check(net: Localizer, found: Reach, axis: int) -> None:
    """Raise unless blocks of a random image give the cells of the whole."""
    least = (found.before + found.after + 2 * max(CUTS) + 2) * found.stride
    rest = found.length % found.stride
    whole = found._replace(length=least + rest, cells=least // found.stride + found.cells - found.length // found.stride)
    images = _noise(net, whole.length, axis)
    expected = _encoded(net, images)
    limit = CLOSE * float(expected.abs().max())
    for cut in CUTS:
        first, last = whole.before + cut, whole.cells - whole.after - cut
        start, stop, skip = whole.span(first, last)
        block = _encoded(net, images.narrow(axis, start, stop - start))
        wanted = expected.narrow(axis, first, last - first)
        got = block.narrow(axis, skip, min(last - first, block.shape[axis] - skip))
        error = float((got - wanted).abs().max()) if got.shape == wanted.shape else float("inf")
        if not error <= limit:
            raise GlobalReachError(
                f"cells of a block differ by {error:.2g} from those of the whole, as with windows, positions, or statistics of "
                "the image"
            )


def _noise(net: Localizer, strip: int, axis: int, count: int = 1) -> Tensor:
    """Random images that are long along `axis` and a few cells wide."""
    wide = 2 * net.output_stride
    size = (strip, wide) if axis == 2 else (wide, strip)
    first = next(net.parameters())
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0)).to(first.device, first.dtype)


def _encoded(net: Localizer, images: Tensor) -> Tensor:
    """The last stage. A module of somebody else's may refuse a strip as it likes: it is then not for blocks."""
    try:
        return net.encode(images).last
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise GlobalReachError(f"it takes no image of {tuple(images.shape[2:])} px ({error})") from error


class _Held(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._hold(tensor)
        return out

    def _hold(self, tensor: Tensor) -> None:
        key, size = tensor.untyped_storage()._cdata, tensor.untyped_storage().nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def bytes_per_pixel(net: Localizer, side: int = 256) -> float:
    """Bytes that an encode holds at its peak, per pixel of its images: all tensors alive at once, and the images themselves.

    Work space inside the libraries is not seen; on a CPU it is about as much as the largest layer's output.
    """
    first = next(net.parameters())
    images = torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype)
    with torch.no_grad(), _Held() as held:
        net.encode(images)
    return (held.peak + images.untyped_storage().nbytes()) / side**2
