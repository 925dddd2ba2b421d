"""A score map over its image as one PNG: heat, mask outline, threshold contour, legend, scale bar."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wsol.slides.surface import Surface, surface_of
from wsol.slides.tiles import write_png

RGB = npt.NDArray[np.uint8]

MASK_COLOR = (0, 200, 80)
CONTOUR_COLOR = (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_STRIP = 256


def heat_colors(score: npt.NDArray[np.float32]) -> RGB:
    """Viridis, as on the report page, of scores in [0, 1]: (H, W) -> uint8 (H, W, 3) RGB, violet = 0, yellow = 1."""
    return np.ascontiguousarray(cv2.applyColorMap(np.round(score * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1])


def overlay_png(
    rgb: RGB,
    score: npt.NDArray[np.float32] | Surface,
    path: str | Path,
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    threshold: float | None = None,
    mpp: float | None = None,
    alpha: float = 0.55,
    legend: bool = True,
) -> None:
    """Draws `score` over `rgb`: the higher the score the less of the image shows through, which stays as it is where no map is.

    Args:
        rgb: (H, W, 3).
        score: (h, w) in [0, 1] over the same field, enlarged bilinearly; or a surface of (H, W) px.
        path: of the PNG.
        mask: bool (H', W') over the same field, outlined in green.
        threshold: where the score reaches it a dark line is drawn, and a tick in the legend.
        mpp: um per px of `rgb`, for the scale bar; none without it.
        alpha: opacity of the heat at score 1.
        legend: a color bar to the right and, with `mpp`, a scale bar.
    """
    height, width = rgb.shape[:2]
    canvas, flagged = _blended(rgb, surface_of(score, (height, width)), alpha, threshold)
    thick = max(1, round(max(height, width) / 500))
    if threshold is not None:
        _outline(canvas, flagged, CONTOUR_COLOR, thick)
    if mask is not None:
        whole = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        _outline(canvas, whole, (255, 255, 255), thick + 2)
        _outline(canvas, whole, MASK_COLOR, thick)
    if legend:
        if mpp:
            _scale_bar(canvas, mpp)
        canvas = np.concatenate([canvas, _color_bar(height, width, threshold, mask is not None)], axis=1)
    write_png(path, canvas)


def _blended(rgb: RGB, surface: Surface, alpha: float, threshold: float | None) -> tuple[RGB, npt.NDArray[np.bool_]]:
    """Heat over the image, and where the threshold is reached; strip by strip, since floats take many times the image."""
    height, width = rgb.shape[:2]
    canvas, flagged = np.empty((height, width, 3), np.uint8), np.zeros((height, width), bool)
    for top in range(0, height, _STRIP):
        strip = slice(top, min(top + _STRIP, height))
        full = surface.read((strip.start, strip.stop), (0, width))
        opacity = (alpha * (0.25 + 0.75 * full))[..., None]
        covered = surface.covered((strip.start, strip.stop), (0, width))
        if covered is not None:
            opacity = np.where(covered[..., None], opacity, 0)
        canvas[strip] = np.round(rgb[strip] * (1 - opacity) + heat_colors(full) * opacity)
        if threshold is not None:
            flagged[strip] = full >= threshold
    return canvas, flagged


def _outline(canvas: RGB, mask: npt.NDArray[np.bool_], color: tuple[int, int, int], thick: int) -> None:
    lines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, lines, -1, color, thick)


def round_length(limit: float) -> float:
    """The largest of 1, 2, 5 x 10^n that is at most `limit`."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max(m * power for m in (1, 2, 5) if m * power <= limit * (1 + 1e-9)))


def _scale_bar(canvas: RGB, mpp: float) -> None:
    height, width = canvas.shape[:2]
    um = round_length(width * mpp / 4)
    px, size = round(um / mpp), max(0.35, min(height, width) / 1100)
    x, y, bar = round(0.03 * width), round(0.97 * height), max(2, round(height / 150))
    words = f"{um:g} um" if um < 1000 else f"{um / 1000:g} mm"
    (text_width, text_height), _ = cv2.getTextSize(words, _FONT, size, 1)
    pad = bar + 2
    cv2.rectangle(
        canvas, (x - pad, y - bar - text_height - 3 * pad), (x + max(px, text_width) + pad, y + pad), (255, 255, 255), -1
    )
    cv2.rectangle(canvas, (x, y - bar), (x + px, y), (0, 0, 0), -1)
    cv2.putText(canvas, words, (x, y - bar - pad), _FONT, size, (0, 0, 0), max(1, round(size)), cv2.LINE_AA)


def _color_bar(height: int, width: int, threshold: float | None, has_mask: bool) -> RGB:
    size = max(0.35, min(height, width) / 1100)
    (text_width, text_height), _ = cv2.getTextSize("0.00 threshold", _FONT, size, 1)
    bar, margin = max(8, round(text_height * 1.5)), text_height
    panel = np.full((height, 3 * margin + bar + text_width, 3), 255, np.uint8)
    top, bottom = 2 * margin, height - (5 if has_mask else 2) * margin
    if bottom - top < 4:  # too small an image for a legend
        return panel[:, :0]
    ramp = np.linspace(1, 0, bottom - top, dtype=np.float32)[:, None].repeat(bar, axis=1)
    panel[top:bottom, margin : margin + bar] = heat_colors(ramp)
    ticks = {0.0: "0", 1.0: "1"} | ({} if threshold is None else {float(threshold): f"{threshold:.2f} threshold"})
    for value, words in ticks.items():
        y = round(bottom - value * (bottom - top))
        cv2.line(panel, (margin, y), (margin + bar + margin // 2, y), CONTOUR_COLOR, max(1, text_height // 6))
        place = (2 * margin + bar, y + text_height // 2)
        cv2.putText(panel, words, place, _FONT, size, (0, 0, 0), max(1, round(size)), cv2.LINE_AA)
    if has_mask:
        y = height - 2 * margin
        cv2.line(panel, (margin, y), (margin + bar, y), MASK_COLOR, max(2, text_height // 3))
        cv2.putText(
            panel, "mask", (2 * margin + bar, y + text_height // 2), _FONT, size, (0, 0, 0), max(1, round(size)), cv2.LINE_AA
        )
    return panel
