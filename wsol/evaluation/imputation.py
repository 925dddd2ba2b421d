"""ROAD, remove and debias: deleted pixels become what their neighbors suggest, so that the hole itself gives nothing away.

A constant filling tells the classifier the outline of what was deleted, and the order of methods then depends on the filling.
Noisy linear imputation makes every deleted pixel the weighted mean of its neighbors (1/6 to each side, 1/12 to each corner) plus
noise: one sparse linear system per image, whose solution lies between the smallest and the largest pixel that was kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsol.evaluation.counts import Floats
from wsol.evaluation.metrics import source
from wsol.evaluation.perturbation import Classify, Image, checked_image, importance, probabilities

NEIGHBORS = tuple(
    ((down, right), 1 / 12 if down and right else 1 / 6) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)
)
"""Offset and weight of each neighbor. At the border those outside are left out and the rest is scaled to a sum of 1."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class Road:
    """Probability of the class with a share of the pixels imputed.

    Attributes:
        fractions: share removed, float64 (f,).
        morf: probabilities with the most relevant removed first, float64 (f,); a faithful map makes it fall fast.
        lerf: the same with the least relevant first; a faithful map keeps it high.
    """

    fractions: Floats
    morf: Floats
    lerf: Floats

    @property
    def value(self) -> float:
        """Mean over the fractions of (LeRF - MoRF) / 2, in [-1/2, 1/2]; higher is better, 0 for a map that orders nothing.

        The paper shows both curves, over the accuracy on a data set. One number of both, per image and of the probability, is
        the combination that pytorch-grad-cam introduced.
        """
        return float((self.lerf - self.morf).mean() / 2)


@source("Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022")
def road(
    classify: Classify,
    image: Image,
    score: ArrayLike,
    target: int,
    *,
    fractions: Sequence[float] = FRACTIONS,
    noise: float = 0.01,
    batch: int = 32,
    generator: np.random.Generator,
) -> Road:
    """Remove the most (MoRF) or the least relevant pixels (LeRF) by noisy linear imputation and ask the classifier again.

    Args:
        classify: float32 (n, 3, H, W) RGB in [0, 1] -> probabilities (n, k).
        image: float32 (3, H, W), RGB in [0, 1].
        score: (H, W), higher = more relevant.
        target: the class.
        fractions: shares of the pixels to remove, each in [0, 1).
        noise: standard deviation, in units of [0, 1].
        batch: most images per call of the classifier.
        generator: draws the noise, and breaks ties: the same order for MoRF, and backwards for LeRF.

    Raises:
        ValueError: shapes that do not match, NaN, values outside [0, 1], no such class.
    """
    image = checked_image(image)
    shares = np.asarray(fractions, np.float64)
    if shares.ndim != 1 or not shares.size or not ((shares >= 0) & (shares < 1)).all():
        raise ValueError(
            f"fractions must lie in [0, 1), at least one, got {list(fractions)}; with no pixel left nothing is known"
        )
    rank = importance(score, image.shape[1:], generator)
    counts = np.minimum(np.rint(shares * rank.size).astype(np.int64), rank.size - 1)
    holes = [rank < n for n in counts] + [rank >= rank.size - n for n in counts]
    removed = (impute(image, hole, noise=noise, generator=generator) for hole in holes)
    found = probabilities(classify, removed, target, batch)
    return Road(counts / rank.size, found[: len(counts)], found[len(counts) :])


def impute(
    image: Image, missing: NDArray[np.bool_], *, noise: float = 0.01, generator: np.random.Generator | None = None
) -> Image:
    """The image with its missing pixels imputed, float32 (3, H, W), cut to [0, 1].

    Without noise a linear ramp comes back exactly, as long as its missing pixels do not touch the border.

    Args:
        image: float32 (3, H, W), RGB in [0, 1].
        missing: bool (H, W).
        noise: standard deviation of what is added to the imputed pixels.
        generator: draws the noise; needed unless it is 0.

    Raises:
        ValueError: shapes that do not match, every pixel missing, negative noise, or noise without a generator.
    """
    from scipy.sparse.linalg import splu

    image = checked_image(image)
    if missing.dtype != np.bool_ or missing.shape != image.shape[1:]:
        raise ValueError(f"missing must be bool {image.shape[1:]}, got {missing.dtype} {missing.shape}")
    if missing.all():
        raise ValueError("every pixel is missing: there is nothing to impute from")
    if noise < 0 or (noise > 0 and generator is None):
        raise ValueError(f"noise must be at least 0, and needs a generator above 0; got noise={noise}, generator={generator}")
    if not missing.any():
        return image
    matrix, known = _system(image, missing)
    # Symmetric and positive definite: every hole touches a kept pixel somewhere.
    solved = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve(known)
    if generator is not None:
        solved += noise * generator.standard_normal(solved.shape)
    filled = image.copy()
    filled[:, missing] = solved.T.clip(0, 1)
    return filled


def _system(image: Image, missing: NDArray[np.bool_]) -> tuple[Any, Floats]:
    """Matrix (n, n) and right-hand side (n, 3): sum of weights * pixel - weighted missing neighbors = weighted kept neighbors."""
    from scipy.sparse import coo_matrix

    count = int(np.count_nonzero(missing))
    outside, kept = -2, -1
    number = np.full((missing.shape[0] + 2, missing.shape[1] + 2), outside)  # a frame, so that no neighbor is out of bounds
    number[1:-1, 1:-1] = np.where(missing, np.cumsum(missing).reshape(missing.shape) - 1, kept)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    y, x = np.nonzero(missing)
    rows, columns, values = [np.arange(count)], [np.arange(count)], [np.zeros(count)]
    known = np.zeros((count, 3))
    for (down, right), weight in NEIGHBORS:
        at = (y + 1 + down, x + 1 + right)
        there = number[at]
        values[0] += weight * (there != outside)
        known += weight * (there == kept)[:, None] * padded[:, at[0], at[1]].T
        unknown = np.flatnonzero(there >= 0)
        rows.append(unknown)
        columns.append(there[unknown])
        values.append(np.full(unknown.size, -weight))
    joined = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return coo_matrix(joined, shape=(count, count)).tocsc(), known
