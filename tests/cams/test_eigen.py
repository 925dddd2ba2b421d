"""Eigen-CAM and Eigen-Grad-CAM against numpy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.cams import cam, cams
from wsol.cams.eigen import projection
from wsol.models import Features


def slow(x):
    """X v of one (c, h, w), by SVD; the sign left open."""
    rows = x.reshape(len(x), -1).T.astype(np.float64)
    u, s, _ = np.linalg.svd(rows, full_matrices=False)
    return (u[:, 0] * s[0]).reshape(x.shape[1:]), s


def matches(found, expected, tolerance=1e-4):
    scale = np.abs(expected).max()
    return min(np.abs(found - expected).max(), np.abs(found + expected).max()) <= tolerance * scale


@settings(max_examples=25, deadline=None)
@given(
    c=st.integers(1, 12),
    h=st.integers(1, 5),
    w=st.integers(1, 5),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-12, 1, 1e12]),
)
def test_the_projection_is_the_first_component_whichever_side_is_smaller(c, h, w, seed, scale):
    x = torch.rand(2, c, h, w, generator=torch.Generator().manual_seed(seed)) * scale
    for found, one in zip(projection(x).numpy(), x.numpy(), strict=True):
        expected, s = slow(one)
        assert matches(found, expected)
        np.testing.assert_allclose(np.linalg.norm(found), s[0], rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_eigencam_of_features_above_zero_is_above_zero(net, images, targets, layer):
    m = cam("eigen-cam", net, images, targets, layers=[layer]).numpy()
    assert (m >= -1e-6 * np.abs(m).max()).all()
    for found, one in zip(m, net.encode(images).stages[layer].detach().numpy(), strict=True):
        np.testing.assert_allclose(found, np.abs(slow(one)[0]), rtol=1e-3, atol=1e-4 * np.abs(found).max())


def test_rank_one_features_give_their_pattern(net):
    pattern, mix = torch.rand(5, 7) - 0.3, torch.randn(16)
    f = Features((torch.einsum("hw,c->chw", pattern, mix)[None],))
    m = cam("eigen-cam", net, None, torch.tensor([0]), features=f)[0]
    torch.testing.assert_close(m, pattern * mix.norm(), rtol=1e-4, atol=1e-5)  # 0.7 up and 0.3 down: up is positive
    flipped = cam("eigen-cam", net, None, torch.tensor([0]), features=Features((-f.last,)))[0]
    torch.testing.assert_close(flipped, m)


def test_eigencam_does_not_see_how_channels_are_mixed(net, images):
    x = net.encode(images).last.detach()
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q
    turned = torch.einsum("dc,bchw->bdhw", rotation, x)
    before, after = (cam("eigen-cam", net, None, torch.zeros(4, dtype=torch.int64), features=Features((f,))) for f in (x, turned))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


def test_eigengradcam_is_the_component_of_the_products_and_agrees_with_hirescam(net, images, targets):
    for layer in (0, 2):
        options = {m: {"layers": [layer]} for m in ("eigen-grad-cam", "hirescam")}
        d = cams(["eigen-grad-cam", "hirescam"], net, images, targets, options=options)
        assert ((d["eigen-grad-cam"] * d["hirescam"]).sum((1, 2)) > 0).all()
    f = net.encode(images, leaf=2)
    (slope,) = torch.autograd.grad(net.head(f).logits.gather(1, targets[:, None]).sum(), f.last)
    for found, one in zip(d["eigen-grad-cam"], (slope * f.last).detach().numpy(), strict=True):
        assert matches(found.numpy(), slow(one)[0], 1e-3)


def test_against_the_class_eigengradcam_turns_around(gap_net, images, targets):
    before = cam("eigen-grad-cam", gap_net, images, targets)
    with torch.no_grad():
        gap_net.head.weight.neg_()
    torch.testing.assert_close(cam("eigen-grad-cam", gap_net, images, targets), -before)


def test_no_features_no_component(net):
    f = Features((torch.zeros(2, 16, 3, 3),))
    for m in cams(["eigen-cam", "eigen-grad-cam"], net, None, torch.tensor([0, 1]), features=f).values():
        assert (m == 0).all()
