"""Class decisions against labels: accuracy, balanced accuracy, confusion, AUC of two classes or of many.

Labels are class indices, int (n,), and come first, as in scikit-learn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsol.evaluation.metrics import source


def _pair(labels: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    truth, called = np.asarray(labels), np.asarray(predicted)
    if truth.shape != called.shape or truth.ndim != 1 or truth.size == 0:
        raise ValueError(f"need one prediction per label, both (n,) and n > 0; got {called.shape} for {truth.shape}")
    for name, array in (("labels", truth), ("predicted", called)):
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must be class indices, got {array.dtype}; take the argmax of logits first")
    return truth.astype(np.int64), called.astype(np.int64)


def accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Share of samples whose class is right.

    Raises:
        ValueError: not two integer (n,) arrays of one length.
    """
    truth, called = _pair(labels, predicted)
    return float(np.mean(truth == called))


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How many samples of each class (row) were called what (column): int64 (classes, classes).

    Raises:
        ValueError: not two integer (n,) arrays of one length, or an index outside 0 ... classes - 1.
    """
    truth, called = _pair(labels, predicted)
    for name, array in (("labels", truth), ("predicted", called)):
        if array.min() < 0 or array.max() >= classes:
            raise ValueError(f"{name} must lie in 0 ... {classes - 1}, got {array.min()} ... {array.max()}")
    return np.bincount(truth * classes + called, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def balanced_accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Mean recall of the classes that occur in `labels`.

    Raises:
        ValueError: not two integer (n,) arrays of one length.
    """
    truth, called = _pair(labels, predicted)
    return float(np.mean([np.mean(called[truth == k] == k) for k in np.unique(truth)]))


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Chance that a positive sample scores above a negative one, ties counting half: the area under the ROC curve, from ranks.

    Args:
        scores: (n,) any finite numbers, higher is more positive.
        positive: bool (n,).

    Returns:
        In [0, 1]; NaN when only one class occurs.

    Raises:
        ValueError: lengths differ, `positive` is not bool, or a score is NaN or infinite.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(positive)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(f"need one score per label, both (n,); got {values.shape} and {truth.shape}")
    if truth.dtype != np.bool_:
        raise ValueError(f"positive must be bool, got {truth.dtype}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} scores are NaN or infinite")
    hits, misses = int(truth.sum()), int((~truth).sum())
    if not hits or not misses:
        return float("nan")
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(size) - (size - 1) / 2)[group]  # ranks from 1; tied scores share the mean of theirs
    return float((rank[truth].sum() - hits * (hits + 1) / 2) / (hits * misses))


@source("Hand and Till, A simple generalisation of the area under the ROC curve, Machine Learning 2001 (one against the rest)")
def macro_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over classes of the AUC of that class against all others, each class counting once.

    Args:
        probabilities: (n, k) any finite scores per class.
        labels: (n,) class indices.

    Returns:
        In [0, 1]. Classes that no sample, or every sample, belongs to have no AUC and are left out; NaN if all are.

    Raises:
        ValueError: not (n, k) finite numbers with (n,) class indices below k.
    """
    rows, truth = np.asarray(probabilities, np.float64), np.asarray(labels)
    if rows.ndim != 2 or truth.shape != rows.shape[:1] or not np.issubdtype(truth.dtype, np.integer) or not truth.size:
        raise ValueError(f"need scores (n, k) and class indices (n,), n > 0; got {rows.shape} and {truth.dtype} {truth.shape}")
    if truth.min() < 0 or truth.max() >= rows.shape[1]:
        raise ValueError(f"labels must lie in 0 ... {rows.shape[1] - 1}, got {truth.min()} ... {truth.max()}")
    each = np.array([auc(rows[:, k], truth == k) for k in range(rows.shape[1])])
    return float(np.nanmean(each)) if not np.isnan(each).all() else float("nan")
