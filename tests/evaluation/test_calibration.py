from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.evaluation import (
    binary_brier,
    brier,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    softmax,
)
from wsol.evaluation.calibration import TEMPERATURES


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(seed, n=200, classes=3, temperature=1.0):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    generator = rng(seed)
    logits = generator.normal(0, 2, (n, classes))
    p = softmax(logits, temperature)
    return logits, (p.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_scikit_learn_and_torch_agree(seed, classes):
    import torch
    from sklearn.metrics import brier_score_loss, log_loss

    logits, labels = drawn(seed, 25, classes)
    p = softmax(logits)
    assert p == pytest.approx(torch.softmax(torch.tensor(logits), 1).numpy())
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, p, labels=range(classes)))
    tempered = torch.nn.functional.cross_entropy(torch.tensor(logits) / 2.5, torch.tensor(labels)).item()
    assert negative_log_likelihood(logits, labels, 2.5) == pytest.approx(tempered)
    one = np.zeros((25, classes))
    one[np.arange(25), labels] = 1
    assert brier(p, labels) == pytest.approx(sum(((a - b) ** 2).sum() for a, b in zip(p, one, strict=True)) / 25)
    positive = labels > 0
    assert binary_brier(1 - p[:, 0], positive) == pytest.approx(brier_score_loss(positive, 1 - p[:, 0]))


def test_brier_at_its_ends():
    eye = np.eye(3)
    assert brier(eye, [0, 1, 2]) == 0
    assert brier(eye, [1, 2, 0]) == 2
    assert brier(np.full((2, 3), 1 / 3), [0, 2]) == pytest.approx(1 - 1 / 3)
    assert binary_brier([0.5, 0.5], np.array([True, False])) == 0.25
    assert brier([[0.3, 0.7]], [1]) == pytest.approx(2 * binary_brier([0.7], np.array([True])))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_calibration_error_equals_a_slow_loop(seed, bins):
    """Guo's formula with bins ((m - 1) / M, m / M], one sample after the other."""
    logits, labels = drawn(seed, 30)
    p = np.round(softmax(logits), 1)  # many confidences on edges
    p[:, 0] = 1 - p[:, 1] - p[:, 2]
    p = np.clip(p, 0, 1)
    total = 0.0
    for m in range(bins):
        inside = [i for i in range(30) if m / bins < p[i].max() <= (m + 1) / bins]
        if inside:
            right = sum(int(p[i].argmax() == labels[i]) for i in inside) / len(inside)
            total += len(inside) / 30 * abs(right - sum(p[i].max() for i in inside) / len(inside))
    assert expected_calibration_error(p, labels, bins) == pytest.approx(total)


def test_the_table_by_hand():
    """Confidence 0.6 lies on an edge of five bins and falls below it; the first of equal classes is decided."""
    p = [[0.6, 0.4], [0.5, 0.5], [0.3, 0.7], [0.1, 0.9], [1.0, 0.0]]
    labels = [0, 1, 1, 0, 0]
    table = reliability(p, labels, 5).to_dict()
    assert table["count"] == [0, 0, 2, 1, 2]
    assert table["confidence"] == [None, None, 0.55, 0.7, 0.95]
    assert table["accuracy"] == [None, None, 0.5, 1.0, 0.5]
    assert expected_calibration_error(p, labels, 5) == pytest.approx((2 * 0.05 + 0.3 + 2 * 0.45) / 5)


def test_bins_of_equal_mass_keep_equals_together_and_ignore_the_order():
    high = np.array([0.55, 0.6, 0.6, 0.6, 0.8, 0.9, 0.95, 1.0])
    p, labels = np.column_stack([high, 1 - high]), np.array([0, 1, 0, 0, 0, 0, 1, 0])
    table = reliability(p, labels, 4, "mass")
    assert table.count.tolist() == [4, 0, 2, 2]
    assert table.accuracy.tolist() == pytest.approx([0.75, np.nan, 1.0, 0.5], nan_ok=True)
    order = rng().permutation(8)
    assert expected_calibration_error(p[order], labels[order], 4, "mass") == pytest.approx(table.error)
    fine, truth = softmax(drawn(3, 400)[0]), drawn(3, 400)[1]
    assert set(reliability(fine, truth, 8, "mass").count) == {50}


