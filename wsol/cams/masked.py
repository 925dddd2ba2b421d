"""Methods that weight each channel by what the net says of the image seen through it: one run of the whole net per channel.

An image x seen through a mask m is fill + m (x - fill). The masks are N(up(A_k)): a channel, resized to the image (bilinear),
then min-max scaled. A channel without contrast shows nothing and weighs nothing. One such run gives the logits of every class, so
methods of one `cams` call share it, and `score_cams` draws all classes from it.

They belong to stages that end in an activation (A >= 0): of a signed channel the mask shows what is least negative, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import mul
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from wsol._names import closest
from wsol.cams.base import Evidence, OneLayer
from wsol.cams.drawing import check_images, check_net, drawer
from wsol.cams.evidence import BUDGET
from wsol.cams.hiding import Digits, Fill, checked_digits, checked_fill, contrast, probabilities, scaled, through
from wsol.cams.sight import look
from wsol.models import Localizer

Weighting = Literal["prob", "softmax_logit"]

_MODES = ("init", "final", "final_channelnorm", "final_single")
_PLAIN: WeakKeyDictionary[Evidence, dict[tuple[Any, ...], Tensor]] = WeakKeyDictionary()


class ScoreCam(OneLayer):
    """Score-CAM: sum_k w_k A_k(p), w_k what the net says of the image seen through N(up(A_k)); the paper rectifies it last.

    `weighting="prob"` is the authors' code: w_k is the probability of the target (softmax over classes, sigmoid of a single
    logit), no baseline. "softmax_logit" is the paper: w = softmax over channels of the target's logit, where a baseline cancels;
    it is nearly one-hot where logits spread.

    `fill="mean"` hides with the color that the backbone normalizes to 0, as the authors do, who mask the normalized image;
    "white" is the empty glass of a slide.

    `bf16=True` runs the backbone in bfloat16, which pays on a GPU or a processor with bfloat16 instructions; without them it took
    ten times as long. How much it changes depends on the net and the image: with EfficientNet-Lite0 and a linear head fitted on
    GlaS, the scaled maps of two images moved by 0.12 and 0.014 at most, and by 0.15 and 0.048 with "softmax_logit"; with a
    net trained as a whole, that of one crop (24 channels) by 0.007 and 0.009, at an IoU of 0.999. Compare on your own net first.

    `int8=True` runs its convolutions in 8 bits on a CPU, see `Quantized`: with AVX2 alone 1.4 to 1.6 times as quick, calibration
    and masking included (the encode by itself 2.1 to 2.9 times). Ranges come from the images of the batch and their first masks,
    so a map depends on its batch by a rounding. With EfficientNet-Lite0 trained on GlaS, on crops of 224 px of four images, 256
    random channels each, the scaled map moved by 0.002 to 0.020 at most, IoU at half its maximum 0.984 to 0.998; with
    "softmax_logit", which magnifies what moves a logit, by up to 0.068, IoU 0.928 to 0.997.
    """

    needs_gradient = False
    needs_images = True
    local = False
    rectified = True
    paper = "Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops 2020"

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        weighting: Weighting = "prob",
        fill: Fill = "mean",
        bf16: bool = False,
        int8: bool = False,
    ) -> None:
        """`layers` holds the one stage to read, (-1,) without it; for the others see the class."""
        super().__init__(layers=layers)
        if weighting not in ("prob", "softmax_logit"):
            raise ValueError(closest("weighting", weighting, ("prob", "softmax_logit")))
        self.weighting = weighting
        self.fill = checked_fill(fill)
        self.digits = checked_digits(bf16, int8)

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The target's map."""
        every = self.class_maps(evidence)
        return every[torch.arange(len(every), device=every.device), evidence.targets]

    def class_maps(self, evidence: Evidence) -> Tensor:
        """The map of every class, (b, k, h, w), whatever the targets."""
        scores = self.scores(evidence)
        if self.weighting == "softmax_logit":
            scores = torch.softmax(scores.nan_to_num(nan=-torch.inf), 1)  # NaN where no channel of the image has contrast
        return torch.einsum("bck,bchw->bkhw", scores.nan_to_num(nan=0.0), evidence.stage(self.layer))

    def scores(self, evidence: Evidence) -> Tensor:
        """Probabilities or logits of the image through each channel, (b, c, k); NaN for channels without contrast."""
        return self.said(_through_channels(evidence, self.layer, self.fill, self.digits))

    def said(self, logits: Tensor) -> Tensor:
        """What counts of logits (..., k)."""
        return probabilities(logits) if self.weighting == "prob" else logits


