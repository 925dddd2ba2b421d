"""Guided Grad-CAM: the fine lines of guided backpropagation where Grad-CAM looks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from wsol.cams.base import Evidence
from wsol.cams.gradient import GradCam
from wsol.cams.inputs import pixel_slope
from wsol.models import Localizer, guided_relu


class GuidedGradCam(GradCam):
    """Guided Grad-CAM: ReLU(Grad-CAM), resized to the image (bilinear), times the guided slope of the logit by the pixel.

    The paper shows the product in color; a map needs one number, and here it is the sum over the three colors. That the final map
    is rectified is our reading, too. Guided backpropagation hardly depends on the upper layers (Adebayo et al., Sanity Checks for
    Saliency Maps, NeurIPS 2018): it says where edges are, and only the factor Grad-CAM says what for.
    """

    needs_images = True
    resolution = "image"

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """One pass of its own with guided ReLUs, from the pixels up."""
        coarse = super().maps(net, evidence).relu()
        with guided_relu():
            slope = pixel_slope(evidence, evidence.pixels)
        where = functional.interpolate(coarse[:, None], slope.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        return slope.sum(1) * where
