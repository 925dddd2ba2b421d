"""SESS against the authors' pipeline written out patch by patch with OpenCV, and its identities."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from wsol.cams import cam, finish
from wsol.cams.sess import SCALES, Sess


@pytest.fixture
def square():
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(6))


@pytest.fixture
def two():
    return torch.tensor([0, 2])


def close(found, expected, tolerance=1e-4):
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def authors(net, image, target, scales, window, step, *, prefilter=0.0, theta=0.0, pool="mean", smooth=True):
    """The released pipeline with Grad-CAM: scales are shorter sides in px; one image (3, H, W), one patch at a time."""
    height, width = image.shape[1:]
    patches = []
    for side in scales:
        h, w = int(side * height / min(height, width)), int(side * width / min(height, width))
        large = functional.interpolate(image[None], (h, w), mode="bilinear", align_corners=False)
        rows = [min(i * step, h - window) for i in range(math.ceil((h - window) / step) + 1)]
        columns = [min(i * step, w - window) for i in range(math.ceil((w - window) / step) + 1)]
        patches += [(h, w, y, x, large[:, :, y : y + window, x : x + window]) for y in rows for x in columns]
    probs = np.array([float(net(p[-1]).logits.detach().softmax(1)[0, target]) for p in patches])
    heatmaps = []
    for i in np.argsort(probs, kind="stable")[int(len(probs) * prefilter) :]:
        h, w, y, x, patch = patches[i]
        m = cam("grad-cam", net, patch, torch.tensor([target])).relu()
        m = functional.interpolate(m[None], (window, window), mode="bilinear", align_corners=False)[0, 0].double().numpy()
        with np.errstate(invalid="ignore"):
            m = (m - m.min()) / (m.max() - m.min())
        canvas = np.zeros((h, w))
        canvas[y : y + window, x : x + window] = np.nan_to_num(m) * probs[i] / probs.max()
        heatmaps.append(cv2.resize(canvas, (width, height)))
    heatmaps = np.array(heatmaps)
    if pool == "max":
        merged = heatmaps.max(0)
    else:
        total = (heatmaps > theta).sum(0)
        heatmaps[heatmaps <= theta] = 0
        with np.errstate(invalid="ignore"):
            merged = np.nan_to_num(heatmaps.sum(0) / total)
    return cv2.GaussianBlur(merged, (11, 11), 5.0) if smooth else merged


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"blur": False, "threshold": 0.3}, {"smooth": False, "theta": 0.3}),
        ({"blur": False, "pool": "max"}, {"smooth": False, "pool": "max"}),
        ({"prefilter": 0.5}, {"prefilter": 0.5}),
        ({"prefilter": 0.37, "blur": False, "step": 0.5}, {"prefilter": 0.37, "smooth": False, "step": 24}),
    ],
)
def test_exact_is_the_authors_pipeline(net, square, two, ours, theirs):
    found = cam("sess", net, square, two, scales=[1.0, 1.5, 2.25], window=48, exact=True, **ours)
    for i in range(2):
        expected = authors(net, square[i], int(two[i]), [48, 72, 108], 48, **{"step": 48, **theirs})
        close(found[i], expected.astype(np.float32))


def test_exact_on_an_oblong_image_with_square_windows(net, images, targets):
    found = cam("sess", net, images[:1], targets[:1], scales=[1.0, 1.6], window=40, exact=True)
    close(found[0], authors(net, images[0], int(targets[0]), [40, 64], 40, 40).astype(np.float32))


def test_the_authors_scales_are_122_windows():
    layout = Sess().layout((224, 224))
    assert [size[0] for size in layout.sizes] == [224 + 64 * i for i in range(12)]
    assert len(layout.windows) == 122
    assert Sess(window=224).layout((224, 224)) == layout
    assert len(SCALES) == 12


@given(
    st.tuples(st.integers(5, 60), st.integers(5, 60)),
    st.lists(st.floats(1, 4), min_size=1, max_size=3),
    st.floats(0.2, 1),
    st.floats(0.2, 1),
)
def test_every_pixel_is_covered_at_every_scale(size, scales, window, step):
    layout = Sess(scales=scales, window=window, step=step).layout(size)
    for i, (height, width) in enumerate(layout.sizes):
        seen = np.zeros((height, width), bool)
        for scale, top, left in layout.windows:
            if scale == i:
                assert top + layout.side[0] <= height
                assert left + layout.side[1] <= width
                seen[top : top + layout.side[0], left : left + layout.side[1]] = True
        assert seen.all()


@pytest.mark.parametrize("base", ["grad-cam", "hirescam", "gradient", "eigen-cam"])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_one_window_is_the_scaled_base(net, images, targets, base, pool):
    found = cam("sess", net, images, targets, base=base, scales=[1.0], blur=False, pool=pool)
    close(found, finish(cam(base, net, images, targets), (40, 56), relu=base))


def test_scores_are_in_the_unit_interval_and_max_is_at_least_mean(net, square, two):
    for exact in (False, True):
        mean, largest = (
            cam("sess", net, square, two, scales=[1.0, 1.8], exact=exact, blur=False, pool=p) for p in ("mean", "max")
        )
        assert 0 <= mean.min() <= mean.max() <= 1 + 1e-6
        assert 0 <= largest.min() <= largest.max() <= 1 + 1e-6
        assert (largest >= mean - 1e-6).all()
    assert not torch.allclose(
        cam("sess", net, square, two, scales=[2.5], exact=True), cam("sess", net, square, two, scales=[2.5]), rtol=1e-3
    )  # antialiasing is the difference


def test_fewer_windows_never_raise_the_maximum(net, square, two):
    whole = cam("sess", net, square, two, scales=[1.0, 1.5], pool="max", blur=False)
    one = cam("sess", net, square, two, scales=[1.0, 1.5], pool="max", blur=False, prefilter=0.8)  # 1 of 5 windows
    assert (one <= whole + 1e-6).all()
    assert (one < whole - 0.1).any()


def test_prefiltered_windows_are_not_drawn(net, square, two, monkeypatch):
    drawn = []
    redraw = Sess.redraw
    monkeypatch.setattr(Sess, "redraw", lambda self, e, x, t: drawn.append(len(x)) or redraw(self, e, x, t))
    cam("sess", net, square, two, scales=[1.0, 1.5, 1.7], prefilter=0.0)
    assert sum(drawn) == 2 * 9
    drawn.clear()
    cam("sess", net, square, two, scales=[1.0, 1.5, 1.7], prefilter=0.5)
    assert sum(drawn) == 2 * 5  # 9 - int(4.5)


def test_one_target_for_all_windows(net, square):
    predicted = net(square).logits.argmax(1)
    assert torch.equal(cam("sess", net, square, scales=[1.0, 2.0]), cam("sess", net, square, predicted, scales=[1.0, 2.0]))


def test_a_random_base_draws_the_same_in_every_window(net, square, two):
    options = {"base": "smooth", "base_options": {"n": 2}, "scales": [1.0, 1.5], "exact": True}
    found = cam("sess", net, square, two, budget=1, **options)
    close(found, cam("sess", net, square, two, **options))
    close(found[1:], cam("sess", net, square[1:], two[1:], **options))


def test_constant_maps_leave_zeros(net, square, two):
    with torch.no_grad():
        net.head.weight.zero_()
    for pool in ("mean", "max"):
        assert (cam("sess", net, square, two, scales=[1.0, 1.5], pool=pool) == 0).all()


def test_options_out_of_range_are_refused(net, square):
    for options, message in (
        ({"scales": []}, r"at least one; got \[\]"),
        ({"scales": [0.5]}, r"windows of 48 x 48 px do not fit the image at scale 0\.5, 24 x 24 px"),
        ({"window": 0.0}, r"share in \(0, 1\], or an integer of px"),
        ({"window": 1.5}, "an integer of px above 1; got 1.5"),
        ({"step": 0.0}, r"step must be a share of the window in \(0, 1\]"),
        ({"prefilter": 1.0}, r"in \[0, 1\); got 1\.0 and 0\.0"),
        ({"threshold": -0.1}, r"in \[0, 1\)"),
        ({"pool": "men"}, "did you mean 'mean'"),
    ):
        with pytest.raises(ValueError, match=message):
            cam("sess", net, square, **options)
    assert cam("sess", net, square, scales=[0.5], window=0.5, blur=False).shape == (2, 48, 48)