class SsCam(ScoreCam):
    """SS-CAM: Score-CAM whose scores are means over `n` noisy masks, N(up(A_k)) + normal noise of deviation `sigma`.

    The paper's variant with noise on the feature map; the masks are not clipped. All channels and images get the same `n` fields
    of noise, so that their weights differ by what the channels show, and a map does not depend on its batch. Our reading: no
    authors' code is public; n and sigma are those of torch-cam. It costs n times Score-CAM.
    """

    paper = "Naidu et al., SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization, arXiv 2006.14255"

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        n: int = 35,
        sigma: float = 2.0,
        weighting: Weighting = "softmax_logit",
        fill: Fill = "mean",
        bf16: bool = False,
        int8: bool = False,
    ) -> None:
        """`sigma` in units of the mask, whose contrast is 1; the others as for Score-CAM."""
        super().__init__(layers=layers, weighting=weighting, fill=fill, bf16=bf16, int8=int8)
        if n < 1 or sigma < 0:
            raise ValueError(f"n must be at least 1 and sigma at least 0; got n={n}, sigma={sigma}")
        self.n = n
        self.sigma = sigma

    def scores(self, evidence: Evidence) -> Tensor:
        """Means over the noise."""
        images = evidence.pixels

        def noisy() -> Callable[[Tensor], Tensor]:
            noise = self.sigma * torch.randn(images.shape[2:], generator=evidence.generator).to(images.device)
            return lambda masks: masks + noise

        changes = (noisy() for _ in range(self.n))
        return _mean(self.said(_through_channels(evidence, self.layer, self.fill, self.digits, change)) for change in changes)


class IsCam(ScoreCam):
    """IS-CAM: Score-CAM whose scores are means over `n` exposures a_i of the mask, a_i N(up(A_k)), i = 1..n.

    "cumulative" takes a_i = (1 + ... + i) / n, as both third-party readings of the paper do; it ends at (n + 1) / 2, so most
    masks let more than the whole image through. "linear" takes a_i = i / n, the integral of the name. No authors' code is public.
    It costs n times Score-CAM.
    """

    paper = "Naidu et al., IS-CAM: Integrated Score-CAM for axiomatic-based explanations, arXiv 2010.03023"

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        n: int = 10,
        path: Literal["cumulative", "linear"] = "cumulative",
        weighting: Weighting = "softmax_logit",
        fill: Fill = "mean",
        bf16: bool = False,
        int8: bool = False,
    ) -> None:
        """`n` exposures along `path`; the others as for Score-CAM."""
        super().__init__(layers=layers, weighting=weighting, fill=fill, bf16=bf16, int8=int8)
        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        if path not in ("cumulative", "linear"):
            raise ValueError(closest("path", path, ("cumulative", "linear")))
        self.exposures = [(i * (i + 1) / 2 if path == "cumulative" else i) / n for i in range(1, n + 1)]

    def scores(self, evidence: Evidence) -> Tensor:
        """Means over the exposures."""
        return _mean(
            self.said(_through_channels(evidence, self.layer, self.fill, self.digits, partial(mul, a))) for a in self.exposures
        )


