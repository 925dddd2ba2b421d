"""Pixels at one threshold or at all of them (TP, FP, FN, TN), and the fractions that follow.

What is undefined is NaN: every 0/0, and by convention

- without positives all that speaks of finding them. Only the flagged area, the specificity and the false-positive rate remain:
  they are what a sample with nothing to find is judged by;
- without negatives the background's Dice and IoU, for the same reason with the sides changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NAN = float("nan")

AT_THRESHOLD = {
    "dice": "dice",
    "iou": "iou",
    "precision": "precision",
    "recall": "recall",
    "flagged-area": "area",
    "dice-background": "dice_background",
    "iou-background": "iou_background",
    "miou": "miou",
    "pixel-accuracy": "accuracy",
    "specificity": "specificity",
    "false-positive-rate": "false_positive_rate",
    "false-negative-rate": "false_negative_rate",
}
"""Metrics of pixels at a threshold: name -> the property of a `Confusion`."""


@dataclass(frozen=True)
class Confusion:
    """Pixels at one threshold, and the fractions that follow; see the module for where they are NaN.

    Two add up to the pixels of both, each flagged by its own threshold; the sum's threshold is NaN where they differ.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Confusion) -> Confusion:
        if not isinstance(other, Confusion):
            return NotImplemented
        threshold = self.threshold if self.threshold == other.threshold else NAN
        return Confusion(threshold, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def _fraction(self, numerator: int, denominator: int) -> float:
        return numerator / denominator if denominator and self.tp + self.fn else NAN

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return self._fraction(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN)."""
        return self._fraction(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self._fraction(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self._fraction(self.tp, self.tp + self.fn)

    @property
    def dice_background(self) -> float:
        """2 TN / (2 TN + FP + FN), the F1- of Belharbi et al. (TMI 2022)."""
        return self._fraction(2 * self.tn, 2 * self.tn + self.fp + self.fn) if self.tn + self.fp else NAN

    @property
    def iou_background(self) -> float:
        """TN / (TN + FP + FN)."""
        return self._fraction(self.tn, self.tn + self.fp + self.fn) if self.tn + self.fp else NAN

    @property
    def miou(self) -> float:
        """Mean of the IoU of foreground and background."""
        return (self.iou + self.iou_background) / 2

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all."""
        return self._fraction(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def false_negative_rate(self) -> float:
        """FN / (TP + FN)."""
        return self._fraction(self.fn, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); NaN only without negatives."""
        return self.tn / (self.tn + self.fp) if self.tn + self.fp else NAN

    @property
    def false_positive_rate(self) -> float:
        """FP / (TN + FP); NaN only without negatives."""
        return self.fp / (self.tn + self.fp) if self.tn + self.fp else NAN

    @property
    def area(self) -> float:
        """Share of all pixels that are flagged, (TP + FP) / all; NaN without any pixel."""
        pixels = self.tp + self.fp + self.fn + self.tn
        return (self.tp + self.fp) / pixels if pixels else NAN


@dataclass(frozen=True, eq=False)
class Curve:
    """Pixels (int64) and fractions (float64) at every threshold, ascending: (bins + 1,) each.

    Precision is NaN where no score reaches the threshold; otherwise NaN as in `Confusion`.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    dice_background: NDArray[np.float64]
    specificity: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        threshold: NDArray[np.float64],
        tp: NDArray[np.int64],
        fp: NDArray[np.int64],
        fn: NDArray[np.int64],
        tn: NDArray[np.int64],
    ) -> Curve:
        """The curve of pixels counted at every threshold."""
        positives, negatives, wrong = tp + fn, tn + fp, fp + fn

        def fraction(
            numerator: NDArray[np.int64], denominator: NDArray[np.int64], needed: NDArray[np.int64]
        ) -> NDArray[np.float64]:
            defined = (denominator > 0) & (needed > 0)
            return np.divide(numerator, denominator, out=np.full(tp.shape, np.nan), where=defined)

        return cls(
            threshold=threshold,
            precision=fraction(tp, tp + fp, positives),
            recall=fraction(tp, positives, positives),
            dice=fraction(2 * tp, 2 * tp + wrong, positives),
            iou=fraction(tp, tp + wrong, positives),
            dice_background=fraction(2 * tn, 2 * tn + wrong, np.minimum(positives, negatives)),
            specificity=fraction(tn, negatives, negatives),
            tp=tp,
            fp=fp,
            fn=fn,
            tn=tn,
        )
