from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.evaluation import accuracy, auc, balanced_accuracy, confusion, macro_auc


def test_a_case_done_by_hand():
    labels, predicted = [0, 0, 0, 1], [0, 0, 1, 1]
    assert accuracy(labels, predicted) == 0.75
    assert balanced_accuracy(labels, predicted) == pytest.approx((2 / 3 + 1) / 2)
    assert confusion(labels, predicted, 3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert auc([0.1, 0.4, 0.35, 0.8], np.array([False, False, True, True])) == 0.75


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)), min_size=2, max_size=30))
def test_scikit_learn_agrees(rows):
    from sklearn import metrics

    labels, predicted, scores = (np.array(column) for column in zip(*rows, strict=True))
    assert accuracy(labels, predicted) == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert np.array_equal(confusion(labels, predicted, 3), metrics.confusion_matrix(labels, predicted, labels=[0, 1, 2]))
    recalls = metrics.recall_score(labels, predicted, labels=np.unique(labels), average=None, zero_division=0)
    assert balanced_accuracy(labels, predicted) == pytest.approx(recalls.mean())
    positive = labels > 0
    if positive.any() and not positive.all():
        assert auc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores))
        assert auc(np.exp(scores), positive) == auc(scores, positive)
        assert auc(-scores, positive) == pytest.approx(1 - auc(scores, positive))


def test_one_class_has_no_auc():
    assert math.isnan(auc([0.1, 0.2], np.array([True, True])))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\) for \(2,\)"):
        accuracy([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="class indices, got float64"):
        accuracy([0, 1], [0.2, 0.8])
    with pytest.raises(ValueError, match=r"labels must lie in 0 ... 1, got 0 ... 2"):
        confusion([0, 2], [0, 1], 2)
    with pytest.raises(ValueError, match="1 of 2 scores"):
        auc([0.1, np.nan], np.array([True, False]))
    with pytest.raises(ValueError, match="positive must be bool"):
        auc([0.1, 0.2], np.array([1, 0]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_macro_auc_is_that_of_scikit_learn(seed, classes):
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(seed)
    labels = np.append(np.arange(classes), generator.integers(0, classes, 15))
    scores = np.round(generator.dirichlet(np.ones(classes), labels.size), 2) + 0.01
    scores /= scores.sum(axis=1, keepdims=True)
    expected = roc_auc_score(labels, scores if classes > 2 else scores[:, 1], multi_class="ovr")
    assert macro_auc(scores, labels) == pytest.approx(expected)


def test_classes_that_do_not_occur_have_no_part_in_the_macro_auc():
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]])
    assert macro_auc(scores, [0, 1, 1]) == pytest.approx((1.0 + 1.0) / 2)
    assert math.isnan(macro_auc(scores, [1, 1, 1]))
    with pytest.raises(ValueError, match=r"labels must lie in 0 ... 2, got 0 ... 3"):
        macro_auc(scores, [0, 1, 3])
    with pytest.raises(ValueError, match=r"scores \(n, k\)"):
        macro_auc(scores[:, 0], [0, 1, 1])
