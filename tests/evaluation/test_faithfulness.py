from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsol.evaluation import (
    adcc,
    average_drop,
    average_increase,
    drops,
    energy_pointing_game,
    masked_image,
    pointing_game,
    saliency_metric,
    win_rate,
)

SHAPE = (10, 12)


def mean_red(images):
    red = images[:, 0].astype(np.float64).mean(axis=(1, 2))
    return np.column_stack([1 - red, red])


def spot():
    """Red at [2:4, 3:8], black elsewhere: ten of 120 pixels."""
    image = np.zeros((3, *SHAPE), np.float32)
    image[0, 2:4, 3:8] = 1
    return image


def test_average_drop_and_increase_by_hand():
    full, kept = [0.8, 0.5, 0.4, 0.25], [0.6, 0.5, 0.8, 0.0]
    np.testing.assert_allclose(drops(full, kept), [0.25, 0, 0, 1])
    assert average_drop(full, kept) == pytest.approx(1.25 / 4)
    assert average_increase(full, kept) == 0.25  # an equal probability is no increase
    assert average_drop([0.0, 0.5], [0.2, 0.25]) == 0.5  # nothing to lose: left out
    assert math.isnan(average_drop([0.0], [0.2]))


def test_win_rate_counts_strict_wins_only():
    assert win_rate([0.1, 0.2, 0.3, np.nan], [0.2, 0.2, 0.1, 0.0]) == pytest.approx(1 / 3)
    assert win_rate([0.2, 0.2, 0.1], [0.1, 0.2, 0.3]) == pytest.approx(1 / 3)
    assert math.isnan(win_rate([np.nan], [0.1]))


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_two_win_rates_and_the_ties_make_one(rows):
    full, a, b = np.array(rows).T
    one, other = drops(full, a), drops(full, b)
    assert win_rate(one, other) + win_rate(other, one) + float((one == other).mean()) == pytest.approx(1)


def test_the_map_of_the_evidence_drops_nothing_and_its_opposite_all():
    image = spot()
    for score, lost in [(image[0], 0.0), (1 - image[0], 1.0), (np.full(SHAPE, 0.25), 0.75)]:
        kept = mean_red(masked_image(image, score, (0, 0, 0))[None])[:, 1]
        assert average_drop(mean_red(image[None])[:, 1], kept) == pytest.approx(lost, abs=1e-6)


def test_adcc_by_hand():
    score = np.array([[1.0, 0, 0, 0]])
    again = np.array([[0.5, 0, 0.5, 0]])
    found = adcc(score, again, full=0.8, kept=0.6)
    r = np.corrcoef(score.ravel(), again.ravel())[0, 1]
    assert found.coherency == pytest.approx((1 + r) / 2)
    assert (found.complexity, found.drop) == (0.25, pytest.approx(0.25))
    assert found.value == pytest.approx(3 / (2 / (1 + r) + 1 / 0.75 + 1 / 0.75))
    assert adcc(score, score, 0.5, 0.9).value == pytest.approx(3 / (1 + 1 / 0.75 + 1))


@pytest.mark.parametrize(
    ("score", "again", "kept"),
    [
        (np.ones(SHAPE), np.ones(SHAPE), 0.8),  # keeps all: complexity 1
        (np.zeros(SHAPE), np.zeros(SHAPE), 0.0),  # keeps nothing: drop 1
        (np.full(SHAPE, 0.5), np.full(SHAPE, 0.5), 0.7),  # no correlation of constants
        (spot()[0], 1 - spot()[0], 0.7),  # coherency 0
        (spot()[0], spot()[0], 0.0),  # drop 1
    ],
)
def test_adcc_is_zero_when_a_term_is(score, again, kept):
    assert adcc(score, again, 0.8, kept).value == 0


def test_undefined_coherency_is_nan():
    assert math.isnan(adcc(np.zeros(SHAPE), spot()[0], 0.8, 0.4).coherency)


def test_pointing_by_hand():
    mask = spot()[0] > 0
    score = np.zeros(SHAPE)
    score[2, 9] = 1  # two px right of the mask, whose last column is 7
    assert pointing_game(score, mask, tolerance=2) == 0  # the distance must be less
    assert pointing_game(score, mask, tolerance=2.01) == 1
    score[3, 3] = 1  # and one on it: half of the largest hit
    assert pointing_game(score, mask, tolerance=0) == 0.5
    assert pointing_game(np.full(SHAPE, 0.3), mask, tolerance=0) == mask.mean()
    assert math.isnan(pointing_game(score, np.zeros(SHAPE, bool)))