def test_one_bin_is_accuracy_against_mean_confidence():
    logits, labels = drawn(5)
    p = softmax(logits)
    gap = abs((p.argmax(axis=1) == labels).mean() - p.max(axis=1).mean())
    assert expected_calibration_error(p, labels, 1) == pytest.approx(gap)
    assert expected_calibration_error(p, labels, 1, "mass") == pytest.approx(gap)


def test_calibrated_probabilities_have_little_error_and_sharpened_ones_much():
    logits, labels = drawn(6, 20000)
    assert expected_calibration_error(softmax(logits), labels) < 0.02
    assert expected_calibration_error(softmax(logits, 0.3), labels) > 0.1


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_temperature_is_found_again_and_is_the_minimum_scipy_finds(true):
    from scipy.optimize import minimize_scalar

    logits, labels = drawn(7, 20000, temperature=true)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.05)
    logits, labels = logits[:300], labels[:300]
    oracle = minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, t), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}
    )
    assert fit_temperature(logits, labels) == pytest.approx(oracle.x, rel=1e-4)
    assert fit_temperature(10 * logits, labels) == pytest.approx(10 * fit_temperature(logits, labels), rel=1e-6)
    assert fit_temperature(logits + 5.0, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-6)


def test_temperature_of_two_logits_in_closed_form():
    """Logits (1, -1), right in 9 of 10: sigmoid(2 / T) = 0.9, so T = 2 / log 9."""
    logits, labels = np.tile([1.0, -1.0], (10, 1)), np.array([1] + [0] * 9)
    assert fit_temperature(logits, labels) == pytest.approx(2 / math.log(9), rel=1e-8)


def test_logits_without_a_best_temperature_give_the_ends():
    logits = np.array([[2.0, -1.0], [0.0, 3.0], [4.0, 1.0]])
    assert fit_temperature(logits, [0, 1, 0]) == TEMPERATURES[0]
    assert fit_temperature(logits, [1, 0, 1]) == TEMPERATURES[1]
    assert fit_temperature(np.full((3, 2), 7.0), [0, 1, 1]) == 1.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got -1.0 ... 2.0; apply softmax"):
        brier([[2.0, -1.0]], [0])
    with pytest.raises(ValueError, match=r"row 1 sums to 0\.9"):
        brier([[0.5, 0.5], [0.5, 0.4]], [0, 0])
    with pytest.raises(ValueError, match=r"1 of 2 rows of probabilities hold NaN"):
        brier([[0.5, 0.5], [np.nan, 0.4]], [0, 0])
    with pytest.raises(ValueError, match=r"labels must lie in 0 ... 1, got 0 ... 2"):
        expected_calibration_error([[0.5, 0.5], [0.5, 0.5]], [0, 2])
    with pytest.raises(ValueError, match="class indices, got float64"):
        fit_temperature([[0.5, 0.5]], [0.0])
    with pytest.raises(ValueError, match=r"got \(2,\) and \(2,\)"):
        negative_log_likelihood([0.5, 0.5], [0, 1])
    with pytest.raises(ValueError, match="did you mean 'mass'"):
        reliability([[0.5, 0.5]], [0], 5, "masses")
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        reliability([[0.5, 0.5]], [0], 0)
    with pytest.raises(ValueError, match=r"above 0, got 0\.0"):
        softmax([[1.0, 2.0]], 0.0)
    with pytest.raises(ValueError, match="above 0, got -1"):
        negative_log_likelihood([[1.0, 2.0]], [0], -1)
    with pytest.raises(ValueError, match="bool positive"):
        binary_brier([0.2], np.array([1]))
