"""Who trains, who validates, who tests: folds by patient, stratified by label, and the check that nobody stands on two sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsol._names import closest

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("train", "valcl", "test")
"""The roles that may share nothing (valpx is part of valcl)."""


def grouped_split(
    groups: Sequence[str], labels: Sequence[int] | npt.NDArray[np.int64], folds: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Parts samples into folds that keep groups (patients) whole and share out every label as evenly as the groups allow.

    A group may hold samples of several labels. Groups are dealt from the largest to the smallest, each to the fold where the
    shares of all labels stay most even; then single moves and swaps follow as long as they help. The best of several shuffles is
    kept.

    Args:
        groups: one per sample, never "".
        labels: one per sample.
        folds: how many.
        generator: breaks ties; the same generator state gives the same folds.

    Returns:
        The fold (0 to folds - 1) of each sample, int64 (n,).

    Raises:
        ValueError: fewer groups than folds, a blank group, or lengths that differ.
    """
    if len(groups) != len(labels):
        raise ValueError(f"one label per sample expected; got {len(groups)} samples and {len(labels)} labels")
    if any(g == "" for g in groups):
        raise ValueError("a blank group would join samples that have nothing in common; give each unknown one a group of its own")
    names, of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if folds < 2 or len(names) < folds:
        raise ValueError(
            f"{folds} folds need at least 2 folds and one patient per fold; there are {len(names)} patients. Lower `folds`"
        )
    kinds, label_of = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((len(names), len(kinds)))
    np.add.at(counts, (of, label_of), 1)
    # The share of each label, and of all samples, that a group holds: the sum over a fold should be 1 / folds in every column.
    shares = np.column_stack([counts / counts.sum(0), counts.sum(1) / counts.sum()])
    trials = [_deal(shares, folds, generator) for _ in range(16 if len(names) <= 20 else 4)]
    return np.asarray(min(trials, key=lambda t: _cost(shares, t, folds))[of], np.int64)


def roles(
    fold_of: npt.NDArray[np.int64], labels: Sequence[int], *, valpx: int, eligible: Sequence[bool], seed: int
) -> Iterator[tuple[int, int, str]]:
    """(sample, fold, role) of a cross-validation: fold k tests on part k, validates on part k + 1 and trains on the rest.

    `valpx` samples of each label are drawn by `seed` from the eligible ones (those with a mask) of the validation part, or as
    many as there are.

    Raises:
        ValueError: fewer than three folds.
    """
    folds = int(fold_of.max()) + 1
    if folds < 3:
        raise ValueError(f"train, validation and test need at least 3 folds; got {folds}")
    for fold in range(folds):
        part = {fold: "test", (fold + 1) % folds: "valcl"}
        role_of = [part.get(int(f), "train") for f in fold_of]
        yield from ((i, fold, role) for i, role in enumerate(role_of))
        held = [i for i, role in enumerate(role_of) if role == "valcl"]
        yield from ((i, fold, "valpx") for i in draw_valpx(held, labels, valpx, eligible, np.random.default_rng([seed, fold])))


def draw_valpx(
    held: Sequence[int], labels: Sequence[int], count: int, eligible: Sequence[bool], generator: np.random.Generator
) -> list[int]:
    """Up to `count` eligible samples of each label among `held`, ascending."""
    chosen: list[int] = []
    for label in sorted(set(labels)):
        pool = [i for i in held if labels[i] == label and eligible[i]]
        chosen += [pool[j] for j in generator.permutation(len(pool))[:count]]
    return sorted(chosen)


