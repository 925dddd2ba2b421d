"""Methods made of another method, which they take by name: `cam("smooth", net, images, base="layer-cam", base_options={...})`.

What they change is the image (noise, turns, scales) or the layer; the formula is the base's. They take each other, too:
`cam("tta", ..., base="fused", base_options={"base": "grad-cam", "layers": [-2, -1]})`. Stages are an option of the base.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from wsol._names import closest, resolve
from wsol.cams import METHODS
from wsol.cams.base import Cam, Evidence
from wsol.cams.drawing import drawer
from wsol.cams.inputs import check_noise, noisy
from wsol.cams.sight import look
from wsol.models import Localizer

Moves = Literal["none", "flip", "flips", "turns", "dihedral"]

_MOVES: dict[str, list[tuple[bool, int]]] = {  # mirrored left to right or not, then quarter turns
    "none": [(False, 0)],
    "flip": [(False, 0), (True, 0)],
    "flips": [(False, 0), (True, 0), (False, 2), (True, 2)],
    "turns": [(False, turns) for turns in range(4)],
    "dihedral": [(mirrored, turns) for mirrored in (False, True) for turns in range(4)],
}


class Wrapper(Cam):
    """Base of the methods that draw another one on other images.

    Whether its map is rectified, specific to the class, and as large as the image is what the base says, hence facts of the
    object, not of the class; those of the class are those of the default base.
    """

    needs_gradient = False
    needs_images = True
    local = False
    rectified = True

    def __init__(self, base: str, base_options: Mapping[str, Any] | None) -> None:
        """`base` is a key of `METHODS`, `base_options` are its keyword arguments."""
        self.base = drawer(base, base_options or {})
        self.rectified = self.base.rectified
        self.class_specific = self.base.class_specific
        self.resolution = self.base.resolution

    def redraw(self, evidence: Evidence, images: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The base's map (b, h, w) and the logits (b, k) of other images, for the same targets or for those given."""
        net = evidence.net
        stages = sorted({net.stage_number(layer) for layer in self.base.layers}) if self.base.needs_gradient else []
        sight = look(net, images, None, evidence.targets if targets is None else targets, stages)
        seen = Evidence(net, *sight, images, generator=evidence.generator, budget=evidence.budget)
        return self.base(net, seen), seen.logits


