"""P values of many comparisons, corrected for their number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from wsol.evaluation.counts import Floats


def holm(p: ArrayLike) -> Floats:
    """P values adjusted for their number, family-wise (Holm, Scandinavian Journal of Statistics 1979): (m,) -> (m,).

    The chance that any true null hypothesis gets a value <= alpha is at most alpha, whatever depends on what. NaN stays NaN and
    does not count as a test.

    Raises:
        ValueError: not (m,) numbers in [0, 1] or NaN.
    """
    return _adjusted(p, lambda s: np.maximum.accumulate(s * np.arange(s.size, 0, -1)))


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """P values adjusted for the false discovery rate (Benjamini and Hochberg, JRSS B 1995): (m,) -> (m,).

    For independent or positively dependent tests. NaN stays NaN and does not count as a test.

    Raises:
        ValueError: not (m,) numbers in [0, 1] or NaN.
    """
    return _adjusted(p, lambda s: np.minimum.accumulate((s * s.size / np.arange(1, s.size + 1))[::-1])[::-1])


def _adjusted(p: ArrayLike, rule: Callable[[Floats], Floats]) -> Floats:
    """`rule` on the ascending p values, put back in their places, at most 1."""
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or ((values < 0) | (values > 1)).any():
        raise ValueError(f"p values must be (m,) numbers in [0, 1] or NaN, got shape {values.shape}: {values}")
    told = np.flatnonzero(~np.isnan(values))
    order = told[np.argsort(values[told], kind="stable")]
    adjusted = np.full(values.shape, np.nan)
    adjusted[order] = np.minimum(rule(values[order]), 1.0)
    return adjusted


CORRECTIONS: dict[str, Callable[[ArrayLike], Floats]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
    "none": lambda p: np.asarray(p, np.float64),
}
"""What may be done about many comparisons."""
