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
