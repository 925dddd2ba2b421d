"""`Evidence`: what the methods read, and the questions they may ask the net beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wsol.cams.sight import look, plain
from wsol.models import Features, Localizer, Prediction, Quantized

Make = Callable[[slice], Tensor]
"""Rows of a batch too large to hold: a slice of row numbers -> those rows."""

BUDGET = 2**25
"""Bytes that one chunk of changed features or images may take, with what the net makes of it; a rough estimate.

For a CPU: small chunks stay in its caches and reuse their memory; above a last stage 2^28 takes 2 to 3 times as long.
"""

_WORKSPACE = 8  # a residual block holds about 4 tensors of its output's size, an inverted bottleneck 2 of 6 times its input's

_HELD = 4  # where every layer's output is known: one is read, one made, a shortcut waits, and one to spare

_SAMPLE = 8  # changed images, besides the batch, that show the ranges for int8


class Affine(NamedTuple):
    """A head that is affine in the last stage: logits = weight . mean_p F(p) + bias."""

    weight: Tensor  # (k, c)
    bias: Tensor  # (k,)

    def maps(self, features: Tensor) -> Tensor:
        """Features (n, c, h, w) -> weight . F(p) / (h w), (n, k, h, w): what each cell adds to the logits."""
        return torch.einsum("kc,nchw->nkhw", self.weight, features) / (features.shape[2] * features.shape[3])


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one encode and one backward say about a batch; all methods read the same one.

    Attributes:
        net: in evaluation mode.
        features: detached; its stages are counted from the end.
        prediction: what the head said, detached; logits are float32 (b, k).
        targets: int64 (b,), the class each map is drawn for.
        slopes: stage, counted from the end (-1 = last) -> d logit_target / d stage, (b, c, h, w). Only the stages that the
            methods at hand asked for.
        images: float (b, 3, H, W) in [0, 1]; None where only features were given, and no method at hand needs images.
        generator: randomness of stochastic methods, on the CPU: draw there, then move. Each method starts at the same state, so
            its map does not depend on which others are drawn with it. Draws are shared by the images of the batch, so that a map
            does not depend on its batch either.
        budget: bytes that a chunk of changed features or images may take.
    """

    net: Localizer
    features: Features
    prediction: Prediction
    targets: Tensor
    slopes: Mapping[int, Tensor] = field(default_factory=dict)
    images: Tensor | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    budget: int = BUDGET

    @property
    def logits(self) -> Tensor:
        """float32 (b, k)."""
        return self.prediction.logits

    @property
    def pixels(self) -> Tensor:
        """The images, float32 (b, 3, H, W)."""
        if self.images is None:
            raise ValueError("this method changes the images: give images, not only features")
        return plain(self.images)

    @property
    def row(self) -> int:
        """Bytes that the whole net takes for one image, a rough estimate from the features, and from what is not among them."""
        known = _bytes(self.features.stages) * _WORKSPACE
        if self.images is None:
            return known
        density = max(3.0, getattr(self.net.backbone, "density", 0.0))  # values per pixel; the image itself has three
        return max(known, int(4 * density * self.images[0, 0].numel()) * _HELD)

    @property
    def scores(self) -> Tensor:
        """The target's logit of each image, (b,)."""
        return self.of_target(self.logits)

    def of_target(self, logits: Tensor, owners: Tensor | None = None) -> Tensor:
        """The target's column of logits (n, k); `owners` (n,) says which image of the batch each row belongs to."""
        targets = self.targets if owners is None else self.targets[owners]
        return logits.gather(1, targets[:, None])[:, 0]

    def stage(self, layer: int) -> Tensor:
        """Features of one stage, float32 (b, c, h, w)."""
        return self.features.stages[self._back(layer)].float()

    def at(self, layer: int) -> tuple[Tensor, Tensor]:
        """Features and slope of one stage, float32 (b, c, h, w)."""
        return self.stage(layer), self.slopes[self._back(layer)].float()

    def affine(self, layer: int) -> Affine | None:
        """The tail above `layer` as a closed form, None if it has none: it has at the last stage of a GAP head.

        A head says so with `affine = True` and `weight`, `bias`.
        """
        head: Any = self.net.head
        if self._back(layer) != -1 or not getattr(head, "affine", False):
            return None
        return Affine(head.weight.detach().float(), head.bias.detach().float())

    @torch.no_grad()
    def tail(self, features: Tensor | Make, layer: int = -1, count: int | None = None) -> Tensor:
        """Logits of changed features: the stages above `layer`, then the head.

        Rows need not be images of the batch: there may be any number of them. They run in chunks that fit `budget`, in float32
        (float64 in a float64 net), without a graph. The head sees the stages from `layer` on, no finer ones and no `extra`.

        Args:
            features: (n, c, h, w); or a function that makes the rows of a slice, of `count` rows in all.
            layer: the stage that the features stand for.
            count: n, with a function.

        Returns:
            float32 (n, k).
        """
        make, count = _maker(features, count)
        number = self.net.stage_number(layer)
        above = self.features.stages[self._back(layer) :]
        row = _bytes(above) * (_WORKSPACE if len(above) > 1 else 3)
        return self._run(make, count, row, lambda x: self._from_stage(number, x))

    @torch.no_grad()
    def score(self, images: Tensor | Make, count: int | None = None, half: bool = False, int8: bool = False) -> Tensor:
        """Logits of changed images: the whole net on any number of them, in chunks that fit `budget`, without a graph.

        Args:
            images: (n, 3, H, W) in [0, 1]; or a function that makes the rows of a slice, of `count` rows in all.
            count: n, with a function.
            half: run the backbone in bfloat16 (the head stays float32).
            int8: run its convolutions in 8 bits, see `Quantized`; their ranges are those of the batch and the first rows.

        Returns:
            float32 (n, k).

        Raises:
            ValueError: `half` or `int8` for a net of float64, which would stay as it is.
        """
        make, count = _maker(images, count)
        if (half or int8) and any(p.dtype == torch.float64 for p in self.net.parameters()):
            option = "bf16" if half else "int8"
            raise ValueError(f"{option}=True is for a float32 net, this one is float64: leave {option} out, or call net.float()")
        digits: AbstractContextManager[object] = nullcontext()
        if int8 and count:
            sample = torch.cat([self.pixels, make(slice(0, min(count, _SAMPLE)))]).contiguous(memory_format=torch.channels_last)
            digits = Quantized(lambda: self.net.encode(sample))

        def run(x: Tensor) -> Prediction:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=half), digits:
                features = self.net.encode(x)
            return self._head(features)

        return self._run(make, count, self.row, run)

    def look(self, images: Tensor, layers: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Layer -> features and slope, float32 (b, c, h, w), for other images of the same batch (noisy ones): one more pass."""
        numbers = {layer: self.net.stage_number(layer) for layer in layers}
        sight = look(self.net, images, None, self.targets, sorted(set(numbers.values())))
        back = {layer: self._back(layer) for layer in layers}
        return {layer: (sight.features.stages[i].float(), sight.slopes[i].float()) for layer, i in back.items()}

    def _back(self, layer: int) -> int:
        return self.net.stage_number(layer) - len(self.net.backbone.channels)

    def _from_stage(self, number: int, x: Tensor) -> Prediction:
        if number == len(self.net.backbone.channels) - 1:
            return self._head(Features((x,)))
        above = self.net.encode(x, start=number + 1)
        return self._head(Features((x, *above.stages), above.extra))

    def _head(self, features: Features) -> Prediction:
        """The head; where it has `logits(f)`, which leaves a decoder out, only that."""
        head: Any = self.net.head
        if callable(getattr(type(head), "logits", None)):  # of the class: a part of the head may bear the name, too
            return Prediction(head.logits(features))
        prediction: Prediction = head(features)
        return prediction

    def _run(self, make: Make, count: int, row: int, net: Callable[[Tensor], Prediction]) -> Tensor:
        parts = [self.logits.new_empty((0, self.logits.shape[1]))]
        double = next((p.dtype == torch.float64 for p in self.net.parameters()), False)
        with torch.autocast(self.logits.device.type, enabled=False):
            for part in chunks(count, row, self.budget):
                rows = make(part).to(torch.float64 if double else torch.float32)
                parts.append(net(rows).logits.float())
        return torch.cat(parts)


def budget_of(device: torch.device) -> int:
    """The budget without a word of the caller: `BUDGET` on a CPU, 16 times as much elsewhere, to keep a GPU busy."""
    return BUDGET if device.type == "cpu" else 16 * BUDGET


def chunks(count: int, row: int, budget: int) -> Iterator[slice]:
    """Slices that cover 0..count - 1, each of as many rows of `row` bytes as fit `budget`, and of one at least."""
    size = max(1, budget // row)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _maker(rows: Tensor | Make, count: int | None) -> tuple[Make, int]:
    if isinstance(rows, Tensor):
        return rows.__getitem__, len(rows)
    if count is None:
        raise ValueError("a function that makes rows needs count=, how many rows there are")
    return rows, count


def _bytes(stages: Sequence[Tensor]) -> int:
    """Bytes of one image's largest stage in float32."""
    return max(4 * stage[0].numel() for stage in stages)
