"""Plain classification: image labels on images, slide labels on bags of tiles; the maps come for free."""

from __future__ import annotations

from wsol.training.strategies.base import Strategy


class Classify(Strategy):
    """Cross-entropy and nothing else: the baseline every other strategy has to beat.

    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016 (classifier of CAM).
    """

    multilabel = True
    paper = "https://arxiv.org/abs/1512.04150"
