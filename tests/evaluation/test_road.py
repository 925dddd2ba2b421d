from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.evaluation import impute, road

SHAPE = (12, 15)


def ramp():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.stack([0.1 + 0.03 * x + 0.02 * y, 0.9 - 0.05 * x, 0.5 + 0 * x]).astype(np.float32)


def mean_red(images):
    red = images[:, 0].astype(np.float64).mean(axis=(1, 2))
    return np.column_stack([1 - red, red])


def test_a_ramp_comes_back_exactly():
    hole = np.zeros(SHAPE, bool)
    hole[2:9, 3:11] = True
    hole[4, 12] = True
    broken = ramp()
    broken[:, hole] = 0.77
    found = impute(broken, hole, noise=0)
    np.testing.assert_allclose(found, ramp(), atol=1e-6)
    np.testing.assert_array_equal(found[:, ~hole], ramp()[:, ~hole])


def slow_imputed(image, missing):
    """Every equation written out, dense: the neighbors that are on the image share the weight."""
    places = [tuple(p) for p in np.argwhere(missing)]
    matrix, right = np.zeros((len(places),) * 2), np.zeros((len(places), 3))
    for i, (y, x) in enumerate(places):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                weight = {0: 0, 1: 1 / 6, 2: 1 / 12}[abs(dy) + abs(dx)]
                if not (0 <= y + dy < missing.shape[0] and 0 <= x + dx < missing.shape[1]) or not weight:
                    continue
                matrix[i, i] += weight
                if missing[y + dy, x + dx]:
                    matrix[i, places.index((y + dy, x + dx))] -= weight
                else:
                    right[i] += weight * image[:, y + dy, x + dx]
    found = image.copy()
    found[:, missing] = np.linalg.solve(matrix, right).T
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.02, 0.98))
def test_imputation_solves_the_dense_system_and_stays_between_what_was_kept(seed, share):
    generator = np.random.default_rng(seed)
    image = generator.random((3, 7, 6), dtype=np.float32)
    missing = generator.random((7, 6)) < share
    missing[2, 3] = False
    found = impute(image, missing, noise=0)
    np.testing.assert_allclose(found, slow_imputed(image, missing), atol=1e-5)
    for before, after in zip(image, found, strict=True):
        assert before[~missing].min() - 1e-6 <= after.min()
        assert after.max() <= before[~missing].max() + 1e-6


def test_noise_has_its_size_and_touches_imputed_pixels_only():
    image = np.full((3, 60, 60), 0.5, np.float32)
    hole = np.zeros((60, 60), bool)
    hole[5:55, 5:55] = True
    found = impute(image, hole, noise=0.02, generator=np.random.default_rng(0))
    assert (found[:, ~hole] == 0.5).all()
    assert found[:, hole].std() == pytest.approx(0.02, rel=0.03)
    again = impute(image, hole, noise=0.02, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(found, again)


def test_a_bright_spot_is_gone_at_once_or_last():
    image = np.zeros((3, 10, 10), np.float32)
    image[:, 3:6, 3:6] = 1
    found = road(mean_red, image, image[0], 1, fractions=(0, 0.09, 0.5), noise=0, generator=np.random.default_rng(0))
    np.testing.assert_allclose(found.morf, [0.09, 0, 0], atol=1e-7)
    assert found.lerf[0] == pytest.approx(0.09)
    assert (found.lerf >= 0.09 - 1e-6).all()  # what is imputed lies between 0 and 1, the spot itself stays
    assert found.value == pytest.approx((found.lerf - found.morf).mean() / 2)


def test_an_opposite_map_has_the_opposite_value():
    image = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    score = np.random.default_rng(1).permutation(64).reshape(8, 8)
    a, b = (road(mean_red, image, s, 1, noise=0, generator=np.random.default_rng(0)) for s in (score, -score))
    np.testing.assert_array_equal(a.morf, b.lerf)
    assert a.value == pytest.approx(-b.value)


def test_wrong_inputs_say_what_is_wrong():
    image, hole = ramp(), np.zeros(SHAPE, bool)
    with pytest.raises(ValueError, match="every pixel is missing"):
        impute(image, ~hole, noise=0)
    with pytest.raises(ValueError, match=r"bool \(12, 15\), got float64"):
        impute(image, hole.astype(float), noise=0)
    with pytest.raises(ValueError, match=r"needs a generator above 0; got noise=0\.1"):
        impute(image, hole, noise=0.1)
    with pytest.raises(ValueError, match=r"fractions must lie in \[0, 1\)"):
        road(mean_red, image, image[0], 1, fractions=(0.5, 1.0), generator=np.random.default_rng(0))
