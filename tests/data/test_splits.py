from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from wsol.data import check_splits, grouped_split, require_two_classes
from wsol.data.splits import draw_valpx, roles


def cohort(patients, rng):
    """Patients with 1 to 8 samples; every third carries both labels."""
    groups, labels = [], []
    for p in range(patients):
        n = int(rng.integers(1, 9))
        groups += [f"p{p}"] * n
        labels += [int(v) for v in (rng.integers(0, 2, n) if p % 3 == 0 else np.full(n, p % 2))]
    return groups, labels


@pytest.mark.parametrize(("seed", "folds"), [(0, 3), (1, 5), (2, 4)])
def test_groups_stay_whole_and_labels_are_shared_out(seed, folds):
    groups, labels = cohort(60, np.random.default_rng(seed))
    fold = grouped_split(groups, labels, folds, np.random.default_rng(seed))
    for group in set(groups):
        assert len({f for f, g in zip(fold, groups, strict=True) if g == group}) == 1
    for label in (0, 1):
        counts = np.bincount(fold[np.array(labels) == label], minlength=folds)
        assert counts.max() - counts.min() <= 3
    assert (np.bincount(fold, minlength=folds) > 0).all()


def test_large_cohorts_are_dealt_evenly():
    groups, labels = cohort(400, np.random.default_rng(0))
    fold = grouped_split(groups, labels, 5, np.random.default_rng(0))
    for label in (0, 1):
        counts = np.bincount(fold[np.array(labels) == label], minlength=5)
        assert counts.max() - counts.min() <= 3


def test_same_seed_same_folds_other_seed_others():
    groups, labels = cohort(40, np.random.default_rng(0))
    first = grouped_split(groups, labels, 5, np.random.default_rng(7))
    assert (first == grouped_split(groups, labels, 5, np.random.default_rng(7))).all()
    assert (first != grouped_split(groups, labels, 5, np.random.default_rng(8))).any()


def test_small_cohorts_are_parted_as_well_as_possible():
    """Against the best of all partings, by brute force."""
    groups, labels = cohort(7, np.random.default_rng(3))
    names = sorted(set(groups))

    def cost(part):
        total = 0.0
        for label in (0, 1, None):
            here = [p for p, v in zip(groups, labels, strict=True) if label in (v, None)]
            shares = [sum(part[names.index(p)] == f for p in here) / len(here) for f in range(3)]
            total += sum(s * s for s in shares)
        return total + 10 * (3 - len(set(part)))

    best = min(cost(part) for part in product(range(3), repeat=len(names)))
    fold = grouped_split(groups, labels, 3, np.random.default_rng(0))
    found = tuple(int(fold[groups.index(n)]) for n in names)
    assert cost(found) == pytest.approx(best)


def test_impossible_splits_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="there are 2 patients"):
        grouped_split(["a", "b", "b"], [0, 1, 1], 3, rng)
    with pytest.raises(ValueError, match="blank group"):
        grouped_split(["a", ""], [0, 1], 2, rng)
    with pytest.raises(ValueError, match="2 samples and 1 labels"):
        grouped_split(["a", "b"], [0], 2, rng)
    with pytest.raises(ValueError, match="at least 3 folds"):
        list(roles(np.array([0, 1]), [0, 1], valpx=1, eligible=[True, True], seed=0))


def test_roles_rotate_and_valpx_comes_from_valcl():
    fold_of = np.arange(20) % 5
    labels = [i // 5 % 2 for i in range(20)]
    eligible = [i != 1 for i in range(20)]
    placed = list(roles(fold_of, labels, valpx=1, eligible=eligible, seed=0))
    assert placed == list(roles(fold_of, labels, valpx=1, eligible=eligible, seed=0))
    for fold in range(5):
        by = {role: {i for i, f, r in placed if (f, r) == (fold, role)} for role in ("train", "valcl", "valpx", "test")}
        assert by["test"] == set(np.flatnonzero(fold_of == fold))
        assert by["valcl"] == set(np.flatnonzero(fold_of == (fold + 1) % 5))
        assert by["train"] | by["valcl"] | by["test"] == set(range(20))
        assert by["valpx"] <= by["valcl"] - {1}
        assert sorted(labels[i] for i in by["valpx"]) == [0, 1]


def test_valpx_takes_what_there_is():
    drawn = draw_valpx([0, 1, 2], [0, 0, 1, 1], 5, [True, False, True, True], np.random.default_rng(0))
    assert drawn == [0, 2]


def table(rows):
    return pd.DataFrame(rows, columns=["sample", "slide", "patient", "label", "fold", "role"])


GOOD = [
    ("a1", "A", "p", 0, 0, "train"), ("b1", "B", "q", 1, 0, "train"), ("c1", "C", "r", 1, 0, "valcl"),
    ("c1", "C", "r", 1, 0, "valpx"), ("d1", "D", "s", 0, 0, "test"),
]  # fmt: skip


def test_a_clean_split_passes():
    for unit in ("patient", "slide", "image"):
        check_splits(table(GOOD), unit)


def test_patient_in_two_splits():
    bad = table([*GOOD, ("e1", "E", "p", 1, 0, "test")])
    with pytest.raises(ValueError, match="patient 'p' is in train and test of fold 0"):
        check_splits(bad, "patient")
    check_splits(bad, "slide")
    swap = {"train": "test", "test": "train"}
    fold_1 = [(s, slide, patient, label, 1, swap.get(role, role)) for s, slide, patient, label, _, role in GOOD]
    check_splits(table([*GOOD, *fold_1, ("e", "E", "t", 1, 1, "train")]), "patient")


def test_slide_and_sample_in_two_splits():
    with pytest.raises(ValueError, match="slide 'A' is in train and test"):
        check_splits(table([*GOOD, ("a2", "A", "s", 0, 0, "test")]), "slide")
    with pytest.raises(ValueError, match="sample 'a1' is in train and valcl"):
        check_splits(table([*GOOD, ("a1", "A", "p", 0, 0, "valcl")]), "image")


def test_other_defects_of_splits():
    with pytest.raises(ValueError, match="'d1' has none"):
        check_splits(table([*GOOD[:-1], ("d1", "D", "", 0, 0, "test")]), "patient")
    with pytest.raises(ValueError, match="fold 0 has no samples for test"):
        check_splits(table(GOOD[:-1]), "patient")
    with pytest.raises(ValueError, match="training set of fold 0 holds only label 0"):
        check_splits(table([GOOD[0], *GOOD[2:]]), "patient")
    with pytest.raises(ValueError, match="did you mean 'patient'"):
        check_splits(table(GOOD), "patients")


def test_two_classes():
    require_two_classes(table(GOOD))
    with pytest.raises(ValueError, match=r"the training set holds only label 1 \(2 samples\); at least two classes"):
        require_two_classes(table([GOOD[1], GOOD[2]]))
    with pytest.raises(ValueError, match="no samples"):
        require_two_classes(table([]))
