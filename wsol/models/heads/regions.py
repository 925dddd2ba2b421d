"""Heads whose logits are means over the strongest (and weakest) cells of a class map: `wildcat`, `top-k`."""

from __future__ import annotations

import math

from torch import Tensor

from wsol.models.heads.linear import LinearHead


class Wildcat(LinearHead):
    """WILDCAT: logit_k = (mean of the kmax largest of M_k + alpha * mean of the kmin smallest) / 2 + B_k.

    M_k is the mean of m modality maps. That is the map of the mean of their weights, so the m maps are never drawn: m changes how
    the weights are drawn and how fast they learn, not what can be learned. The authors halve only where there is a minimum term,
    and so does this. Their bias lies inside the maps, where it counts (1 + alpha) / 2 times; here it is added as it is.
    """

    paper = (
        "Durand et al., WILDCAT: Weakly Supervised Learning of Deep ConvNets for Image Classification, Pointwise Localization "
        "and Segmentation, CVPR 2017"
    )

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        modalities: int = 5,
        kmax: float = 0.5,
        kmin: float = 0.1,
        alpha: float = 0.6,
        halve: bool = True,
        released_min: bool = False,
        background: bool = False,
        published_rows: bool = False,
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """Args:
        channels: of the last stage.
        num_classes: k.
        modalities: m, maps per class.
        kmax: cells of the positive term: a share of all in (0, 1), rounded and at least one, or a whole number of them.
        kmin: cells of the negative term, likewise; 0 leaves it out.
        alpha: weight of the negative term.
        halve: divide by 2, as the authors do.
        released_min: leave the negative term and the division out, whatever the options say: so does the code of the survey (and
            of NEGEV, MAXMIN and PixelCAM), which drops the result of that line.
        background: as for `ClassMapHead`.
        published_rows: as for `ClassMapHead`.
        dropout: as for `Head`.
        bag_top: as for `Head`.
        """
        if modalities < 1:
            raise ValueError(f"modalities must be at least 1 map per class; got {modalities}")
        super().__init__(
            channels,
            num_classes,
            modalities,
            background=background,
            published_rows=published_rows,
            dropout=dropout,
            bag_top=bag_top,
        )
        _check_cells("kmax", kmax, least=1)
        _check_cells("kmin", kmin, least=0)
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be at least 0 and finite; got {alpha}")
        self.modalities = modalities
        self.kmax, self.kmin, self.alpha = kmax, kmin, alpha
        self.halve = halve
        self.released_min = released_min

    @property
    def rows(self) -> Tensor:
        """Mean weights of the modalities of each output, (k, c), or (k + 1, c) with the background first."""
        return super().rows.unflatten(0, (-1, self.modalities)).mean(1)

    def pool(self, maps: Tensor) -> Tensor:
        """The mean of the top cells and alpha times that of the bottom cells, halved."""
        cells = maps.flatten(2)
        top = mean_of_largest(cells, _number(self.kmax, cells.shape[2]))
        if self.released_min or self.kmin == 0 or self.alpha == 0:
            return top
        bottom = -mean_of_largest(-cells, _number(self.kmin, cells.shape[2]))
        both = top + self.alpha * bottom
        return both / 2 if self.halve else both


class TopK(LinearHead):
    """Top-k pooling: logit_k = mean of the largest share of M_k + B_k, each cell an instance; share 1 is the mean.

    A bag takes the top share of its tiles likewise (`bag_top`).
    """

    paper = "Li and Vasconcelos, Multiple Instance Learning for Soft Bags via Top Instances, CVPR 2015"

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        share: float = 0.25,
        background: bool = False,
        published_rows: bool = False,
        dropout: float = 0.0,
        bag_top: float = 0.25,
    ) -> None:
        """`share` of the cells in (0, 1], rounded and at least one; the others as for `ClassMapHead`."""
        super().__init__(
            channels, num_classes, background=background, published_rows=published_rows, dropout=dropout, bag_top=bag_top
        )
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], of the cells of a map; got {share}")
        self.share = share

    def pool(self, maps: Tensor) -> Tensor:
        """The mean of the top cells."""
        cells = maps.flatten(2)
        return mean_of_largest(cells, max(1, round(self.share * cells.shape[2])))


def mean_of_largest(cells: Tensor, count: int) -> Tensor:
    """Cells (b, k, n) -> the mean of the `count` largest, (b, k)."""
    return cells.topk(count, dim=2, sorted=False).values.mean(2)


def _number(k: float, cells: int) -> int:
    """A share of the cells, or a number of them, as a number in 1..cells."""
    return min(cells, max(1, round(k * cells) if k < 1 else int(k)))


def _check_cells(name: str, k: float, least: int) -> None:
    if not (0 < k < 1 or (k >= least and float(k).is_integer())):
        raise ValueError(f"{name} must be a share of the cells in (0, 1) or a whole number of them from {least} up; got {k}")
