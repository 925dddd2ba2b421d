from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from wsol.slides import FLOORS, PixelRegression, floor_map
from wsol.slides.floors import STAIN_SIGMA_UM, _blur, _features


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    mask = np.zeros((120, 150), bool)
    mask[30:90, 40:110] = True
    rgb = np.where(mask[..., None], [120, 80, 160], [220, 160, 200]) + rng.normal(0, 40, (120, 150, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("name", FLOORS)
def test_floor_is_a_finite_map_of_the_same_size(name, pair):
    model = PixelRegression.fit([pair], 1.0)
    one, same = (floor_map(name, pair[0], 1.0, generator=np.random.default_rng(5), model=model) for _ in range(2))
    assert one.shape == pair[1].shape
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("name", ["hematoxylin", "blue-minus-red", "pixel-regression"])
def test_higher_is_foreground(name, pair):
    m = floor_map(name, pair[0], 1.0, model=PixelRegression.fit([pair], 1.0))
    assert m[40:80, 50:100].min() > m[:15].max()


def test_sigma_is_in_um():
    rgb = np.full((201, 201, 3), 255, np.uint8)
    rgb[100, 100] = (0, 0, 255)
    for mpp in (0.5, 1.0):
        m = floor_map("blue-minus-red", rgb, mpp)
        spread = np.sqrt((m * (np.arange(201) - 100) ** 2).sum() / m.sum())
        assert spread * mpp == pytest.approx(STAIN_SIGMA_UM, rel=0.02)


def test_wide_blur_on_a_coarser_grid_is_nearly_the_blur():
    a = cv2.GaussianBlur(np.random.default_rng(0).random((300, 400), dtype=np.float32), (0, 0), 4)
    direct = cv2.GaussianBlur(a, (0, 0), 20, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(_blur(a, 20) - direct).max() < 0.05 * direct.std() + 2e-3


def test_regression_agrees_with_scikit_learn(pair):
    rgb, mask = pair
    ours = PixelRegression.fit([pair], 1.0, pixels=mask.size, penalty=1.0)
    x = np.stack([f.ravel() for f in _features(rgb, 1.0)], axis=1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = LogisticRegression(C=1.0, max_iter=2000, tol=1e-8).fit(x, mask.ravel())
    expected = theirs.predict_proba(x)[:, 1].reshape(mask.shape)
    assert len(ours.weight) == 18
    assert np.abs(ours.predict(rgb, 1.0) - expected).max() < 0.02


def test_regression_goes_through_json(pair):
    ours = PixelRegression.fit([pair], 1.0)
    again = PixelRegression.from_dict(json.loads(json.dumps(ours.to_dict())))
    np.testing.assert_array_equal(again.predict(pair[0], 1.0), ours.predict(pair[0], 1.0))


def test_wrong_use_says_what_to_do(pair):
    rgb, mask = pair
    with pytest.raises(ValueError, match="did you mean 'hematoxylin'"):
        floor_map("hematoxilin", rgb, 1.0)
    with pytest.raises(ValueError, match="`mpp` column"):
        floor_map("hematoxylin", rgb, float("nan"))
    with pytest.raises(ValueError, match="generator"):
        floor_map("random", rgb, 1.0)
    with pytest.raises(ValueError, match=r"PixelRegression\.fit"):
        floor_map("pixel-regression", rgb, 1.0)
    with pytest.raises(ValueError, match="no foreground"):
        PixelRegression.fit([(rgb, np.zeros_like(mask))], 1.0)
    with pytest.raises(ValueError, match="must be equal"):
        PixelRegression.fit([(rgb, mask[:-1])], 1.0)
    with pytest.raises(ValueError, match="at least one"):
        PixelRegression.fit([], 1.0)
