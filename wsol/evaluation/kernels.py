"""The compiled loops over pixels. Plain loops on flat arrays; everything else of the room is numpy on some 1000 bins.

Each kernel adds in place to an int64 (2, bins) table whose row 0 counts negative pixels and row 1 positive ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

FLOAT_BITS_DROPPED = 9
"""Low mantissa bits that the exact histogram forgets: it keeps the top 23 of 32, scores within 2^-14 of their size tie."""

MIXED = 0xFFFF
"""Mark of a bin of the exact histogram that holds different scores."""

FLOAT_BINS = (int(np.float32(1.0).view(np.uint32)) >> FLOAT_BITS_DROPPED) + 1
"""Bins of the exact histogram: one for every value that the top 23 bits of a float32 in [0, 1] can take."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled by numba, kept on disk where there is a folder to keep it in (a read-only installation has none)."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba: "no locator available"; the price is one compilation per process
        return numba.njit(nogil=True)(function)


@compiled
def count_scores(scores: Any, masks: Any, table: Any) -> int:
    """Count each score in bin floor(score * bins); score 1 has a bin of its own.

    A float32 times a number of bins is exact in float64, so this is i / bins <= score < (i + 1) / bins without any rounding.

    Returns:
        The index of the first score that is NaN or outside [0, 1], or -1. On a bad score `table` is half filled: throw it away.
    """
    bins = table.shape[1] - 1
    for i in range(scores.size):
        score = np.float64(scores[i])
        if not (score >= 0.0 and score <= 1.0):
            return i
        table[masks[i], int(score * bins)] += 1
    return -1


@compiled
def count_scores_kept(scores: Any, masks: Any, ignore: Any, table: Any) -> int:
    """`count_scores` that skips the pixels of `ignore`, but checks them: a NaN is a broken map wherever it stands."""
    bins = table.shape[1] - 1
    for i in range(scores.size):
        score = np.float64(scores[i])
        if not (score >= 0.0 and score <= 1.0):
            return i
        if ignore[i]:
            continue
        table[masks[i], int(score * bins)] += 1
    return -1


@compiled
def count_float_bits(bits: Any, masks: Any, ignore: Any, table: Any, seen: Any) -> None:
    """Count checked scores by the top bits of their own float32 pattern, which sorts as the numbers do on [0, 1].

    `ignore` may be empty: nothing is skipped. -0.0 counts as 0.0. `seen` (uint16 (bins,)) tells true ties from near ones: 0 for
    an empty bin, 1 + the dropped bits while every score of the bin is the same, `MIXED` afterwards.
    """
    skips = ignore.size > 0
    low_bits = np.uint32((1 << FLOAT_BITS_DROPPED) - 1)
    for i in range(bits.size):
        if skips and ignore[i]:
            continue
        pattern = bits[i] & np.uint32(0x7FFFFFFF)
        at = pattern >> np.uint32(FLOAT_BITS_DROPPED)
        table[masks[i], at] += 1
        mark = np.uint16((pattern & low_bits) + np.uint32(1))
        before = seen[at]
        if before != mark and before != MIXED:
            seen[at] = mark if before == 0 else MIXED
