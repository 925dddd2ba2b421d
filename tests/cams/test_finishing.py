"""ReLU, then resize, then scale; never a NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from wsol.cams import finish


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


def resized(m: np.ndarray, size) -> np.ndarray:
    return functional.interpolate(torch.from_numpy(m)[:, None], size, mode="bilinear", align_corners=False)[:, 0].numpy()


@pytest.mark.parametrize("size", [(4, 5), (37, 52), (9, 100), (522, 775)])
def test_resizing_is_bilinear_without_aligned_corners(maps, size):
    np.testing.assert_allclose(finish(maps, size, normalize=None), resized(maps, size), atol=2e-6)


def test_the_order_is_relu_resize_normalize(maps):
    full = resized(np.maximum(maps, 0), (16, 20))
    low, high = full.min((1, 2), keepdims=True), full.max((1, 2), keepdims=True)
    np.testing.assert_allclose(finish(maps, (16, 20), relu=True), (full - low) / (high - low), atol=1e-5)
    other = np.maximum(resized(maps, (16, 20)), 0)
    assert np.abs(other / other.max((1, 2), keepdims=True) - finish(maps, (16, 20), relu=True)).max() > 0.01


def test_minmax_is_per_image_and_spans_exactly_the_unit_interval(maps):
    maps[1] = maps[1] * 1e6 + 1e5
    done = finish(maps, (20, 30))
    assert (done.min((1, 2)) == 0).all()
    assert (done.max((1, 2)) == 1).all()
    np.testing.assert_allclose(done[1], finish(maps[1], (20, 30)), atol=1e-6)
    huge = np.array([[-3e38, 3e38]], np.float32)
    assert finish(huge, None).tolist() == [[0.0, 1.0]]


def test_range_scales_all_images_alike_and_clips():
    m = np.array([[-1.0, 0.0, 1.0, 2.0, 5.0]], np.float32)
    np.testing.assert_allclose(finish(m, None, normalize="range", scope=(0.0, 4.0)), [[0, 0, 0.25, 0.5, 1]])


def test_sigmoid_by_hand():
    m = np.array([[-1e4, -2.0, 0.0, 2.0, 1e4]], np.float32)
    expected = [[0, 1 / (1 + np.exp(2.0)), 0.5, 1 / (1 + np.exp(-2.0)), 1]]
    np.testing.assert_allclose(finish(m, None, normalize="sigmoid"), expected, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6])
def test_a_constant_map_becomes_zeros(value):
    for m in (np.full((7, 9), value, np.float32), np.full((7, 9), value, np.float32) * (1 + 1e-7)):
        assert (finish(m, (100, 131)) == 0).all()
    rounded = np.full((7, 9), 0.1, np.float32)
    rounded[3, 4] = np.nextafter(
        np.float32(0.1), np.float32(1)
    )  # constant but for its last bit, as a sum over channels may come out
    assert (finish(rounded, (100, 131)) == 0).all()
    assert (finish(np.full((7, 9), -1, np.float32) - np.eye(7, 9, dtype=np.float32), (20, 20), relu=True) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalize", ["minmax", "range", "sigmoid", None])
def test_a_broken_map_never_passes(maps, bad, normalize):
    maps[2, 1, 1] = bad
    scope = (0.0, 1.0) if normalize == "range" else "image"
    for relu in (True, False):  # ReLU alone would turn -inf into a clean 0
        with pytest.raises(ValueError, match="broken map"):
            finish(maps, (8, 8), relu, normalize, scope)


def test_torch_and_numpy_in_one_or_many(maps):
    tensor = torch.from_numpy(maps).requires_grad_(True)
    done = finish(tensor, (8, 9), True)
    assert isinstance(done, torch.Tensor)
    assert done.dtype == torch.float32
    np.testing.assert_array_equal(done.numpy(), finish(maps, (8, 9), True))
    np.testing.assert_array_equal(finish(maps[1], (8, 9), True), finish(maps, (8, 9), True)[1])
    assert finish(maps.astype(np.float64), None).dtype == np.float32
    assert finish(tensor.detach().bfloat16(), None).dtype == torch.float32


def test_the_input_is_left_alone(maps):
    before = maps.copy()
    for normalize in ("minmax", "sigmoid", None):
        done = finish(maps, None, True, normalize)
        done += 1
    done = finish(maps, None, False, None)
    done += 1
    np.testing.assert_array_equal(maps, before)


def test_a_method_knows_whether_it_is_rectified(maps):
    for name, rectified in {"cam": False, "grad-cam": True, "hirescam": False, "layer-cam": True}.items():
        np.testing.assert_array_equal(finish(maps, None, name, None), np.maximum(maps, 0) if rectified else maps)
    with pytest.raises(ValueError, match="unknown CAM method 'gradcam'"):
        finish(maps, None, "gradcam")


def test_wrong_calls_say_what_to_do(maps):
    with pytest.raises(ValueError, match=r"unknown normalize 'min-max'; did you mean 'minmax'\?"):
        finish(maps, None, normalize="min-max")
    with pytest.raises(ValueError, match=r"needs scope=\(low, high\)"):
        finish(maps, None, normalize="range")
    with pytest.raises(ValueError, match="needs normalize='range'"):
        finish(maps, None, scope=(0.0, 1.0))
    with pytest.raises(ValueError, match="low < high"):
        finish(maps, None, normalize="range", scope=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"\(h, w\) or \(b, h, w\)"):
        finish(maps[None], None)
    with pytest.raises(ValueError, match=r"size must be \(H, W\)"):
        finish(maps, (0, 4))


def test_numpy_maps_need_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from wsol.cams import finish; finish(np.eye(3, dtype='float32'), (8, 8));"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize("wrapper", ["smooth", "tta", "fused", "sess"])
def test_a_wrapper_is_rectified_as_its_base_which_is_asked_for(wrapper):
    with pytest.raises(ValueError, match=rf"'{wrapper}' draws another method.*pass the base's name"):
        finish(np.eye(3, dtype=np.float32), None, relu=wrapper)
