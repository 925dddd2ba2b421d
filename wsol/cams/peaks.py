"""Peak response mapping: what each peak of a class map is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsol.cams.base import Evidence, OneLayer
from wsol.cams.linear import class_maps_of
from wsol.cams.sight import plain
from wsol.models import Features, Localizer, local_maxima


class PeakResponse(OneLayer):
    """Peak response maps, summed over the peaks of the class: each peak hands one unit back to the values that made it.

    For a peak q of the class map M and features A of the layer, A_k(p) gets the share A_k(p) ReLU(d M(q) / d A_k(p)) of it; a
    cell its channels' sum, rectified, and a peak that no value argues for gets nothing. The sum of the map is hence the number
    of peaks that something argues for.

    A reconstruction: the authors go back convolution by convolution to the image, weights rectified, each value taking its part
    of what its winner got. Of a 1x1 convolution on features that are not negative this is the formula above, and exact. All
    that lies between a finer layer and the class map is taken as one linear step, by its slope. So at the last layer a peak
    gives all to its own cell, and the map is a map of peaks (to count, or to seed); what a peak is made of shows at finer
    `layers`. It costs a backward to the layer for each peak.
    """

    needs_gradient = False
    needs_tail = True
    local = False
    rectified = False
    paper = "Zhou et al., Weakly Supervised Instance Segmentation using Class Peak Response, CVPR 2018"

    def __init__(self, *, layers: Sequence[int] | None = None, window: int = 3, above_median: bool = True) -> None:
        """Args:
        layers: the one stage to hand back to, (-1,) without it.
        window: side of the square, odd, in cells of the class map, within which a peak is the largest.
        above_median: drop peaks below the median of their map, as the authors' code does.
        """
        super().__init__(layers=layers)
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window must be odd, in cells around a peak; got {window}")
        self.window = window
        self.above_median = above_median

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """One backward for the first peak of each image, one for the second, and so on."""
        class_maps = class_maps_of(net, "prm")
        number = net.stage_number(self.layer)
        depth = len(net.backbone.channels)
        with torch.enable_grad():
            leaf = plain(evidence.features.stages[number - depth]).requires_grad_(True)
            above = () if number == depth - 1 else net.encode(leaf, start=number + 1).stages
            every = class_maps(Features((leaf, *above)))
            own = every[torch.arange(len(every), device=every.device), evidence.targets]
            peaks = local_maxima(own.detach()[:, None], self.window, above_median=self.above_median).flatten(1)
            order = peaks.cumsum(1) * peaks  # 1, 2, ... at the peaks of each image, 0 elsewhere
            total = torch.zeros_like(leaf[:, 0])
            for i in range(1, int(order.max()) + 1):
                # images do not mix in evaluation mode: the gradient of the sum gives each image that of its own peak
                (slope,) = torch.autograd.grad(own.flatten(1)[order == i].sum(), leaf, retain_graph=True)
                part = (leaf.detach() * slope.relu()).sum(1).relu()
                whole = part.sum((1, 2), keepdim=True)
                total = total + part / torch.where(whole > 0, whole, 1)
        return total
