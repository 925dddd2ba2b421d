"""Localization error of the ILSVRC kind: a box that overlaps enough, and the right class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class LocalizationError:
    """Shares of images that are wrong, in [0, 1]."""

    gt_known: float  # the box misses, whatever the class
    top1: float  # the box misses, or another class scores higher
    top5: float  # the box misses, or five other classes score higher


def localization_error(hits: ArrayLike, labels: ArrayLike, logits: ArrayLike) -> LocalizationError:
    """Localization error with the true class given, and among the first one and five predicted classes.

    An image is right among the first k if one guess has both the right class and a box that hits (Russakovsky et al., ImageNet
    large scale visual recognition challenge, IJCV 2015). Only the guess of the true class can, so one hit per image is enough.

    Args:
        hits: bool (n,), n > 0: the box from the map of the *true* class overlaps a true box enough (IoU 0.5 in ILSVRC).
        labels: class indices (n,).
        logits: (n, classes); of equal ones the lower index ranks first, as argmax has it.

    Raises:
        ValueError: lengths differ, no image, `hits` that are not bool, a label that is no class, or a NaN.
    """
    box, truth, scores = np.asarray(hits), np.asarray(labels), np.asarray(logits, np.float64)
    if scores.ndim != 2 or not len(scores) or box.shape != scores.shape[:1] or truth.shape != scores.shape[:1]:
        raise ValueError(f"need one hit and one label per row of logits; got {box.shape}, {truth.shape}, {scores.shape}")
    if box.dtype != np.bool_:
        raise ValueError(f"hits must be bool, got {box.dtype}; compare the IoU first, e.g. overlap >= 0.5")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise ValueError(f"labels must be class indices in 0 ... {scores.shape[1] - 1}, got {truth.dtype} {truth.tolist()[:5]}")
    if np.isnan(scores).any():
        raise ValueError(f"{np.count_nonzero(np.isnan(scores))} of {scores.size} logits are NaN")
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.argmax(order == truth[:, None], axis=1)
    return LocalizationError(
        gt_known=float(np.mean(~box)), top1=float(np.mean(~(box & (rank < 1)))), top5=float(np.mean(~(box & (rank < 5))))
    )
