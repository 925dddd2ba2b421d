"""What a mask is trained with: images behind a mask, hinges on what a classifier makes of them, and prices of the mask itself.

Masks are (b, H, W) in [0, 1], at the size of the images; 1 shows a pixel. From Dabkowski and Gal, "Real Time Image Saliency for
Black Box Classifiers", NIPS 2017, and their released code, whose images are in [-1, 1]: here constants are halved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

AREA_FLOOR = 5e-4
"""Added to a mask before the power of `area`, whose slope at 0 would be infinite."""


@dataclass(frozen=True)
class Veil:
    """Phi(x; M) = M x + (1 - M) a: a mask over an image; what it hides becomes an alternative `a` that says nothing.

    The alternative is the blurred image with probability `blur`, else one random color with noise on it. Images get noise of
    their own first. It is drawn anew at each call and never clipped; the gradient reaches the mask alone.

    Attributes:
        blur: probability of the blurred image, else of a color.
        sigma: of the blur, px; the kernel spans 2.5 sigma to each side (55 px for 11). Beyond the border the image goes on with
            its border pixels, where the authors have mid-gray: a uniform image is its own blur.
        color: a channel of the random color is uniform in 0.5 +- `color`.
        color_noise: standard deviation of the noise on that color.
        image_noise: standard deviation of the noise on the image.
    """

    blur: float = 0.5
    sigma: float = 11.0
    color: float = 0.165
    color_noise: float = 0.055
    image_noise: float = 0.015

    def __post_init__(self) -> None:
        if not 0 <= self.blur <= 1:
            raise ValueError(f"blur is a probability in [0, 1]; got {self.blur}")
        if not self.sigma > 0:
            raise ValueError(f"sigma is the deviation of the blur in px and must be positive; got {self.sigma}")
        for name in ("color", "color_noise", "image_noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")

    def __call__(self, images: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] and a mask (b, H, W) -> (b, 3, H, W); `generator` is a CPU one."""
        images = images.detach()
        noisy = images + self.image_noise * torch.randn(images.shape, generator=generator).to(images)
        hidden = self._color(images, generator)
        chosen = (torch.rand(len(images), generator=generator) < self.blur).to(images.device)
        if chosen.any():
            hidden[chosen] = blurred(noisy[chosen], self.sigma)
        return mask[:, None] * noisy + (1 - mask[:, None]) * hidden

    def _color(self, images: Tensor, generator: torch.Generator) -> Tensor:
        plain = 0.5 + self.color * (2 * torch.rand((*images.shape[:2], 1, 1), generator=generator) - 1)
        return (plain + self.color_noise * torch.randn(images.shape, generator=generator)).to(images)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (b, c, H, W), cut at 2.5 sigma, in float32; the border pixels go on outside."""
    reach = int(2.5 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), 0)
    with torch.autocast(images.device.type, enabled=False):
        rows = images.float().flatten(0, 1)[:, None]
        rows = functional.conv2d(functional.pad(rows, (0, 0, reach, reach), mode="replicate"), kernel[None, None, :, None])
        rows = functional.conv2d(functional.pad(rows, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None, :])
    return rows[:, 0].unflatten(0, images.shape[:2]).to(images.dtype)


def advantage(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit above the best of the others, (b,); logits (b, k), k at least 2."""
    own = labels[:, None]
    others = logits.scatter(1, own, -math.inf)
    return logits.gather(1, own)[:, 0] - others.amax(1)


def area(mask: Tensor, power: float) -> Tensor:
    """Mean (M + 0.0005)^power of each mask, (b,)."""
    return ((mask + AREA_FLOOR) ** power).mean((1, 2))


def smoothness(mask: Tensor, border: float) -> Tensor:
    """Half of: the squared differences between neighbors, and `border` times the squares along the four borders; (b,).

    Corner pixels lie on two borders and count twice, as released.
    """
    steps = mask.diff(dim=1).square().sum((1, 2)) + mask.diff(dim=2).square().sum((1, 2))
    edges = torch.cat([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], 1).square().sum(1)
    return (steps + border * edges) / 2


def variation(mask: Tensor) -> Tensor:
    """Squared differences between neighbors, summed, (b,): TV(M) as the paper has it."""
    return 2 * smoothness(mask, 0.0)
