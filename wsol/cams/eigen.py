"""Maps that are the first principal component of the features, uncentered."""

from __future__ import annotations

import torch
from torch import Tensor

from wsol.cams.base import Evidence, OneLayer
from wsol.models import Localizer


class EigenCam(OneLayer):
    """Eigen-CAM: X v, with X the features as (h w, c) and v their first right singular vector, without centering.

    It reads no class: the map says what stands out in the features, whatever the target. A singular vector has no sign; here the
    largest magnitude is positive, so that the map of features >= 0 is >= 0. The paper says nothing of signs.
    """

    needs_gradient = False
    local = False
    rectified = False
    class_specific = False
    paper = "Bany Muhammad and Yeasin, Eigen-CAM: Class Activation Map using Principal Components, IJCNN 2020"

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Project the features."""
        m = projection(evidence.stage(self.layer))
        return m * _signs(m.amax((1, 2)) + m.amin((1, 2)))


class EigenGradCam(OneLayer):
    """Eigen-Grad-CAM: the first principal component of g_k(p) A_k(p), without centering.

    The published code leaves the sign to the linear algebra library. Here the map agrees with HiResCAM, the sum of g_k A_k over
    channels: their inner product is not negative.
    """

    needs_gradient = True
    local = False
    rectified = True
    paper = "Gildenblat et al., PyTorch library for CAM methods, 2021 (Eigen-CAM on the product of slope and features)"

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Project the products."""
        features, slope = evidence.at(self.layer)
        product = features * slope
        m = projection(product)
        return m * _signs((m * product.sum(1)).sum((1, 2)))


def projection(x: Tensor) -> Tensor:
    """X v of each image, (b, c, h, w) -> (b, h, w), of unknown sign.

    From the eigenvectors of the smaller of the two Gram matrices, in float64: squaring halves the digits.
    """
    rows = x.flatten(2).transpose(1, 2).double()
    size = rows.abs().amax((1, 2), keepdim=True)
    rows = rows / torch.where(size > 0, size, 1)
    cells, channels = rows.shape[1:]
    if cells <= channels:
        values, vectors = torch.linalg.eigh(rows @ rows.transpose(1, 2))
        m = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(rows.transpose(1, 2) @ rows)
        m = (rows @ vectors[..., -1:])[..., 0]
    return (m * size[..., 0]).reshape(len(x), *x.shape[2:]).float()


def _signs(agreement: Tensor) -> Tensor:
    """1 or -1 (b, 1, 1)."""
    return torch.where(agreement < 0, -1.0, 1.0)[:, None, None]
