"""The trained masking network: a small decoder that draws, in one pass, which pixels the classifier needs for a class."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol._names import closest
from wsol.models.heads.base import at_least_float32
from wsol.models.heads.decoders import PixelHead
from wsol.models.localizer import Features

_FLOOR = 5e-4
"""Added to |a| and to |b|: the mask of a = b = 0 would be NaN. (The released iterative version adds 0.001 to the sum.)"""


class Masker(PixelHead):
    """A classification head, and around it a decoder that draws a mask in [0, 1] for a class one asks for.

    Logits, maps and bags are those of the head `base`; the decoder runs only in `mask`. It is the authors' network on the stages
    of the net itself: the embedding E_c of the class gates the last stage, F(p) sigmoid(E_c . F(p) - confidence), and a U-Net
    decodes it up to the second stage (stride 4): sub-pixel upsampling, the finer stage beside it, a residual bottleneck. Between
    stages of equal stride the sub-pixels are averaged instead. The last two channels a, b give M = |a| / (|a| + |b|).

    It is trained by the strategy `masker`, which leaves `base` and the backbone as they are.

    The authors use a ResNet-50 and width 64; at the default of 16 the decoder costs a third of EfficientNet-Lite0.

    Attributes:
        base: the head that classifies.
        confidence: see `__init__`.
    """

    paper = (
        "Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NIPS 2017; "
        "architecture as in their released code (PiotrDabkowski/pytorch-saliency)"
    )

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        base: str = "gap",
        base_options: Mapping[str, Any] | None = None,
        width: int = 16,
        confidence: float = 6.0,
        activation: Literal["ratio", "sigmoid"] = "ratio",
    ) -> None:
        """Options.

        Args:
            channels: of all stages, at least two.
            num_classes: k.
            base: key of `HEADS`, the head that classifies.
            base_options: its keyword arguments.
            width: channels of the decoder at its finest stage, doubled at each coarser one; a multiple of 4.
            confidence: logit that the gate of a drawn mask takes off (training takes 0, as the authors do): the lower, the more
                complete the mask; they draw with 6.
            activation: "ratio" |a| / (|a| + |b|), or "sigmoid" of a / 2.

        Raises:
            ValueError: too few stages, or an option out of range.
        """
        super().__init__(channels, num_classes, base=base, base_options=base_options)
        if len(channels) < 2:
            raise ValueError(f"the masking network decodes to the second stage; this backbone has {len(channels)} stage")
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4 (the bottlenecks take a quarter of it); got {width}")
        if activation not in ("ratio", "sigmoid"):
            raise ValueError(closest("activation", activation, ("ratio", "sigmoid")))
        self.confidence = confidence
        self.activation = activation
        self.selector = nn.Embedding(num_classes, channels[-1])
        nn.init.normal_(self.selector.weight, std=channels[-1] ** -0.5)
        skips = channels[-2:0:-1]
        widths = [width * 2**i for i in reversed(range(len(skips)))]
        self.steps = nn.ModuleList(_Step(i, s, o) for i, s, o in zip([channels[-1], *widths[:-1]], skips, widths, strict=True))
        self.last = nn.Conv2d(widths[-1] if widths else channels[-1], 2, 1)

    def decode(self, f: Features) -> None:
        """No pixels: a mask is of one class, which one has to ask for."""

    def activity(self, f: Features, targets: Tensor) -> Tensor:
        """E_c . F(p) of each image's class `targets` int64 (b,): (b, h, w), float32 at least."""
        x = at_least_float32(f.last)
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("bc,bchw->bhw", self.selector(targets).to(x.dtype), x)

    def existence(self, f: Features, targets: Tensor) -> Tensor:
        """Logits (b, 2) of "the class `targets` (b,) is absent, is there": (-e / 2, e / 2), e the mean activity."""
        mean = self.activity(f, targets).mean((1, 2))
        return torch.stack([-mean / 2, mean / 2], 1)

    def mask(self, f: Features, targets: Tensor, confidence: float | None = None) -> Tensor:
        """The mask of one class per image.

        Args:
            f: features with every stage from the second on.
            targets: int64 (b,).
            confidence: other than that of the head.

        Returns:
            (b, h', w') in [0, 1], as large as the second stage, float32 at least. Its gradient reaches the decoder, not the
            embedding: that learns from `existence` alone.

        Raises:
            ValueError: the features lack a stage.
        """
        if len(f.stages) < len(self.steps) + 1:
            raise ValueError(
                f"the masking network reads the last {len(self.steps) + 1} stages; the features hold {len(f.stages)}: give "
                "those of net.encode(images)"
            )
        off = self.confidence if confidence is None else confidence
        gate = torch.sigmoid(self.activity(f, targets).detach() - off)
        x = at_least_float32(f.last) * gate[:, None]
        for step, finer in zip(self.steps, reversed(f.stages[-1 - len(self.steps) : -1]), strict=True):
            x = step(x, at_least_float32(finer))
        x = at_least_float32(self.last(x))
        if self.activation == "sigmoid":
            return torch.sigmoid(x[:, 0] / 2)
        a, b = (x.abs() + _FLOOR).unbind(1)
        return a / (a + b)


class _Step(nn.Module):
    """From one stage to the finer one below it."""

    def __init__(self, inside: int, beside: int, outside: int) -> None:
        super().__init__()
        self.widen = nn.Sequential(*_normed(inside, 4 * outside, 3), nn.ReLU())
        quarter, joined = outside // 4, outside + beside
        inner = itertools.chain(
            _normed(joined, quarter, 1), [nn.ReLU()], _normed(quarter, quarter, 3), [nn.ReLU()], _normed(quarter, outside, 1)
        )
        self.bottleneck = nn.Sequential(*inner)
        self.shortcut = nn.Conv2d(joined, outside, 1)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """(b, `inside`, h, w) and the finer stage (b, `beside`, h', w') -> (b, `outside`, h', w')."""
        y = functional.pixel_shuffle(self.widen(x), 2)
        if x.shape[2:] == finer.shape[2:]:
            y = functional.avg_pool2d(y, 2)
        y = torch.cat([y[..., : finer.shape[2], : finer.shape[3]], finer], 1)  # a stage of odd size is half, rounded up
        return torch.relu(self.bottleneck(y) + self.shortcut(y))


def _normed(inside: int, outside: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outside)
