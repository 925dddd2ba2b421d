"""Losses on logits (n, k), one row per image or bag; taken to float32 first, whatever autocast made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | Tensor | None = None
) -> Tensor:
    """Cross-entropy ``1/n sum_i w[y_i] * (-sum_c q_ic log p_ic)`` with ``q = (1 - s) * onehot + s / k``.

    A weight belongs to the sample's own class and multiplies its whole loss. (`torch.nn.functional.cross_entropy` weighs the
    smoothed classes one by one, so that a rare class is pushed up even by samples of the other; and it divides by the sum of the
    weights in the batch, so that in a batch of one class, as a bag or two often are, they have no effect. Without weights the
    two agree.)

    Args:
        logits: (n, k).
        labels: (n,) int64 class indices; for bags one per bag.
        label_smoothing: s, the probability mass spread over all classes, in [0, 1).
        class_weights: w, k positive numbers; None weighs all alike.

    Raises:
        ValueError: shapes do not fit, a label is not a class, or an option is out of range.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (n, k) and labels (n,), one per image or per bag; got logits {tuple(logits.shape)} "
            f"and labels {tuple(labels.shape)}"
        )
    classes = logits.shape[1]
    if labels.numel() == 0 or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"labels must be class indices in 0..{classes - 1}; got {sorted(set(labels.tolist()))}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1); got {label_smoothing}")
    log_p = logits.float().log_softmax(dim=1)
    own = log_p.gather(1, labels[:, None]).squeeze(1)
    loss = -(1 - label_smoothing) * own - label_smoothing * log_p.mean(dim=1)
    if class_weights is None:
        return loss.mean()
    weights = torch.as_tensor(class_weights, dtype=torch.float32, device=logits.device)
    if weights.shape != (classes,) or not bool((weights > 0).all()):
        raise ValueError(f"class_weights must be {classes} positive numbers, one per class; got {weights.tolist()}")
    return (weights[labels] * loss).mean()


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """What is minimized where a sample may have several labels: ``-mean_ic [t log p + (1 - t) log (1 - p)]``, p = sigmoid(logit).

    Args:
        logits: (n, k), one question per class.
        labels: (n, k) of 0 and 1.
        label_smoothing: s in [0, 1); t = (1 - s) * label + s / 2.

    Raises:
        ValueError: shapes do not fit, or s is out of range.
    """
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise ValueError(f"expected logits and labels (n, k); got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1); got {label_smoothing}")
    targets = (1 - label_smoothing) * labels.float() + label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits.float(), targets)


def balanced_weights(labels: Sequence[int], classes: int) -> list[float]:
    """Class weights ``n / (k * n_c)`` that give every class the same say; their mean over the samples is 1.

    Raises:
        ValueError: a class has no sample.
    """
    counts = [sum(1 for label in labels if label == c) for c in range(classes)]
    if 0 in counts:
        raise ValueError(f"class {counts.index(0)} of {classes} has no training sample (counts {counts}); check labels and split")
    return [len(labels) / (classes * count) for count in counts]