class Smooth(Wrapper):
    """The mean of the raw maps of `n` noisy copies of the image, SmoothGrad for any method.

    Noise is normal, with a standard deviation of `level` times the range of the image's values; the noisy image is not clipped.
    All images of a batch get the same draws, so that a map does not depend on its batch. It costs n times the base.
    """

    paper = "Smilkov et al., SmoothGrad: removing noise by adding noise, arXiv 1706.03825"

    def __init__(
        self, *, base: str = "grad-cam", base_options: Mapping[str, Any] | None = None, n: int = 25, level: float = 0.15
    ) -> None:
        """`level` 0.1 to 0.2 in the paper; 0 is the base."""
        super().__init__(base, base_options)
        check_noise(n, level)
        self.n = n
        self.level = level

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The running mean, which is exact where the maps are equal."""
        images = evidence.pixels
        mean, _ = self.redraw(evidence, noisy(images, self.level, evidence.generator))
        for i in range(1, self.n):
            m, _ = self.redraw(evidence, noisy(images, self.level, evidence.generator))
            mean = mean + (m - mean) / (i + 1)
        return mean


class Tta(Wrapper):
    """Test-time augmentation: the mean of the raw maps of the image flipped, turned and scaled, each map put back in place.

    Tissue has no upright, so all eight flips and quarter turns are the default ("dihedral"): then the map of a turned image is
    the turned map. "turns" are the four quarter turns, "flips" left-right, up-down and both, "flip" left-right alone.

    With several `scales` each map is first divided by its largest magnitude, because maps of different numbers of cells come in
    different units (Grad-CAM's is the logit per cell), and resized (bilinear) to the largest of them. An image of m um per px at
    scale s is seen at m / s. It costs moves times scales times the base.
    """

    paper = "none: averaging over the symmetries of the image, a common practice"

    def __init__(
        self,
        *,
        base: str = "grad-cam",
        base_options: Mapping[str, Any] | None = None,
        moves: Moves = "dihedral",
        scales: Sequence[float] = (1.0,),
    ) -> None:
        """`scales` are sides of the image in shares of its own."""
        super().__init__(base, base_options)
        if moves not in _MOVES:
            raise ValueError(closest("moves", moves, _MOVES))
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales must be positive, and at least one; got {list(scales)}")
        self.moves = _MOVES[moves]
        self.scales = tuple(scales)

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """The mean over scales of the means over moves."""
        found = [self._at(evidence, scale) for scale in self.scales]
        if len(found) == 1:
            return found[0]
        size = max((m.shape[1:] for m in found), key=lambda shape: shape[0] * shape[1])
        return torch.stack([resized(unit(m)[:, None], size)[:, 0] for m in found]).mean(0)

    def _at(self, evidence: Evidence, scale: float) -> Tensor:
        images = evidence.pixels
        if scale != 1:
            size = [max(1, round(scale * side)) for side in images.shape[2:]]
            images = resized(images, size, antialias=True)
        found = []
        for mirrored, turns in self.moves:
            moved = torch.rot90(images.flip(-1) if mirrored else images, turns, (-2, -1))
            back = torch.rot90(self.redraw(evidence, moved)[0], -turns, (-2, -1))
            found.append(back.flip(-1) if mirrored else back)
        return torch.stack(found).mean(0)


class Fused(Wrapper):
    """One method at several layers: each map is scaled within its image, then they are fused at the finest of their resolutions.

    A base that is published rectified is rectified first and divided by its maximum; others are divided by their largest
    magnitude and keep their sign. Resizing is bilinear. One encode and one backward serve all layers. A net may have one stage
    only, so which layers to fuse is for the caller to say.
    """

    needs_gradient = True
    needs_images = False
    paper = (
        "Jiang et al., LayerCAM, IEEE TIP 2021, for the maximum over layers; Gildenblat's library for CAM methods for the mean"
    )

    def __init__(
        self,
        *,
        layers: Sequence[int] | None = None,
        base: str = "grad-cam",
        base_options: Mapping[str, Any] | None = None,
        how: Literal["mean", "max"] = "mean",
    ) -> None:
        """`layers` are stages, the last by default, as for LayerCAM; `how` is the mean over them or the largest value at a point.

        Raises:
            ValueError: `base` reads no layer of one's choice.
        """
        super().__init__(base, base_options)
        if layers is not None:
            self.layers = tuple(layers)
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must name at least one stage, and none twice; got {self.layers}")
        if how not in ("mean", "max"):
            raise ValueError(closest("how", how, ("mean", "max")))
        kind = resolve("CAM method", base, METHODS, "wsol.cams")
        if "layers" not in inspect.signature(kind).parameters:
            raise ValueError(f"{base!r} reads no layer of one's choice, so there is nothing to fuse: choose another base")
        if "layers" in (base_options or {}):
            raise ValueError(f"'fused' itself takes layers=, not its base; got base_options={dict(base_options or {})}")
        self.how = how
        self.bases = [drawer(base, {**(base_options or {}), "layers": [layer]}) for layer in self.layers]
        self.needs_gradient = self.base.needs_gradient
        self.needs_images = self.base.needs_images

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Scale, resize, fuse."""
        found = [base(net, evidence) for base in self.bases]
        size = max((m.shape[1:] for m in found), key=lambda shape: shape[0] * shape[1])
        scaled = torch.stack([resized(unit(m.relu() if self.rectified else m)[:, None], size)[:, 0] for m in found])
        return scaled.mean(0) if self.how == "mean" else scaled.amax(0)


def unit(m: Tensor) -> Tensor:
    """Maps (b, h, w) divided by their largest magnitude; zeros stay zeros."""
    top = m.abs().amax((1, 2), keepdim=True)
    return m / torch.where(top > 0, top, 1)


def resized(x: Tensor, size: Sequence[int], antialias: bool = False) -> Tensor:
    """(b, c, h, w) -> (b, c, *size), bilinear; untouched at the same size."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False, antialias=antialias)
