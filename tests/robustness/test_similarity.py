from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from wsol.robustness import hog_correlation, spearman, structural_similarity


def maps(seed=0, shape=(64, 64), smooth=3.0):
    generator = np.random.default_rng(seed)
    return [ndimage.gaussian_filter(generator.normal(size=shape), smooth) for _ in range(2)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 30), st.booleans())
def test_spearman_is_scipys_with_ties(seed, levels, absolute):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(-levels, levels, (2, 5, 6)).astype(float)
    x, y = (np.abs(a), np.abs(b)) if absolute else (a, b)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(spearman(a, b, absolute=absolute))
    else:
        assert spearman(a, b, absolute=absolute) == pytest.approx(stats.spearmanr(x.ravel(), y.ravel()).statistic)


def test_spearman_of_a_plateau_is_by_mean_ranks():
    # Ranks 1.5 1.5 3 against 1 2 3: deviations (-.5, -.5, 1) and (-1, 0, 1), correlation 1.5 / sqrt(1.5 * 2).
    assert spearman([[0.0, 0.0, 1.0]], [[0.1, 0.2, 0.3]]) == pytest.approx(1.5 / math.sqrt(3))


def test_sign_and_scale():
    a, b = maps()
    assert spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, -a, absolute=True) == pytest.approx(1)
    assert spearman(np.exp(a), b) == pytest.approx(spearman(a, b))
    for alike in (structural_similarity, hog_correlation):
        assert alike(3 * a + 7, b) == pytest.approx(alike(a, b))


@pytest.mark.parametrize("alike", [spearman, structural_similarity, hog_correlation])
def test_a_map_is_like_itself_and_the_order_does_not_matter(alike):
    a, b = maps(shape=(7, 9), smooth=1)
    assert alike(a, a) == pytest.approx(1)
    assert alike(a, b) == pytest.approx(alike(b, a))
    assert alike(a, b) < 0.9


def unit(m):
    return (m - m.min()) / (m.max() - m.min())


def test_ssim_is_the_formula_of_wang_et_al():
    a, b = (unit(m) for m in maps(shape=(64, 64)))

    def mean(x):
        return ndimage.gaussian_filter(x, 1.5, truncate=3.5)  # 11 x 11

    c1, c2 = 0.01**2, 0.03**2
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    table = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert structural_similarity(a, b, side=64) == pytest.approx(table[5:-5, 5:-5].mean(), abs=1e-6)


def test_hog_of_stripes():
    x = np.arange(64) / 8
    upright = np.broadcast_to(np.sin(x), (64, 64))
    assert hog_correlation(upright, upright + 1, side=64) == pytest.approx(1)
    assert hog_correlation(upright, -upright, side=64) > 0.99  # unsigned gradients
    assert hog_correlation(upright, upright.T, side=64) < 0
    a, b = maps()
    assert hog_correlation(a, b, ranks=True) != pytest.approx(hog_correlation(a, b), abs=1e-3)


def test_constant_maps():
    flat, a = np.full((8, 8), 0.3), maps(shape=(8, 8), smooth=1)[0]
    for other in (a, flat):
        assert math.isnan(spearman(flat, other))
        assert math.isnan(hog_correlation(flat, other))
    assert structural_similarity(flat, 5 * flat) == pytest.approx(1)
    assert structural_similarity(flat, a) < 0.5


def test_wrong_inputs_say_what_is_wrong():
    a, b = maps()
    with pytest.raises(ValueError, match=r"got \(64, 64\) and \(64, 63\)"):
        spearman(a, b[:, 1:])
    broken = a.copy()
    broken[3, 4] = np.nan
    for alike in (spearman, structural_similarity, hog_correlation):
        with pytest.raises(ValueError, match="1 of 4096 scores of the second map"):
            alike(b, broken)
    with pytest.raises(ValueError, match="at least that; got 10"):
        structural_similarity(a, b, side=10)
    with pytest.raises(ValueError, match="48 px wide, side must be at least that; got 32"):
        hog_correlation(a, b, side=32)
