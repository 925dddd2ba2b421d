"""Maps without a network: what a localizer must beat before its number means something.

Each floor turns an RGB image into a raw map, float32 (H, W), higher = more foreground, at the image's own resolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsol._names import resolve
from wsol.slides.stain import blue_minus_red, hematoxylin, rgb_to_od

RGB = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

STAIN_SIGMA_UM = 4.0
"""Blur of the two stain floors: about a nucleus, so that a px speaks for its surroundings. Chosen on GlaS training images."""
SCALES_UM = (2.0, 6.0, 20.0)
"""Blurs at which the pixel regression sees the mean and the deviation of the three OD channels: 18 features. The deviations
matter: on GlaS training images they lift the pixel average precision from 0.68 to 0.80."""


def floor_map(
    name: str, rgb: RGB, mpp: float, *, generator: np.random.Generator | None = None, model: PixelRegression | None = None
) -> Map:
    """The floor `name` (a key of `wsol.slides.FLOORS`) on one image.

    Args:
        name: which floor.
        rgb: (H, W, 3).
        mpp: um per px of the image; blurs are stated in um.
        generator: for "random", which needs one.
        model: for "pixel-regression", which needs a fitted one.

    Raises:
        ValueError: an unknown name, no usable mpp, or a missing generator or model.
    """
    from wsol.slides import FLOORS

    _check_mpp(mpp)
    floor = resolve("floor", name, FLOORS, "wsol.slides")
    return np.asarray(floor.map(rgb, mpp, generator, model), np.float32)


class AllOnes:
    """Everything is foreground: its pixel average precision is the prevalence."""

    supervision = "none"

    @staticmethod
    def map(rgb: RGB, mpp: float, generator: np.random.Generator | None, model: PixelRegression | None) -> Map:
        """1 everywhere."""
        return np.ones(rgb.shape[:2], np.float32)


class Random:
    """Uniform noise: its pixel average precision is the prevalence too, up to chance."""

    supervision = "none"

    @staticmethod
    def map(rgb: RGB, mpp: float, generator: np.random.Generator | None, model: PixelRegression | None) -> Map:
        """Independent uniform px in [0, 1)."""
        if generator is None:
            raise ValueError("the floor 'random' needs generator=np.random.default_rng(seed)")
        return generator.random(rgb.shape[:2], dtype=np.float32)


class Hematoxylin:
    """Blurred hematoxylin (Ruifrok & Johnston 2001): nuclei are foreground."""

    supervision = "none"

    @staticmethod
    def map(rgb: RGB, mpp: float, generator: np.random.Generator | None, model: PixelRegression | None) -> Map:
        """Color deconvolution, then a Gaussian of `STAIN_SIGMA_UM`."""
        return _blur(hematoxylin(rgb), STAIN_SIGMA_UM / mpp)


class BlueMinusRed:
    """Blurred blue minus red: what a child would call purple is foreground."""

    supervision = "none"

    @staticmethod
    def map(rgb: RGB, mpp: float, generator: np.random.Generator | None, model: PixelRegression | None) -> Map:
        """(B - R) / 255, then a Gaussian of `STAIN_SIGMA_UM`."""
        return _blur(blue_minus_red(rgb), STAIN_SIGMA_UM / mpp)


class FittedRegression:
    """A pixel regression fitted on the few masks that selection may open: shows what those masks are worth by themselves."""

    supervision = "masks"

    @staticmethod
    def map(rgb: RGB, mpp: float, generator: np.random.Generator | None, model: PixelRegression | None) -> Map:
        """The model's probability."""
        if model is None:
            raise ValueError("the floor 'pixel-regression' needs model=PixelRegression.fit([(rgb, mask), ...], mpp)")
        return model.predict(rgb, mpp)