def check_splits(samples: pd.DataFrame, unit: str) -> None:
    """Checks that train, valcl and test of every fold are apart.

    Args:
        samples: columns as in `wsol.data.manifest.MANIFEST`.
        unit: what must be apart: "patient" (then slides and samples too), "slide" (then samples too), or "image".

    Raises:
        ValueError: a unit in two splits of a fold; an unknown patient where `unit` is "patient"; a fold that trains on a single
            class.
    """
    if unit not in ("patient", "slide", "image"):
        raise ValueError(closest("split unit", unit, ("patient", "slide", "image")))
    columns = {"patient": ("sample", "slide", "patient"), "slide": ("sample", "slide"), "image": ("sample",)}[unit]
    sides = samples[samples["role"].isin(SIDES)]
    if unit == "patient" and (sides["patient"] == "").any():
        unknown = sides.loc[sides["patient"] == "", "sample"].iloc[0]
        raise ValueError(
            f"splits by patient need every patient; sample {unknown!r} has none. Fill it in, or declare the split unit "
            f'"slide" or "image"'
        )
    for column in columns:
        per = sides.groupby(["fold", column])["role"].unique()
        for place, found in zip(per.index, per, strict=True):
            number, name = (str(part) for part in place)
            if len(found) < 2:
                continue
            raise ValueError(
                f"{column} {name!r} is in {' and '.join(found)} of fold {number}: what is tested must not have been seen; "
                f"give all samples of a {column} the same split"
            )
    for fold, rows in sides.groupby("fold"):
        absent = [side for side in SIDES if side not in set(rows["role"])]
        if absent:
            raise ValueError(f"fold {fold} has no samples for {' and '.join(absent)}; every fold needs train, valcl and test")
        require_two_classes(rows[rows["role"] == "train"], where=f"the training set of fold {fold}")


def require_two_classes(rows: pd.DataFrame, where: str = "the training set") -> None:
    """Raises ValueError when all rows carry one label: there would be nothing to tell apart."""
    labels = sorted(int(v) for v in rows["label"].unique())
    if len(labels) < 2:
        held = f"only label {labels[0]} ({len(rows)} samples)" if labels else "no samples"
        raise ValueError(f"{where} holds {held}; at least two classes are needed: check the `label` column and the splits")


def _deal(shares: npt.NDArray[np.float64], folds: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    order = generator.permutation(len(shares))
    order = order[np.argsort(-shares[order].max(1), kind="stable")]
    sums = np.zeros((folds, shares.shape[1]))
    part = np.empty(len(shares), np.int64)
    for i in order:
        # Adding s to a fold raises the sum of squares by 2 s . sum + |s|^2.
        part[i] = np.argmin((sums * shares[i]).sum(1))
        sums[part[i]] += shares[i]
    _improve(shares, part, folds)
    return part


def _improve(shares: npt.NDArray[np.float64], part: npt.NDArray[np.int64], folds: int, sweeps: int = 10) -> None:
    """Moves single groups, then swaps pairs, while the cost falls. In place; many groups need none of it."""
    best = _cost(shares, part, folds)
    pairs = [(i, j) for i in range(len(part)) for j in range(i)] if len(part) <= 40 else []
    for _ in range(sweeps):
        before = best
        for i in range(len(part) if len(part) <= 100 else 0):
            for fold in range(folds):
                best = _try(shares, part, folds, best, {i: fold})
        for i, j in pairs:
            if part[i] != part[j]:
                best = _try(shares, part, folds, best, {i: int(part[j]), j: int(part[i])})
        if best == before:
            return


def _try(shares: npt.NDArray[np.float64], part: npt.NDArray[np.int64], folds: int, best: float, change: dict[int, int]) -> float:
    old = {i: int(part[i]) for i in change}
    for i, fold in change.items():
        part[i] = fold
    cost = _cost(shares, part, folds)
    if cost < best - 1e-12:
        return cost
    for i, fold in old.items():
        part[i] = fold
    return best


def _cost(shares: npt.NDArray[np.float64], part: npt.NDArray[np.int64], folds: int) -> float:
    sums = np.zeros((folds, shares.shape[1]))
    np.add.at(sums, part, shares)
    empty = folds - len(np.unique(part))
    return float((sums**2).sum()) + 10.0 * empty
