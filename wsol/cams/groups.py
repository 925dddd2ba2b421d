"""FD-CAM: channels weighted by what groups of similar channels do when they are switched on and off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wsol.cams.base import Evidence, OneLayer
from wsol.models import Localizer


class FdCam(OneLayer):
    """FD-CAM: sum_k w_k A_k(p), w_k = exp(N(s_k)) N(a_k) - 0.5; the authors rectify it last.

    s_k = logit(only the group of k) + logit - logit(all but the group of k), a_k = mean_p g_k(p), N scales to [0, 1] over the
    channels (all equal: to 0). The group of k holds k and the channels whose cosine similarity to A_k lies above the quantile
    `quantile` of its row. The formula is that of the authors' code, including the 0.5 that lets weak channels vote against the
    class; there the group of a channel without features is empty, here it is the channel itself.
    At a GAP head s_k is twice the sum of W_j mean_p A_j(p) over the group, plus the bias.
    """

    needs_gradient = True
    needs_tail = True
    local = False
    rectified = True
    paper = (
        "Li et al., FD-CAM: Improving Faithfulness and Discriminability of Visual Explanation for CNNs, ICPR 2022, "
        "arXiv 2206.08792"
    )

    def __init__(self, *, layers: Sequence[int] | None = None, quantile: float = 0.95, closed_form: bool = True) -> None:
        """`quantile` in [0, 1]: 0.95 groups a channel with the 5% most similar ones; `closed_form` is used where there is one."""
        super().__init__(layers=layers)
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile must be in [0, 1]; got {quantile}")
        self.quantile = quantile
        self.closed_form = closed_form

    def maps(self, net: Localizer, evidence: Evidence) -> Tensor:
        """Weigh the channels by group scores and mean slopes."""
        features, slope = evidence.at(self.layer)
        groups = torch.stack([similar(one, self.quantile) for one in features])
        weights = unit(self._group_scores(evidence, features, groups)).exp() * unit(slope.mean((2, 3))) - 0.5
        return torch.einsum("bc,bchw->bhw", weights, features)

    def _group_scores(self, evidence: Evidence, features: Tensor, groups: Tensor) -> Tensor:
        """s_k of each image, (b, c)."""
        affine = evidence.affine(self.layer) if self.closed_form else None
        if affine is not None:
            shares = affine.weight[evidence.targets] * features.mean((2, 3))
            return 2 * torch.einsum("bkc,bc->bk", groups.float(), shares) + affine.bias[evidence.targets, None]
        count, channels = features.shape[:2]
        owners = torch.arange(count, device=features.device).repeat_interleave(channels)
        members = groups.flatten(0, 1).to(features.dtype)  # a product with bool is slow

        def only(part: slice) -> Tensor:
            return features[owners[part]] * members[part, :, None, None]

        def without(part: slice) -> Tensor:
            return features[owners[part]] * (1 - members[part])[:, :, None, None]

        on, off = (evidence.of_target(evidence.tail(m, self.layer, len(owners)), owners) for m in (only, without))
        return (on + evidence.scores[owners] - off).reshape(count, channels)


def similar(features: Tensor, quantile: float) -> Tensor:
    """Groups of one image's channels, (c, h, w) -> bool (c, c): row k holds the channels similar to channel k, and k itself.

    A channel of zeros is similar to none.
    """
    rows = functional.normalize(features.flatten(1), eps=torch.finfo(features.dtype).tiny)
    cosines = rows @ rows.T
    rank = int(quantile * (len(rows) - 1))  # what lies above the quantile lies above this rank; finding that one needs no sorting
    limits = torch.from_numpy(np.partition(cosines.numpy(force=True), rank, axis=1)[:, rank]).to(cosines.device)
    return (cosines > limits[:, None]) | torch.eye(len(rows), dtype=torch.bool, device=features.device)


def unit(x: Tensor) -> Tensor:
    """Each row of (b, c) scaled to [0, 1]; a row of equal values becomes 0."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return (x - low) / torch.where(high > low, high - low, 1)
