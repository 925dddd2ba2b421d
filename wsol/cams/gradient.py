"""Methods that weight features A (b, c, h, w) by the slope g = d logit_target / d A. The logit is taken before softmax.

Read them at a stage that ends in an activation (A >= 0), as the last stage of every backbone here does. Inner stages of
`efficientnet_lite0` are linear bottlenecks, hence signed: there LayerCAM's "positive evidence" also counts negative features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from wsol.cams.base import Cam, Evidence, OneLayer
from wsol.models import Localizer


class _Slope(OneLayer):
    """One map from one stage's features and slope."""

    needs_gradient = True
    local = False

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The formula at the one layer."""
        return self.weigh(*evidence.at(self.layer))

    @abstractmethod
    def weigh(self, features: Tensor, slope: Tensor) -> Tensor:
        """Features and slope (b, c, h, w) -> map (b, h, w)."""


class GradCam(_Slope):
    """Grad-CAM: sum_k alpha_k A_k(p), alpha_k = mean_p g_k(p); the paper rectifies it last.

    At a GAP head it is CAM / (h w).
    """

    rectified = True
    paper = "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017"

    def __init__(self, *, layers: Sequence[int] | None = None, counterfactual: bool = False) -> None:
        """`counterfactual` takes -g for g: the map of what argues against the class (the paper's section 3.3)."""
        super().__init__(layers=layers)
        self.counterfactual = counterfactual

    def weigh(self, features: Tensor, slope: Tensor) -> Tensor:
        """Weight each channel by its mean slope."""
        weights = slope.mean((2, 3))
        return torch.einsum("bc,bchw->bhw", -weights if self.counterfactual else weights, features)


class HiResCam(_Slope):
    """HiResCAM: sum_k g_k(p) A_k(p), so only places the net used can light up. The authors do not rectify it.

    At a GAP head its sum is the logit minus the bias.
    """

    rectified = False
    paper = "Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of CNNs, arXiv 2011.08891"

    def weigh(self, features: Tensor, slope: Tensor) -> Tensor:
        """Weight each value by its own slope."""
        return (slope * features).sum(1)


class XGradCam(_Slope):
    """XGrad-CAM: sum_k w_k A_k(p), w_k = sum_p g_k(p) A_k(p) / sum_p A_k(p); the paper rectifies it last.

    Its sum is that of HiResCAM at any head. The authors add 1e-6 to the denominator; here a channel whose values cancel to less
    than 1e-6 of their magnitude weighs nothing, so that the identity stays exact. Signed features that nearly cancel still get
    large weights: read it at a stage that ends in an activation.
    """

    rectified = True
    paper = "Fu et al., Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs, BMVC 2020"

    def weigh(self, features: Tensor, slope: Tensor) -> Tensor:
        """Weight each channel by the mean of its slope, weighted by its values."""
        total, size = features.sum((2, 3)), features.abs().sum((2, 3))
        safe = total.abs() > 1e-6 * size
        weights = torch.where(safe, (slope * features).sum((2, 3)) / torch.where(safe, total, 1), 0)
        return torch.einsum("bc,bchw->bhw", weights, features)


class LayerCam(Cam):
    """LayerCAM: sum_k ReLU(g_k(p)) A_k(p); the paper rectifies it last. Fine layers give maps of their own.

    Several `layers` are fused at the finest of their resolutions (bilinear): each map is rectified and scaled to
    tanh(gamma L / max L) within its image, then the largest value at each point stays. The paper scales only its shallow layers
    so; here all are, because a maximum over layers of different units would only show the layer with the largest one.
    """

    needs_gradient = True
    local = False
    rectified = True
    paper = "Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, IEEE TIP 2021"

    def __init__(self, *, layers: Sequence[int] | None = None, gamma: float = 2.0) -> None:
        """`layers` are stages, the last by default; `gamma` steepens the tanh of the fusion and is unused with one layer."""
        self.layers = (-1,) if layers is None else tuple(layers)
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must name at least one stage, and none twice; got {self.layers}")
        if gamma <= 0:
            raise ValueError(f"gamma must be positive; got {gamma}")
        self.gamma = gamma

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """One layer raw, or several fused."""
        raw = [(slope.relu() * features).sum(1) for features, slope in map(evidence.at, self.layers)]
        if len(raw) == 1:
            return raw[0]
        finest = max((tuple(m.shape[1:]) for m in raw), key=lambda size: size[0] * size[1])
        return torch.stack([self._scaled(m, finest) for m in raw]).amax(0)

    def _scaled(self, m: Tensor, size: tuple[int, ...]) -> Tensor:
        m = m.relu()
        top = m.amax((1, 2), keepdim=True)
        m = torch.tanh(self.gamma * m / torch.where(top > 0, top, 1))  # no evidence at all stays 0
        return functional.interpolate(m[:, None], size, mode="bilinear", align_corners=False)[:, 0]