@given(st.integers(0, 2**31), st.floats(0, 6))
def test_pointing_equals_a_search_over_the_mask(seed, tolerance):
    generator = np.random.default_rng(seed)
    mask, score = generator.random((7, 9)) < 0.1, generator.integers(0, 4, (7, 9))
    near = [
        mask[p] or any(math.dist(p, q) < tolerance for q in np.argwhere(mask))
        for p in map(tuple, np.argwhere(score == score.max()))
    ]
    expected = np.mean(near) if mask.any() else np.nan
    assert pointing_game(score, mask, tolerance) == pytest.approx(expected, nan_ok=True)


def test_energy_by_hand():
    mask = spot()[0] > 0
    assert energy_pointing_game(mask * 0.3, mask) == pytest.approx(1)
    assert energy_pointing_game(np.ones(SHAPE), mask) == pytest.approx(10 / 120)
    assert energy_pointing_game(mask * 0.5 + ~mask * 0.1, mask) == pytest.approx(5 / (5 + 11))
    assert math.isnan(energy_pointing_game(np.zeros(SHAPE), mask))
    assert math.isnan(energy_pointing_game(np.ones(SHAPE), np.zeros(SHAPE, bool)))


def test_the_tightest_crop_of_red_is_all_red():
    image = spot()
    score = image[0].copy()
    score[2, 3] = 0.5
    score[9, 0] = 0.2  # one pixel far away: at a low threshold the box holds both
    found = saliency_metric(mean_red, image, score, 1, thresholds=(0.1, 0.5, 0.8), batch=2)
    assert found.crops == ((0, 2, 8, 10), (3, 2, 8, 4), (3, 2, 8, 4))
    np.testing.assert_allclose(found.areas, [64 / 120, 10 / 120, 10 / 120])
    np.testing.assert_allclose(found.probabilities[1:], 1, atol=1e-6)
    np.testing.assert_allclose(found.values[1:], math.log(10 / 120), atol=1e-6)


def test_the_whole_image_has_minus_log_p_and_small_areas_stop_at_a_twentieth():
    image = spot()
    whole = saliency_metric(mean_red, image, np.ones(SHAPE), 1, thresholds=(0.5,))
    assert whole.values[0] == pytest.approx(-math.log(10 / 120))
    one = np.zeros(SHAPE)
    one[2, 4] = 1
    assert saliency_metric(mean_red, image, one, 1, thresholds=(0.5,)).values[0] == pytest.approx(math.log(0.05))
    off = np.zeros(SHAPE)
    off[9, 9] = 1
    assert saliency_metric(mean_red, image, off, 1, thresholds=(0.5,)).values[0] == pytest.approx(math.log(0.05) - math.log(1e-6))


def test_a_threshold_that_flags_nothing_is_undefined():
    found = saliency_metric(mean_red, spot(), np.full(SHAPE, 0.5), 1, thresholds=(0.3, 0.5, 0.7))
    assert np.isnan(found.values).tolist() == [False, False, True]
    assert found.crops[2] is None


def test_wrong_inputs_say_what_is_wrong():
    mask = spot()[0] > 0
    with pytest.raises(ValueError, match=r"both \(n,\); got \(2,\), \(1,\)"):
        average_drop([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="apply softmax"):
        average_increase([3.0], [0.2])
    with pytest.raises(ValueError, match=r"got \(2,\) and \(1,\)"):
        win_rate([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match=r"scores must lie in \[0, 1\], got 2"):
        adcc(np.full(SHAPE, 2.0), np.ones(SHAPE), 0.5, 0.5)
    with pytest.raises(ValueError, match=r"its image's size \(10, 12\), got \(2, 2\)"):
        adcc(np.ones(SHAPE), np.ones((2, 2)), 0.5, 0.5)
    with pytest.raises(ValueError, match="mask must be bool"):
        pointing_game(np.ones(SHAPE), np.ones(SHAPE))
    with pytest.raises(ValueError, match="at least 0; got -1"):
        pointing_game(np.ones(SHAPE), mask, tolerance=-1)
    with pytest.raises(ValueError, match=r"scores of at least 0, got -1\.0"):
        energy_pointing_game(-np.ones(SHAPE), mask)
    with pytest.raises(ValueError, match=r"thresholds must lie in \[0, 1\]"):
        saliency_metric(mean_red, spot(), mask, 1, thresholds=())
    broken = np.full(SHAPE, np.nan)
    for measure in (pointing_game, energy_pointing_game):
        with pytest.raises(ValueError, match="120 of 120 scores are NaN"):
            measure(broken, mask)