class PixelRegression:
    """Logistic regression of a px's class on the optical density around it: mean and deviation of 3 channels at 3 blurs.

    Attributes:
        weight: (18,) for standardized features.
        bias: intercept.
        mean: (18,) of the features in fitting.
        scale: (18,) standard deviations in fitting.
    """

    def __init__(self, weight: npt.ArrayLike, bias: float, mean: npt.ArrayLike, scale: npt.ArrayLike) -> None:
        self.weight, self.mean, self.scale = (np.asarray(v, np.float64) for v in (weight, mean, scale))
        self.bias = float(bias)

    @classmethod
    def fit(
        cls,
        pairs: Iterable[tuple[RGB, npt.NDArray[np.bool_]]],
        mpp: float,
        *,
        generator: np.random.Generator | None = None,
        pixels: int = 20_000,
        penalty: float = 1.0,
    ) -> PixelRegression:
        """Minimizes the mean log loss + penalty / (2 n) * |weight|^2 with L-BFGS, each class weighted as it occurs.

        Args:
            pairs: images (H, W, 3) with their masks bool (H, W).
            mpp: um per px of all of them.
            generator: picks the px; seed 0 when None.
            pixels: drawn per image at most.
            penalty: L2.

        Raises:
            ValueError: a mask of another size, or px of one class only.
        """
        from scipy.optimize import minimize

        generator = np.random.default_rng(0) if generator is None else generator
        x, y = _sample(pairs, mpp, generator, pixels)
        if y.min() == y.max():
            raise ValueError(f"the masks hold {'only' if y.all() else 'no'} foreground; a regression needs px of both kinds")
        mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        x = (x - mean) / scale

        def loss(w: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            z = x @ w[:-1] + w[-1]
            residual = _sigmoid(z) - y
            value = (np.logaddexp(0, z) - y * z).mean() + penalty / (2 * len(y)) * (w[:-1] @ w[:-1])
            return float(value), np.append(x.T @ residual + penalty * w[:-1], residual.sum()) / len(y)

        best = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500})
        return cls(best.x[:-1], best.x[-1], mean, scale)

    def predict(self, rgb: RGB, mpp: float) -> Map:
        """Probability of foreground, float32 (H, W)."""
        _check_mpp(mpp)
        weight = self.weight / self.scale
        z = np.full(rgb.shape[:2], self.bias - weight @ self.mean, np.float32)
        for feature, w in zip(_features(rgb, mpp), weight.astype(np.float32), strict=True):
            z += w * feature
        return _sigmoid(z)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; `from_dict` gives an equal model back."""
        return {"weight": self.weight.tolist(), "bias": self.bias, "mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> PixelRegression:
        """Inverse of `to_dict`."""
        return cls(d["weight"], d["bias"], d["mean"], d["scale"])


def _features(rgb: RGB, mpp: float) -> Iterable[Map]:
    """18 maps float32 (H, W), one at a time: all of them at once would be 1.2 GB for 4096 x 4096."""
    od = rgb_to_od(rgb)
    for sigma in SCALES_UM:
        mean = _blur(od, sigma / mpp)
        yield from (mean[..., c] for c in range(3))
        spread = np.sqrt(np.maximum(_blur(od * od, sigma / mpp) - mean * mean, 0))
        yield from (spread[..., c] for c in range(3))


def _sample(
    pairs: Iterable[tuple[RGB, npt.NDArray[np.bool_]]], mpp: float, generator: np.random.Generator, pixels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    _check_mpp(mpp)
    x, y = [], []
    for rgb, mask in pairs:
        if mask.shape != rgb.shape[:2]:
            raise ValueError(f"the mask is {mask.shape}, its image {rgb.shape[:2]} (H, W); they must be equal")
        pick = generator.choice(mask.size, min(pixels, mask.size), replace=False)
        x.append(np.stack([f.reshape(-1)[pick] for f in _features(rgb, mpp)], axis=1))
        y.append(mask.reshape(-1)[pick])
    if not x:
        raise ValueError("no image with a mask was given; a pixel regression needs at least one")
    return np.concatenate(x).astype(np.float64), np.concatenate(y).astype(np.float64)


def _blur(a: Map, sigma: float) -> Map:
    """Gaussian of `sigma` px. A wide one is taken on a coarser grid: 16 um at 0.25 um per px would be a kernel of 385 taps."""
    if sigma < 0.3:
        return a
    shrink = int(sigma // 6)
    if shrink < 2:
        return np.asarray(cv2.GaussianBlur(a, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)
    height, width = a.shape[:2]
    small = cv2.resize(a, (max(1, width // shrink), max(1, height // shrink)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _sigmoid(z: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * z))  # does not overflow


def _check_mpp(mpp: float) -> None:
    if not (mpp and 0.02 <= mpp <= 50):
        raise ValueError(f"the floors blur in um and need the image's um per px (0.02 to 50); got {mpp}: set the `mpp` column")
