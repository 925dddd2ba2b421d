"""FD-CAM: the authors' formula channel by channel, groups by scikit-learn and numpy, the closed form at a GAP head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.cams import Evidence, cam, cams
from wsol.cams.groups import FdCam, similar, unit
from wsol.cams.sight import look
from wsol.models import Features

pairwise = pytest.importorskip("sklearn.metrics.pairwise")


def minmax(x):
    return (x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else np.zeros_like(x)


def slow(net, x, slope, layer, target, quantile):
    """The released code for one image, channel by channel (the group always with k itself)."""

    def logit(features):
        f = Features((features[None],)) if layer == 2 else net.encode(features[None], start=layer + 1)
        return float(net.head(f).logits.detach()[0, target])

    cosines = pairwise.cosine_similarity(x.flatten(1).double().numpy())
    scores = np.zeros(len(x))
    for k in range(len(x)):
        group = cosines[k] > np.quantile(cosines[k], quantile)
        group[k] = True
        mask = torch.from_numpy(group)[:, None, None]
        scores[k] = logit(x * mask) + (logit(x) - logit(x * ~mask))
    weights = np.exp(minmax(scores)) * minmax(slope.mean((1, 2)).double().numpy()) - 0.5
    return np.einsum("c,chw->hw", weights, x.numpy())


@pytest.mark.parametrize("layer", [1, 2])
def test_the_authors_formula(net, images, targets, layer):
    m = cam("fd-cam", net, images, targets, layers=[layer], quantile=0.7, closed_form=False)
    f = net.encode(images, leaf=layer)
    (slopes,) = torch.autograd.grad(net.head(f).logits.gather(1, targets[:, None]).sum(), f.stages[layer])
    for i, x in enumerate(f.stages[layer].detach()):
        expected = slow(net, x, slopes[i], layer, int(targets[i]), 0.7)
        np.testing.assert_allclose(m[i].numpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.95, 1.0])
def test_the_closed_form_is_the_tail(gap_net, images, targets, quantile):
    kinds = {"fast": {"quantile": quantile}, "slow": {"quantile": quantile, "closed_form": False}}
    d = cams(dict.fromkeys(kinds, "fd-cam"), gap_net, images, targets, options=kinds)
    torch.testing.assert_close(d["fast"], d["slow"], rtol=1e-3, atol=1e-4)


def test_group_scores_of_an_affine_tail(gap_net, images, targets):
    """s_k = 2 sum_{j in group} W_j mean A_j + bias, by formula and by running the tail (N would hide the bias)."""
    e = Evidence(gap_net, *look(gap_net, images, None, targets, ()), images)
    x = e.stage(-1)
    groups = torch.stack([similar(one, 0.6) for one in x])
    fast, slow = (FdCam(closed_form=closed)._group_scores(e, x, groups) for closed in (True, False))
    shares = gap_net.head.weight.detach()[targets] * x.mean((2, 3))
    expected = torch.stack([2 * g.float() @ c for g, c in zip(groups, shares, strict=True)])
    expected = expected + gap_net.head.bias.detach()[targets][:, None]
    torch.testing.assert_close(fast, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slow, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    c=st.integers(1, 30),
    cells=st.integers(1, 12),
    quantile=st.sampled_from([0.0, 0.33, 0.61, 0.95, 1.0]),
    seed=st.integers(0, 999),
)
def test_groups_are_the_most_similar_channels_and_oneself(c, cells, quantile, seed):
    x = torch.rand(c, 1, cells, generator=torch.Generator().manual_seed(seed)) - 0.2
    x[::7] = 0  # dead ones, similar to none
    group = similar(x, quantile).numpy()
    assert group.diagonal().all()
    cosines = pairwise.cosine_similarity(x.flatten(1).double().numpy())
    limits = np.quantile(cosines, quantile, axis=1)[:, None]
    sure = (np.abs(cosines - limits) > 1e-6) & ~np.eye(c, dtype=bool)
    np.testing.assert_array_equal(group[sure], (cosines > limits)[sure])


def test_at_quantile_1_each_channel_stands_alone():
    x = torch.rand(9, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(similar(x, 1.0), torch.eye(9, dtype=torch.bool))


def test_twins_weigh_the_same(lse_net, images, targets):
    """Two equal channels in features and head: exchanging their features changes nothing, whatever the third is."""
    x = lse_net.encode(images).last.detach().clone()
    x[:, 5] = x[:, 3]
    with torch.no_grad():
        lse_net.head.weight[:, 5] = lse_net.head.weight[:, 3]
    one, other = x.clone(), x.clone()
    one[:, 3] *= 2
    other[:, 5] *= 2
    a, b = (cam("fd-cam", lse_net, None, targets, features=Features((f,)), quantile=0.7) for f in (one, other))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_weights_stay_in_their_range(net, images, targets):
    """exp(N) N - 0.5 lies in [-0.5, e - 0.5], so for features >= 0 the map does between the sums of A so weighted."""
    total = net.encode(images).last.detach().sum(1)
    m = cam("fd-cam", net, images, targets)
    assert (m >= -0.5 * total - 1e-5).all()
    assert (m <= (np.e - 0.5) * total + 1e-5).all()


def test_equal_values_scale_to_0():
    assert unit(torch.tensor([[2.0, 2.0, 2.0], [1.0, 3.0, 2.0]])).tolist() == [[0, 0, 0], [0, 1, 0.5]]


def test_the_quantile_is_a_fraction(net, images):
    with pytest.raises(ValueError, match=r"quantile must be in \[0, 1\]; got 95"):
        cam("fd-cam", net, images, quantile=95)
