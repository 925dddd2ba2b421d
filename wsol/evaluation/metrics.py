"""One number each, from counts: the entries of `METRICS`. All are fractions in [0, 1]; NaN where they are undefined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from wsol.evaluation.counts import PixelCounts

F = TypeVar("F", bound=Callable[..., Any])


def source(paper: str) -> Callable[[F], F]:
    """Name the paper a metric comes from, for `wsol list metrics`."""

    def mark(function: F) -> F:
        function.paper = paper  # type: ignore[attr-defined]
        return function

    return mark


@source("Choe et al., Evaluating weakly supervised object localization methods right, CVPR 2020")
def pxap(counts: PixelCounts) -> float:
    """Average precision of pixels over the edges of the score bins, no interpolation; NaN without positives."""
    return counts.pxap


@source("Everingham et al., The Pascal Visual Object Classes challenge, IJCV 2010 (without its interpolation)")
def exact_ap(curve: Any) -> float | None:
    """Average precision of pixels as if all scores were sorted, from a `PixelCurve(exact=True)`; None from a binned one."""
    return curve.exact_ap()


@source(
    "Average precision on a scale from chance to 1, as Cohen's kappa is for accuracy; the normalization is our reconstruction"
)
def normalized_ap(counts: PixelCounts) -> float:
    """(PxAP - prevalence) / (1 - prevalence): 0 for a random map, 1 for a perfect one, negative below chance."""
    return counts.normalized_ap


@source("Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic curve, Radiology 1982")
def roc_auc(counts: PixelCounts) -> float:
    """Share of pairs of a positive and a negative pixel in the right order, pairs in one score bin half."""
    return counts.roc_auc


@source("Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic curve, Radiology 1982")
def exact_auc(curve: Any) -> float | None:
    """Area under the ROC curve of pixels as if all were sorted, from a `PixelCurve(exact=True)`; None from a binned one."""
    return curve.exact_auc()


@source("")
def prevalence(counts: PixelCounts) -> float:
    """Share of positive pixels: the average precision of a random map."""
    return counts.prevalence


@source("Dice, Measures of the amount of ecologic association between species, Ecology 1945")
def dice(counts: PixelCounts, threshold: float) -> float:
    """2 TP / (2 TP + FP + FN) of pixels at a threshold; NaN without positives."""
    return counts.at(threshold).dice


@source("Jaccard, The distribution of the flora in the alpine zone, New Phytologist 1912")
def iou(counts: PixelCounts, threshold: float) -> float:
    """TP / (TP + FP + FN) of pixels at a threshold; NaN without positives."""
    return counts.at(threshold).iou


@source("")
def precision(counts: PixelCounts, threshold: float) -> float:
    """TP / (TP + FP) of pixels at a threshold; NaN without positives or without a flagged pixel."""
    return counts.at(threshold).precision


@source("")
def recall(counts: PixelCounts, threshold: float) -> float:
    """TP / (TP + FN) of pixels at a threshold; NaN without positives."""
    return counts.at(threshold).recall


@source("")
def flagged_area(counts: PixelCounts, threshold: float) -> float:
    """Share of all pixels with score >= threshold; on a sample with nothing to find, every one of them is false.

    Raises:
        ValueError: the threshold is no edge of the counts' bins.
    """
    return counts.at(threshold).area


@source(
    "Belharbi et al., Deep interpretable classification and weakly-supervised segmentation of histology images, TMI 2022 (F1-)"
)
def dice_background(counts: PixelCounts, threshold: float) -> float:
    """2 TN / (2 TN + FP + FN) of pixels at a threshold; NaN without positives or without negatives."""
    return counts.at(threshold).dice_background


@source("")
def iou_background(counts: PixelCounts, threshold: float) -> float:
    """TN / (TN + FP + FN) of pixels at a threshold; NaN without positives or without negatives."""
    return counts.at(threshold).iou_background


@source("")
def miou(counts: PixelCounts, threshold: float) -> float:
    """Mean IoU of foreground and background at a threshold; NaN without positives or without negatives."""
    return counts.at(threshold).miou


@source("")
def pixel_accuracy(counts: PixelCounts, threshold: float) -> float:
    """(TP + TN) / all of pixels at a threshold; NaN without positives."""
    return counts.at(threshold).accuracy


@source("")
def specificity(counts: PixelCounts, threshold: float) -> float:
    """TN / (TN + FP) of pixels at a threshold, also of a sample with nothing to find; NaN without negatives."""
    return counts.at(threshold).specificity


@source("")
def false_positive_rate(counts: PixelCounts, threshold: float) -> float:
    """FP / (TN + FP) of pixels at a threshold, also of a sample with nothing to find; NaN without negatives."""
    return counts.at(threshold).false_positive_rate


@source("")
def false_negative_rate(counts: PixelCounts, threshold: float) -> float:
    """FN / (TP + FN) of pixels at a threshold; NaN without positives."""
    return counts.at(threshold).false_negative_rate