class AbsCam(OneLayer):
    """Abs-CAM: sum_k alpha_k A_k(p) with alpha_k = mean_p |g_k(p)|, then weighted by what the net sees through the channels.

    Our reconstruction: of the second phase the paper's abstract says only that the initial map is combined with the image, and no
    code is public. p_k is the probability of the target for the image through N(up(A_k)), as in Score-CAM:

    * "init" is the first phase alone. It costs one backward, and is at least Grad-CAM where A >= 0. Its weights have no sign, so
      it also lights what argues against the class; at two classes with opposite logits both get the same map.
    * "final", our choice: sum_k p_k alpha_k A_k, which keeps both phases.
    * "final_channelnorm": sum_k p_k N(alpha_k A_k), a third-party reading; N cancels alpha: it is Score-CAM of scaled channels.
    * "final_single": p N(sum_k alpha_k A_k), p for the image through that one mask; another third-party reading, which after
      min-max scaling is "init".
    """

    needs_gradient = True
    needs_images = True
    local = False
    rectified = True
    paper = (
        "Zeng et al., Abs-CAM: a gradient optimization interpretable approach for explanation of convolutional neural networks, "
        "Signal, Image and Video Processing 2023 (arXiv 2207.03648)"
    )

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        mode: Literal["init", "final", "final_channelnorm", "final_single"] = "final",
        fill: Fill = "mean",
        bf16: bool = False,
        int8: bool = False,
    ) -> None:
        """`mode` as in the class; `fill`, `bf16`, `int8` as for Score-CAM. Mode "init" needs no images."""
        super().__init__(layers=layers)
        if mode not in _MODES:
            raise ValueError(closest("mode", mode, _MODES))
        self.mode = mode
        self.fill = checked_fill(fill)
        self.digits = checked_digits(bf16, int8)
        self.needs_images = mode != "init"

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The formula of the mode."""
        features, slope = evidence.at(self.layer)
        weights = slope.abs().mean((2, 3))
        if self.mode == "init":
            return torch.einsum("bc,bchw->bhw", weights, features)
        if self.mode == "final_single":
            features = torch.einsum("bc,bchw->bhw", weights, features)[:, None]
        chance = self._chance(evidence, features)
        if self.mode == "final":
            return torch.einsum("bc,bchw->bhw", chance * weights, features)
        span = contrast(features, evidence.pixels.shape[2:], evidence.budget)
        if self.mode == "final_channelnorm":
            chance = chance * (weights > 0)
        return torch.einsum("bc,bchw->bhw", chance, scaled(features, span.low[..., None, None], span.high[..., None, None]))

    def _chance(self, evidence: Evidence, features: Tensor) -> Tensor:
        """p_k (b, c), 0 for channels without contrast."""
        if self.mode == "final_single":
            logits = through(evidence, features, self.fill, self.digits)
        else:
            logits = _through_channels(evidence, self.layer, self.fill, self.digits)
        every = probabilities(logits).nan_to_num(nan=0.0)
        return every[torch.arange(len(every), device=every.device), :, evidence.targets]


def score_cams(net: Localizer, images: Tensor, *, budget: int = BUDGET, **options: Any) -> Tensor:
    """Score-CAM of every class for the price of one.

    Args:
        net: in evaluation mode.
        images: float (b, 3, H, W) RGB in [0, 1].
        budget: bytes that a chunk of masked images may take.
        options: of method "score-cam".

    Returns:
        Raw maps, float32 (b, k, h, w), detached; channel c is `cam("score-cam", net, images, ...)` for class c.

    Raises:
        RuntimeError: the net is in training mode.
        ValueError: a budget below 1.
        TypeError: an option that "score-cam" does not have.
    """
    check_net(net, budget)
    check_images(net, images)
    method = cast(ScoreCam, drawer("score-cam", options))
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        evidence = Evidence(net, *look(net, images, None, None, ()), images, budget=budget)
        return method.class_maps(evidence).float()


def _through_channels(
    evidence: Evidence, layer: int, fill: Fill, digits: Digits, change: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """`through` the channels of a stage; what no change was made to is run once for all methods that read the evidence."""
    if change is not None:
        return through(evidence, evidence.stage(layer), fill, digits, change)
    known = _PLAIN.setdefault(evidence, {})
    key = (evidence.net.stage_number(layer), fill, digits)
    if key not in known:
        known[key] = through(evidence, evidence.stage(layer), fill, digits)
    return known[key]


def _mean(parts: Iterable[Tensor]) -> Tensor:
    """The mean of tensors that are made one at a time."""
    count, total = 0, torch.zeros(())
    for part in parts:
        count, total = count + 1, total.to(part.device) + part
    return total / count
