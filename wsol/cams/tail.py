"""Methods that ask what the net would say of other features: with a channel taken away, or with one place left.

Above the last stage of a GAP head the answer is a formula (`Evidence.affine`), and `closed_form=False` asks the net all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from wsol._names import closest
from wsol.cams.base import Evidence, OneLayer
from wsol.cams.hiding import probabilities
from wsol.models import Localizer


class AblationCam(OneLayer):
    """Ablation-CAM: sum_k w_k A_k(p), w_k = logit - logit without channel k; the paper rectifies it last.

    The paper divides by the logit, which turns every weight around where the logit is negative; here the drop itself is the
    weight, and `relative` divides by its magnitude. There is no authors' code. At a GAP head w_k = W_k mean_p A_k(p).
    """

    needs_gradient = False
    needs_tail = True
    local = False
    rectified = True
    paper = "Desai and Ramaswamy, Ablation-CAM: Visual Explanations for Deep CNN via Gradient-free Localization, WACV 2020"

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        baseline: Literal["zero", "mean"] = "zero",
        relative: bool = False,
        closed_form: bool = True,
    ) -> None:
        """Args:
        layers: the one stage to read.
        baseline: what stands in for the channel: 0, or its mean over the image. At a GAP head, which sees nothing but that mean,
            the map of "mean" is 0.
        relative: divide the drop by |logit| + 1e-6.
        closed_form: use the formula where there is one.
        """
        super().__init__(layers=layers)
        if baseline not in ("zero", "mean"):
            raise ValueError(closest("baseline", baseline, ("zero", "mean")))
        self.baseline = baseline
        self.relative = relative
        self.closed_form = closed_form

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Weigh the channels by their drops."""
        features = evidence.stage(self.layer)
        drops = self._drops(evidence, features)
        if self.relative:
            drops = drops / (evidence.scores.abs() + 1e-6)[:, None]
        return torch.einsum("bc,bchw->bhw", drops, features)

    def _drops(self, evidence: Evidence, features: Tensor) -> Tensor:
        """Logit minus logit without the channel, (b, c)."""
        means = features.mean((2, 3))
        affine = evidence.affine(self.layer) if self.closed_form else None
        if affine is not None:
            return affine.weight[evidence.targets] * means if self.baseline == "zero" else torch.zeros_like(means)
        instead = torch.zeros_like(means) if self.baseline == "zero" else means
        owners, channels = (features != instead[:, :, None, None]).any(3).any(2).nonzero(as_tuple=True)  # the others drop nothing

        def without(part: slice) -> Tensor:
            i, k = owners[part], channels[part]
            rows = features[i]
            rows[torch.arange(len(i), device=i.device), k] = instead[i, k][:, None, None]
            return rows

        drops = torch.zeros_like(means)
        drops[owners, channels] = evidence.scores[owners] - evidence.of_target(
            evidence.tail(without, self.layer, len(owners)), owners
        )
        return drops


class ReciproCam(OneLayer):
    """Recipro-CAM: R(p) = what the net says of the class when only the features around p are left, all else 0.

    No ReLU, no sum over channels. At a GAP head with mask "delta" and score "logit" it is CAM / (h w) plus the bias. As a
    probability the maps of two classes are complements of each other. The paper's Gaussian masks the features around p; the
    authors' code spreads the features at p over its neighborhood instead, and as it is called uses neither but "delta".
    """

    needs_gradient = False
    needs_tail = True
    local = False
    rectified = False
    paper = "Byun and Lee, Recipro-CAM: Fast Gradient-free Visual Explanations for CNNs, arXiv 2209.14074"

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        mask: Literal["delta", "gaussian", "spread"] = "delta",
        score: Literal["prob", "logit"] = "prob",
        closed_form: bool = True,
    ) -> None:
        """Args:
        layers: the one stage to read; finer stages have more places, hence more runs of the tail.
        mask: "delta" keeps the features at p; "gaussian" those of the 3 x 3 places around p, times (1, 2, 1) x (1, 2, 1) / 16;
            "spread" puts the features at p there, times the same.
        score: the softmax probability of the class (sigmoid for a net with one logit), or its logit.
        closed_form: use the formula where there is one.
        """
        super().__init__(layers=layers)
        for option, value, known in (("mask", mask, ("delta", "gaussian", "spread")), ("score", score, ("prob", "logit"))):
            if value not in known:
                raise ValueError(closest(option, value, known))
        self.mask = mask
        self.score = score
        self.closed_form = closed_form

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """One run of the tail per place, or a convolution."""
        features = evidence.stage(self.layer)
        (count, _, height, width), cells = features.shape, features.shape[2] * features.shape[3]
        affine = evidence.affine(self.layer) if self.closed_form else None
        if affine is not None:
            shares = affine.maps(features)
            seen = shares * _mass(shares) if self.mask == "spread" else _convolved(shares) if self.mask == "gaussian" else shares
            logits = (seen + affine.bias[:, None, None]).permute(0, 2, 3, 1).flatten(0, 2)
        else:
            logits = evidence.tail(lambda part: self._left(features, part), self.layer, count * cells)
        owners = torch.arange(count, device=logits.device).repeat_interleave(cells)
        scores = probabilities(logits) if self.score == "prob" else logits
        return evidence.of_target(scores, owners).reshape(count, height, width)

    def _left(self, features: Tensor, part: slice) -> Tensor:
        """The features that are left at the places `part` of all places of all images."""
        height, width = features.shape[2:]
        number = torch.arange(part.start, part.stop, device=features.device)
        i, y, x = number // (height * width), number // width % height, number % width
        row = torch.arange(len(number), device=features.device)
        spots = features.new_zeros(len(number), 1, height, width)
        spots[row, 0, y, x] = 1
        if self.mask != "delta":
            spots = _convolved(spots)
        return (features[i, :, y, x][:, :, None, None] if self.mask == "spread" else features[i]) * spots


def _convolved(x: Tensor) -> Tensor:
    """Each channel of (n, c, h, w) under the 3 x 3 kernel (1, 2, 1) x (1, 2, 1) / 16, zeros outside."""
    side = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    kernel = torch.outer(side, side).expand(x.shape[1], 1, 3, 3)
    return functional.conv2d(x, kernel, padding=1, groups=x.shape[1])


def _mass(x: Tensor) -> Tensor:
    """Share of the kernel that lies inside the map, (1, 1, h, w): 1, 3/4 at an edge, 9/16 in a corner."""
    return _convolved(torch.ones_like(x[:1, :1]))
