from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from wsol.evaluation import aggregate, bootstrap_accuracy, classify_at_levels


def rng(seed=0):
    return np.random.default_rng(seed)


def test_two_classes_by_hand():
    """Slide b has a positive tile among negative ones: it is positive."""
    p = [[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]
    units = aggregate(p, [0, 0, 0, 1, 0], ["a", "a", "b", "b", "b"])
    assert (units.names, units.labels.tolist(), units.conflicting) == (["a", "b"], [0, 1], [])
    assert units.probabilities == pytest.approx(np.array([[0.7, 0.3], [0.5, 0.5]]))
    most = aggregate(p, [0, 0, 0, 1, 0], ["a", "a", "b", "b", "b"], "max")
    assert most.probabilities == pytest.approx(np.array([[0.5, 0.5], [0.2, 0.8]]))


def test_the_positive_class_of_two_may_be_the_first():
    p = [[0.9, 0.1], [0.5, 0.5]]
    units = aggregate(p, [0, 1], ["a", "a"], "max", positive=0)
    assert units.labels.tolist() == [0]
    assert units.probabilities == pytest.approx(np.array([[0.9, 0.1]]))
    assert aggregate(p, [0, 1], ["a", "a"], "max").labels.tolist() == [1]
    assert aggregate(p, [0, 1], ["a", "b"], positive=0).labels.tolist() == [0, 1]


def test_of_many_classes_a_unit_with_two_labels_is_left_out_and_named():
    p = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]
    units = aggregate(p, [0, 1, 2, 2], ["x", "x", "y", "y"], "max")
    assert (units.names, units.labels.tolist(), units.conflicting) == (["y"], [2], ["x"])
    assert units.probabilities == pytest.approx(np.array([[0.3, 0.3, 0.8]]) / 1.4)
    everything = classify_at_levels(p[:2], [0, 1], {"slide": ["x", "x"]}, ["q", "q"], generator=rng())["slide"]
    assert everything["accuracy"] is None
    assert (everything["samples"], everything["conflicting"]) == (0, 1)


def test_samples_that_are_their_own_units_stay_as_they_are():
    p = rng().dirichlet(np.ones(3), 12)
    labels = rng().integers(0, 3, 12)
    for how in ("mean", "max"):
        units = aggregate(p, labels, [f"{i:02d}" for i in range(12)], how)
        assert units.probabilities == pytest.approx(p)
        assert units.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("classes", [2, 3])
def test_numbers_are_those_of_scikit_learn(classes):
    generator = rng(classes)
    slide = np.repeat(np.arange(30), 4)
    labels = (np.arange(30) % classes)[slide]
    p = (
        generator.dirichlet(np.ones(classes), 120) * 0.5
        + 0.5 * np.eye(classes)[(labels + (generator.random(120) < 0.4)) % classes]
    )
    names, patients = [f"s{i:02d}" for i in slide], [f"p{i // 2:02d}" for i in slide]
    found = classify_at_levels(p, labels, {"tile": [str(i) for i in range(120)], "slide": names}, patients, generator=rng(1))
    assert list(found) == ["tile", "slide"]
    row, truth, mean = found["slide"], np.arange(30) % classes, p.reshape(30, 4, classes).mean(axis=1)
    called = mean.argmax(axis=1)
    assert row["accuracy"] == pytest.approx(metrics.accuracy_score(truth, called))
    assert row["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    assert row["confusion"] == metrics.confusion_matrix(truth, called, labels=range(classes)).tolist()
    if classes == 2:
        assert row["auc"] == pytest.approx(metrics.roc_auc_score(truth, mean[:, 1]))
        assert row["brier"] == pytest.approx(2 * metrics.brier_score_loss(truth, mean[:, 1]))
    else:
        assert row["auc"] == pytest.approx(metrics.roc_auc_score(truth, mean, multi_class="ovr"))
    assert (row["samples"], row["patients"], row["conflicting"]) == (30, 15, 0)
    again = rng(1)
    tile = bootstrap_accuracy(labels, p.argmax(axis=1), patients, generator=again, kind="t")
    assert found["tile"]["interval"] == tile.ends
    slides = bootstrap_accuracy(truth, called, [f"p{i // 2:02d}" for i in range(30)], generator=again, kind="t")
    assert row["interval"] == slides.ends
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_mean_over_tiles_mends_what_single_tiles_get_wrong():
    """Tiles right two times of three: each slide of 15 is nearly always right; what a level adds, and known beforehand."""
    generator = rng(2)
    labels = np.repeat(generator.integers(0, 2, 60), 15)
    right = generator.random(900) < 2 / 3
    positive = np.where(right == (labels == 1), 0.8, 0.2)
    slides = [f"{i // 15:02d}" for i in range(900)]
    found = classify_at_levels(
        np.column_stack([1 - positive, positive]),
        labels,
        {"tile": [str(i) for i in range(900)], "slide": slides},
        slides,
        generator=rng(),
    )
    assert found["tile"]["accuracy"] == pytest.approx(2 / 3, abs=0.04)
    assert found["slide"]["accuracy"] >= 0.8  # binomial: 0.91


def test_one_class_and_unknown_patients_are_undefined():
    p, names = [[0.9, 0.1], [0.2, 0.8]], ["a", "b"]
    found = classify_at_levels(p, [1, 1], {"slide": names, "patient": ["a", ""]}, ["a", ""], generator=rng())
    assert list(found) == ["slide"]
    assert (found["slide"]["auc"], found["slide"]["interval"], found["slide"]["patients"]) == (None, [None, None], 0)


def test_what_does_not_fit_is_refused():
    p = [[0.9, 0.1], [0.2, 0.8]]
    with pytest.raises(ValueError, match="slide 's' has samples of two patients, 'a' and 'b'"):
        classify_at_levels(p, [0, 1], {"slide": ["s", "s"]}, ["a", "b"], generator=rng())
    with pytest.raises(ValueError, match="one patient per sample, got 1 for 2"):
        classify_at_levels(p, [0, 1], {"slide": ["s", "s"]}, ["a"], generator=rng())
    with pytest.raises(ValueError, match="one unit per sample, got 1 for 2"):
        aggregate(p, [0, 1], ["s"])
    with pytest.raises(ValueError, match="1 of 2 samples have no unit"):
        aggregate(p, [0, 1], ["s", ""])
    with pytest.raises(ValueError, match="unknown way to aggregate 'median'"):
        aggregate(p, [0, 1], ["s", "t"], "median")
    with pytest.raises(ValueError, match="must be 0 or 1, got 2"):
        aggregate(p, [0, 1], ["s", "t"], positive=2)
