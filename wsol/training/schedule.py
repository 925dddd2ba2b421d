"""The learning rate as a function of how much of the training is done."""

from __future__ import annotations

import math


def warmup_cosine(progress: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine down to zero.

    Args:
        progress: share of all steps that is done, in [0, 1]. The loop asks at the middle of a step, so that neither the first
            nor the last step is wasted on a rate of exactly zero.
        warmup: share of all steps that warms up, in [0, 1).

    Returns:
        The factor on the peak learning rate: 0 at progress 0 (1 without warm-up), 1 at `warmup`, 0 at 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of the training steps and must lie in [0, 1); got {warmup}")
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must lie in [0, 1]; got {progress}")
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
