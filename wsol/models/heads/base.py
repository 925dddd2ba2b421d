"""What every head is: features of images or tiles in, logits and maps out.

A head always computes in float32 (float64 for float64 features), whatever autocast says: logits decide, and cost next to nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsol.models.localizer import Features, Prediction


class Head(nn.Module, ABC):
    """Final door, small room behind it: the net calls the module, a subclass writes `predict`, image by image.

    A bag (`groups=`) is pooled per class: the mean of the k largest tile logits, k = max(1, round(bag_top * tiles)). Hence a bag
    of one tile is that image, and the order of the tiles does not matter. A head with another rule writes `pool_bags` anew, and
    `bag_state` where its rule reads more of a tile than its logits.

    Attributes:
        bag_top: share of a bag's tiles that its logit averages, in (0, 1].
    """

    paper: ClassVar[str]
    reads: ClassVar[str] = "last"
    """ "last": built with the channels of the last stage; "stages": with the tuple of the channels of all stages."""
    multilabel: ClassVar[bool] = True
    """Whether it can be trained on several labels per image: it does not read them."""
    affine: ClassVar[bool] = False
    """Whether the logits are weight . mean_p F(p) + bias, which gives many map methods a closed form. Not inherited: an heir may
    pool as it likes, so it says so anew."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "affine" not in vars(cls) and cls.affine is True:
            cls.affine = False

    def __init__(self, *, dropout: float = 0.0, bag_top: float = 0.25) -> None:
        """Args:
        dropout: share of channels of the last stage dropped in training; the mask comes from torch's global generator.
        bag_top: share of a bag's tiles that its logit averages, in (0, 1].
        """
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        if not 0 < bag_top <= 1:
            raise ValueError(f"bag_top must be in (0, 1]; got {bag_top}")
        self.dropout = dropout
        self.bag_top = bag_top

    def forward(self, f: Features, groups: Tensor | None = None, labels: Tensor | None = None) -> Prediction:
        """Logits and maps.

        Args:
            f: features of b images or tiles.
            groups: int64 (b,), the bag of each tile, numbered 0..n - 1; None if each image stands for itself.
            labels: int64 (b,), or (n,) with `groups`; for heads that erase the evidence of a class in training, the others do
                not read it. With bags each tile gets the label of its bag.

        Raises:
            ValueError: `groups` does not number the bags of these tiles.
        """
        if self.training and self.dropout:
            f = Features((*f.stages[:-1], functional.dropout2d(f.last, self.dropout)), f.extra)
        if groups is None:
            return self.predict(f, labels)
        check_groups(groups, len(f.last))
        tiles = self.predict(f, None if labels is None else labels[groups])
        bags = self.pool_bags(self.bag_state(tiles), groups)
        return Prediction(bags, tiles.maps, tiles.pixels, {**tiles.extra, "tile_logits": tiles.logits})

    @abstractmethod
    def predict(self, f: Features, labels: Tensor | None = None) -> Prediction:
        """Logits (b, k) and maps of b images or tiles; `labels` (b,) as in `forward`, and only in training."""

    def loss(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """What this head is trained on besides the cross-entropy of its logits, scalars by name; nothing for most.

        `labels` as in `forward`; `prediction` is what the same call returned.
        """
        return {}

    def kept(self, f: Features, labels: Tensor) -> Tensor | None:
        """How much of each cell the head leaves of b images or tiles of these labels (b,) in training: (b, 1, h, w) in [0, 1].

        None for heads that erase nothing.
        """
        return None

    def bag_state(self, tiles: Prediction) -> Tensor:
        """All that `pool_bags` reads of b tiles, (b, ...); their logits (b, k) here.

        A slide is read batch by batch: the states of its batches are concatenated and pooled after the last tile.
        """
        return tiles.logits

    def pool_bags(self, state: Tensor, groups: Tensor) -> Tensor:
        """States of tiles (b, ...) -> bag logits (n, k): per class the mean of the largest `bag_top` share of tile logits."""
        check_groups(groups, len(state))
        bags = []
        for bag in range(int(groups.max()) + 1):
            logits = state[groups == bag]
            k = max(1, round(self.bag_top * len(logits)))
            bags.append(logits.topk(k, dim=0).values.mean(0))
        return torch.stack(bags)


def check_groups(groups: Tensor, tiles: int) -> None:
    """Raise ValueError unless `groups` numbers the bags of so many tiles."""
    if groups.shape != (tiles,) or groups.dtype != torch.int64:
        raise ValueError(f"groups must be int64 ({tiles},), the bag of each tile; got {groups.dtype} {tuple(groups.shape)}")
    found = groups.unique().tolist()
    if found != list(range(len(found))):
        raise ValueError(f"bags must be numbered 0..n - 1 and none may be empty; got the numbers {found}")


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, in float32 where it came in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
