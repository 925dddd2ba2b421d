from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2hed

from wsol.slides import StainJitter, apply_od_matrix, blue_minus_red, hematoxylin, rgb_to_od, stain_matrix
from wsol.slides.stain import HED


@pytest.fixture
def every_value():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (128, 256, 3)).astype(np.uint8)
    rgb[0] = np.arange(256)[:, None]
    return rgb


def test_identity_is_exact(every_value):
    np.testing.assert_array_equal(apply_od_matrix(every_value, np.eye(3)), every_value)
    np.testing.assert_array_equal(apply_od_matrix(every_value, stain_matrix([1, 1, 1])), every_value)
    np.testing.assert_array_equal(StainJitter(0.0, 0.0)(every_value, np.random.default_rng(1)), every_value)


def test_matrix_against_plain_arithmetic(every_value):
    matrix = StainJitter(0.3, 0.05).matrix(np.random.default_rng(3))
    od = -np.log((every_value.astype(float) + 1) / 256)
    expected = np.clip(256 * np.exp(-(od @ matrix.T)) - 1, 0, 255)
    assert np.abs(apply_od_matrix(every_value, matrix) - expected).max() < 0.51


def test_gains_scale_the_stains():
    stains = HED / np.linalg.norm(HED, axis=1, keepdims=True)
    matrix = stain_matrix([1.3, 0.8, 1.0])
    np.testing.assert_allclose(matrix @ stains[0], 1.3 * stains[0])
    np.testing.assert_allclose(matrix @ stains[1], 0.8 * stains[1])


def test_hematoxylin_agrees_with_skimage():
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 1, (50, 50, 2)) @ (HED[:2] / np.linalg.norm(HED[:2], axis=1, keepdims=True))
    rgb = np.round(256 * np.exp(-amounts) - 1).astype(np.uint8)
    assert np.corrcoef(hematoxylin(rgb).ravel(), rgb2hed(rgb)[..., 0].ravel())[0, 1] > 0.99


def test_floors_of_color_point_the_right_way():
    nucleus, stroma = np.array([[[90, 60, 140]]], np.uint8), np.array([[[225, 165, 205]]], np.uint8)
    for stain in hematoxylin, blue_minus_red:
        assert stain(nucleus).dtype == np.float32
        assert stain(nucleus)[0, 0] > stain(stroma)[0, 0]


def test_jitter_is_seeded_and_moves(every_value):
    one, same, other = (StainJitter()(every_value, np.random.default_rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one.astype(int) - other).mean() > 1
    assert one.dtype == np.uint8


def test_wrong_input_says_so():
    with pytest.raises(TypeError, match="uint8"):
        rgb_to_od(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        apply_od_matrix(np.zeros((4, 4, 3), np.uint8), np.eye(4))
    with pytest.raises(ValueError, match="three gains"):
        stain_matrix([1, 2])
    with pytest.raises(ValueError, match="strength"):
        StainJitter(strength=1.5)
