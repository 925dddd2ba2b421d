"""Peak stimulation: the logit of a class is made of the local maxima of its map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wsol.models.heads.linear import LinearHead


class Prm(LinearHead):
    """Peak response mapping's stimulation: logit_k = mean of M_k over its local maxima + B_k.

    The maps are the class maps, whatever the option. The paper's other half, a map for each peak by going back from it, is the
    CAM method `prm`.
    """

    paper = "Zhou et al., Weakly Supervised Instance Segmentation using Class Peak Response, CVPR 2018"

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        window: int = 3,
        above_median: bool = False,
        dense: bool = False,
        background: bool = False,
        published_rows: bool = False,
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """Args:
        channels: of the last stage.
        num_classes: k.
        window: side of the square within which a peak is the largest, odd, in cells.
        above_median: drop peaks below the median of their map, as the authors' code does (the paper says so of no training).
        dense: the survey's stand-in for peaks: the mean of the maximum of every window that lies inside the map.
        background: as for `ClassMapHead`.
        published_rows: as for `ClassMapHead`.
        dropout: as for `Head`.
        bag_top: as for `Head`.
        """
        super().__init__(
            channels, num_classes, background=background, published_rows=published_rows, dropout=dropout, bag_top=bag_top
        )
        _check_window(window)
        self.window = window
        self.above_median = above_median
        self.dense = dense

    def pool(self, maps: Tensor) -> Tensor:
        """The mean over the peaks, or with `dense` over all windows.

        Raises:
            ValueError: `dense`, and the maps are smaller than the window.
        """
        if self.dense:
            if min(maps.shape[2:]) < self.window:
                raise ValueError(
                    f"dense=True needs maps of at least {self.window} x {self.window} cells; got {tuple(maps.shape[2:])}: "
                    "take larger images or a finer output_stride"
                )
            return functional.max_pool2d(maps, self.window, stride=1).mean((2, 3))
        peaks = local_maxima(maps.detach(), self.window, above_median=self.above_median)
        return torch.where(peaks, maps, 0).sum((2, 3)) / peaks.sum((2, 3))


def local_maxima(maps: Tensor, window: int = 3, *, above_median: bool = False) -> Tensor:
    """Where a map (b, k, h, w) is the largest of the window around it: bool (b, k, h, w), at least one in each map.

    Of equal neighbors the first in reading order is the peak, so that a flat stretch has few.

    Args:
        maps: without NaN.
        window: side of the square, odd.
        above_median: leave out peaks below the (lower) median of their map.

    Raises:
        ValueError: an even window.
    """
    _check_window(window)
    _, where = functional.max_pool2d(maps, window, stride=1, padding=window // 2, return_indices=True)
    height, width = maps.shape[2:]
    peaks = where == torch.arange(height * width, device=maps.device).view(height, width)
    return peaks & (maps >= maps.flatten(2).median(2).values[:, :, None, None]) if above_median else peaks


def _check_window(window: int) -> None:
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd, in cells around a peak; got {window}")
