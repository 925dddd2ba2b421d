"""The laboratory and the scanner of the phantom slides: amounts of stain become RGB, now and then under a marker's stroke."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
Rng = np.random.Generator


@dataclass(frozen=True)
class Stain:
    """Colors of a laboratory and a scanner.

    Attributes:
        hematoxylin: optical density (natural log) per channel of the most hematoxylin there is.
        eosin: the same of eosin.
        glass: RGB where nothing is, 0 to 255.
        blur: of the optics, px.
        grain: deviation of the sensor's noise, gray levels.
    """

    hematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    glass: tuple[float, float, float]
    blur: float
    grain: float


def draw_stain(patient: Rng, slide: Rng) -> Stain:
    """A patient's block is stained in one batch and scanned on one machine; each slide departs a little."""
    amount = np.array([patient.uniform(1.8, 2.5), patient.uniform(1.15, 1.65)]) * slide.uniform(0.94, 1.06, 2)
    hematoxylin = np.array([0.66, 0.69, 0.31]) + patient.normal(0, 0.03, 3)
    eosin = np.array([0.09, 0.93, 0.30]) + patient.normal(0, 0.025, 3)
    glass = patient.uniform(236, 249) + patient.uniform(-3, 3, 3)
    h, e = amount[0] * hematoxylin, amount[1] * eosin.clip(0.03)
    return Stain(tuple(h), tuple(e), tuple(glass), float(patient.uniform(0.4, 0.85)), float(patient.uniform(1.0, 2.6)))


def expose(h: Plane, e: Plane, stain: Stain, rng: Rng) -> npt.NDArray[np.uint8]:
    """Beer-Lambert: each channel is glass * exp(-(h * H + e * E)), as a product of two look-ups; then optics and sensor."""
    amount = np.arange(256) / 255
    channels = []
    for c in range(3):
        through_h = np.round(255 * np.exp(-amount * stain.hematoxylin[c])).astype(np.uint8)
        through_e = np.round(stain.glass[c] * np.exp(-amount * stain.eosin[c])).astype(np.uint8)
        channels.append(cv2.multiply(cv2.LUT(h, through_h), cv2.LUT(e, through_e), scale=1 / 255))
    rgb = np.asarray(cv2.GaussianBlur(cv2.merge(channels), (5, 5), stain.blur), np.uint8)
    speckle = np.clip(rng.standard_normal((509, 509, 3), np.float32) * stain.grain, -100, 100).astype(np.int8)
    for top in range(0, rgb.shape[0], 509):
        for left in range(0, rgb.shape[1], 509):
            view = rgb[top : top + 509, left : left + 509]
            view[...] = cv2.add(view, speckle[: view.shape[0], : view.shape[1]], dtype=cv2.CV_8U)
    return rgb


def pen(rgb: npt.NDArray[np.uint8], rng: Rng) -> dict[str, bool]:
    """One slide in six carries a stroke of a marker, blue, green or black, near its edge."""
    if rng.random() >= 1 / 6:
        return {"pen": False}
    size = rgb.shape[0]
    ink_color = [(60, 80, 190), (50, 140, 80), (50, 50, 55)][int(rng.integers(0, 3))]
    t = np.linspace(0, 1, 40)
    along, off = t * rng.uniform(0.3, 0.6) + rng.uniform(0.05, 0.35), 0.045 + 0.02 * np.sin(t * rng.uniform(3, 9))
    line = np.stack([along, off], axis=1)[:, :: 1 if rng.random() < 0.5 else -1]
    line = (1 - line if rng.random() < 0.5 else line) * size
    stroke = np.zeros((size, size), np.uint8)
    cv2.polylines(stroke, [np.round(line).astype(np.int32)], False, 255, max(3, size // 70), cv2.LINE_AA)
    x, y, width, height = cv2.boundingRect(stroke)
    view, alpha = rgb[y : y + height, x : x + width], stroke[y : y + height, x : x + width, None].astype(np.float32) / 255
    view[...] = view * (1 - alpha * (1 - np.array(ink_color, np.float32) / 255))
    return {"pen": True}
