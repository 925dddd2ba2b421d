"""Grad-CAM++: channels weighted by their positive slopes, each place by a ratio of higher derivatives of exp(logit)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsol.cams.base import Evidence, OneLayer
from wsol.models import Localizer


class _PlusPlus(OneLayer):
    """sum_k w_k A_k(p), w_k = sum_p alpha_k(p) ReLU(g_k(p))."""

    needs_gradient = True
    local = False
    rectified = True

    def __init__(self, *, layers: Sequence[int] | None = None, normalize_alpha: bool = False) -> None:
        """`normalize_alpha` divides alpha by its sum over positive slopes, as the authors' code does and eq. 19 does not."""
        super().__init__(layers=layers)
        self.normalize_alpha = normalize_alpha

    def weigh(self, features: Tensor, first: Tensor, ratio: Tensor) -> Tensor:
        """Features A, slopes g, and g^3 / g^2 (0 where there is no slope), all (b, c, h, w) -> map (b, h, w)."""
        below = 2 + features.sum((2, 3), keepdim=True) * ratio
        safe = below.abs() > 1e-6  # below 2 only where signed features add up to less than 0
        alpha = torch.where(safe, 1 / torch.where(safe, below, 1), 0)
        rising = first.relu()
        if self.normalize_alpha:
            total = torch.where(rising > 0, alpha, 0).sum((2, 3), keepdim=True)
            alpha = alpha / torch.where(total == 0, 1, total)
        return torch.einsum("bc,bchw->bhw", (alpha * rising).sum((2, 3)), features)


class GradCamPlusPlus(_PlusPlus):
    """Grad-CAM++: alpha_k(p) = g^2 / (2 g^2 + g^3 sum_q A_k(q)), g = g_k(p); the paper rectifies it last.

    The common factor exp(logit) of all derivatives cancels in alpha and is left out of the weights, where it would scale the map
    of an image and overflow. Computed as 1 / (2 + g sum_q A_k(q)), which small slopes do not underflow. Where signed features
    make this denominator 0, alpha is 0. The sum runs over A alone: several libraries sum A g^3, which is another method.
    """

    paper = "Chattopadhay et al., Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep CNNs, WACV 2018, eq. 19"

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The formula at the one layer."""
        features, slope = evidence.at(self.layer)
        return self.weigh(features, slope, slope)


class SmoothGradCamPlusPlus(_PlusPlus):
    """Smooth Grad-CAM++: g, g^2 and g^3 of Grad-CAM++ are means over noisy copies of the image; A is that of the clean image.

    Noise is normal, with a standard deviation of `level` times the range of the image's values; the noisy image is not clipped.
    All images of a batch get the same draws. With level 0 it is Grad-CAM++.
    """

    needs_images = True
    paper = (
        "Omeiza et al., Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep CNNs, arXiv 1908.01224"
    )

    def __init__(
        self, *, layers: Sequence[int] | None = None, n: int = 25, level: float = 0.15, normalize_alpha: bool = False
    ) -> None:
        """`n` noisy copies, each one more forward and backward; `level` as in SmoothGrad, 0.1 to 0.2 there."""
        super().__init__(layers=layers, normalize_alpha=normalize_alpha)
        if n < 1 or level < 0:
            raise ValueError(f"n must be at least 1 and level at least 0; got n={n}, level={level}")
        self.n = n
        self.level = level

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Means of the moments, in float64 because g^3 is tiny."""
        images = evidence.pixels
        spread = self.level * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        features = evidence.stage(self.layer)
        moments = [torch.zeros_like(features, dtype=torch.float64) for _ in range(3)]
        for _ in range(self.n):
            noise = torch.randn(images.shape[1:], generator=evidence.generator).to(images.device)
            slope = evidence.look(images + spread * noise, [self.layer])[self.layer][1].double()
            for power, moment in enumerate(moments, start=1):
                moment += slope**power / self.n
        first, second, third = moments
        ratio = torch.where(second > 0, third / torch.where(second > 0, second, 1), 0)
        return self.weigh(features, first.float(), ratio.float())
