"""Color as chemistry: optical density, stain separation, and stain jitter as one 3x3 matrix.

Optical density here is the natural log: od = -ln((v + 1) / 256) for v in 0..255, so that 255 is 0 and 0 is finite, and going
there and back returns every value exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Rows: RGB optical density of hematoxylin, eosin, DAB. Ruifrok & Johnston, Quantification of histochemical staining by color
deconvolution, Anal Quant Cytol Histol 23 (2001), table 1."""

_OD = -np.log((np.arange(256) + 1.0) / 256.0).astype(np.float32)


def rgb_to_od(rgb: RGB) -> npt.NDArray[np.float32]:
    """Optical density of each channel: uint8 (H, W, 3) -> float32 (H, W, 3), 0 (white) to 5.5 (black)."""
    _check(rgb)
    return _OD[rgb]


def hematoxylin(rgb: RGB) -> npt.NDArray[np.float32]:
    """How much hematoxylin: color deconvolution with `HED`; float32 (H, W), higher = more, signed (nothing is clipped)."""
    _check(rgb)
    weights = np.linalg.inv(_unit_rows(HED))[:, 0].astype(np.float32)
    # A sum of three look-ups is cheaper than a float image of three channels.
    return sum((_OD * weights[c])[rgb[..., c]] for c in range(3))


def blue_minus_red(rgb: RGB) -> npt.NDArray[np.float32]:
    """How blue against red: (B - R) / 255, float32 (H, W) in [-1, 1]; higher over nuclei."""
    _check(rgb)
    return (rgb[..., 2].astype(np.float32) - rgb[..., 0]) / 255.0


def apply_od_matrix(rgb: RGB, matrix: Matrix) -> RGB:
    """The image with each px's optical density multiplied: od' = matrix @ od. The identity returns the image exactly.

    Args:
        rgb: (H, W, 3).
        matrix: (3, 3), from RGB od to RGB od; see `stain_matrix`.
    """
    if np.shape(matrix) != (3, 3):
        raise ValueError(f"a (3, 3) matrix from RGB optical density to RGB optical density is expected; got {np.shape(matrix)}")
    od = cv2.transform(rgb_to_od(rgb), -np.asarray(matrix, np.float32))
    light = np.asarray(cv2.exp(od), np.float32)
    light *= 256.0
    light -= 0.5  # (v + 1) - 1 + 0.5: what follows cuts off, it does not round
    return np.clip(light, 0, 255, out=light).astype(np.uint8)


def stain_matrix(gains: npt.ArrayLike) -> Matrix:
    """The OD matrix that multiplies hematoxylin, eosin and the rest by three gains; (1, 1, 1) is the identity.

    od' = S.T diag(gains) inv(S.T) od, with the rows of `HED` normalized to length 1 as S.
    """
    gains = np.asarray(gains, float)
    if gains.shape != (3,):
        raise ValueError(f"three gains are expected (hematoxylin, eosin, residual); got shape {gains.shape}")
    if (gains == 1).all():
        return np.eye(3)
    stains = _unit_rows(HED).T
    return stains @ np.diag(gains) @ np.linalg.inv(stains)


@dataclass(frozen=True)
class StainJitter:
    """Random stain: the gains of hematoxylin, eosin and residual, and the color of each stain, vary from draw to draw.

    After Tellez et al., Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference, IEEE TMI 37 (2018), with
    gains in optical density and without clipping of negative stains, as one matrix per image.

    Attributes:
        strength: each gain is uniform in [1 - strength, 1 + strength].
        mix: standard deviation of what is added to each of the nine matrix entries (a shift of the stains' own colors).
    """

    strength: float = 0.2
    mix: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1 or not 0 <= self.mix < 0.5:
            raise ValueError(f"strength must be in [0, 1) and mix in [0, 0.5); got strength={self.strength}, mix={self.mix}")

    def matrix(self, generator: np.random.Generator) -> Matrix:
        """A random (3, 3) OD matrix; the identity when `strength` and `mix` are 0."""
        gains = generator.uniform(1 - self.strength, 1 + self.strength, 3)
        return stain_matrix(gains) + self.mix * generator.standard_normal((3, 3))

    def __call__(self, rgb: RGB, generator: np.random.Generator) -> RGB:
        """One random draw of the image's stain."""
        return apply_od_matrix(rgb, self.matrix(generator))


def _unit_rows(stains: Matrix) -> Matrix:
    return np.asarray(stains / np.linalg.norm(stains, axis=1, keepdims=True))


def _check(rgb: RGB) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise TypeError(f"a uint8 (H, W, 3) RGB image is expected; got {rgb.dtype} {rgb.shape}")
