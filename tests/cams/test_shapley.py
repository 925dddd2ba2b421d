"""Shap-CAM: exact values by enumeration and captum, single orders written slowly, efficiency, the closed form at a GAP head."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from tests.cams.conftest import tiny
from wsol.cams import cam, cams
from wsol.cams.shapley import blocks
from wsol.models import Features


@pytest.fixture(params=["gap", "lse"])
def bent(request):
    """A net whose confidences move: far from saturation, not linear."""
    return tiny(request.param, **({"r": 4.0} if request.param == "lse" else {}))


@pytest.fixture
def features():
    return Features((2 * torch.rand(3, 16, 3, 3, generator=torch.Generator().manual_seed(4)),))


TARGETS = torch.tensor([0, 2, 1])


def prize(net, x, inside, target, kind):
    """v of coalitions: `inside` (n, h, w) bool, x (c, h, w) -> (n,)."""
    rows = torch.where(inside[:, None], x, x.mean((1, 2))[:, None, None])
    logits = net.head(Features((rows,))).logits.detach()
    return (logits.softmax(1) if kind == "prob" else logits)[:, target].double().numpy()


def exact(net, x, target, kind):
    """Shapley values by all 2^n coalitions."""
    n = x.shape[1] * x.shape[2]
    masks = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1
    v = prize(net, x, masks.bool().reshape(-1, *x.shape[1:]), target, kind)
    phi = np.zeros(n)
    for p in range(n):
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            others = [q for q in range(n) if q != p]
            for coalition in combinations(others, size):
                number = sum(1 << q for q in coalition)
                phi[p] += weight * (v[number | 1 << p] - v[number])
    return phi.reshape(x.shape[1:]), v[-1] - v[0]


@pytest.mark.parametrize("kind", ["prob", "logit"])
def test_many_orders_come_to_the_exact_values(bent, features, kind):
    m = cam("shap-cam", bent, None, TARGETS, features=features, score=kind, orders=2000, tolerance=0)
    for i, x in enumerate(features.last):
        expected, _ = exact(bent, x, int(TARGETS[i]), kind)
        error = np.sqrt(np.mean((m[i].numpy() - expected) ** 2)) / np.sqrt(np.mean(expected**2))
        assert error < 0.05


@pytest.mark.parametrize("tolerance", [0.3, 0.1])
def test_the_error_is_about_the_tolerance(bent, features, tolerance):
    """Root mean square of the errors over the places of all images, for several seeds."""
    errors, sizes = [], []
    truth = [exact(bent, x, int(t), "prob")[0] for x, t in zip(features.last, TARGETS, strict=True)]
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        m = cam("shap-cam", bent, None, TARGETS, features=features, orders=4000, tolerance=tolerance, generator=draw)
        errors += [((found.numpy() - expected) ** 2).mean() for found, expected in zip(m, truth, strict=True)]
        sizes += [(expected**2).mean() for expected in truth]
    assert np.sqrt(np.mean(np.divide(errors, sizes))) < 1.5 * tolerance


def test_captum_agrees_on_exact_values(bent, features):
    attr = pytest.importorskip("captum.attr")

    class Tail(nn.Module):
        def forward(self, x):
            return bent.head(Features((x,))).logits.softmax(1)

    x = features.last[:1, :, :2, :2]
    groups = torch.arange(4).reshape(1, 1, 2, 2)
    theirs = attr.ShapleyValues(Tail()).attribute(x, x.mean((2, 3), keepdim=True).expand_as(x), 2, feature_mask=groups)
    expected, _ = exact(bent, x[0], 2, "prob")
    np.testing.assert_allclose(theirs[0, 0].detach().numpy(), expected, atol=1e-6)  # captum repeats a value over its group
    ours = cam("shap-cam", bent, None, torch.tensor([2]), features=Features((x,)), orders=2000, tolerance=0)
    np.testing.assert_allclose(ours[0].numpy(), expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["prob", "logit"])
def test_single_orders_written_slowly(bent, features, kind):
    """Two orders and their reverses: each place gains what it adds to those before it."""
    m = cam("shap-cam", bent, None, TARGETS, features=features, score=kind, orders=4, closed_form=False)
    drawn = torch.rand(2, 9, generator=torch.Generator().manual_seed(0)).argsort(1)
    for i, x in enumerate(features.last):
        gains = np.zeros(9)
        for order in [*drawn, *drawn.flip(1)]:
            inside = torch.zeros(10, 9, dtype=torch.bool)
            for step, place in enumerate(order.tolist(), start=1):
                inside[step:, place] = True
            gains[order.numpy()] += np.diff(prize(bent, x, inside.reshape(10, 3, 3), int(TARGETS[i]), kind)) / 4
        np.testing.assert_allclose(m[i].numpy(), gains.reshape(3, 3), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("orders", [2, 6, 64])
@pytest.mark.parametrize("layer", [1, 2])
def test_values_add_up_to_what_all_places_gain_together(net, images, targets, orders, layer):
    options = {"layers": [layer], "orders": orders, "players": 40}
    m = cam("shap-cam", net, images, targets, **options)
    x = net.encode(images).stages[layer].detach()
    flat = x.mean((2, 3), keepdim=True).expand_as(x)
    full, none = (net.head(Features((f,)) if layer == 2 else net.encode(f, start=2)).logits.softmax(1) for f in (x, flat))
    gain = (full - none).detach().gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(m.sum((1, 2)), gain, rtol=1e-3, atol=1e-5)


def test_at_a_gap_head_logits_give_cam_centered_whatever_the_orders(gap_net, images, targets):
    kinds = {"fast": {"orders": 2}, "slow": {"orders": 2, "closed_form": False}}
    kinds = {k: {"score": "logit", **v} for k, v in kinds.items()}
    d = cams({"cam": "cam", **dict.fromkeys(kinds, "shap-cam")}, gap_net, images, targets, options=kinds)
    centered = (d["cam"] - d["cam"].mean((1, 2), keepdim=True)) / 35
    torch.testing.assert_close(d["fast"], centered, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(d["slow"], centered, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(d["fast"].sum((1, 2)), torch.zeros(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("players", [256, 12])
def test_the_closed_form_of_probabilities_is_the_tail(gap_net, images, targets, players):
    kinds = {"fast": {}, "slow": {"closed_form": False}}
    kinds = {k: {"players": players, "orders": 8, **v} for k, v in kinds.items()}
    d = cams(dict.fromkeys(kinds, "shap-cam"), gap_net, images, targets, options=kinds)
    torch.testing.assert_close(d["fast"], d["slow"], rtol=1e-3, atol=1e-5)


def test_blocks_are_squares_and_no_more_than_allowed():
    assert blocks(2, 3, 6).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert blocks(3, 5, 6).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert blocks(3, 5, 1).unique().tolist() == [0]
    assert int(blocks(28, 28, 256).max()) + 1 == 196


def test_places_of_a_block_share_its_value(bent, features):
    """Played by blocks, the game is that of the blocks; the exact values of the four players of a 3 x 3 map."""
    m = cam("shap-cam", bent, None, TARGETS, features=features, players=4, orders=2000, tolerance=0)
    assert torch.equal(m[:, 0, 0], m[:, 1, 1])
    x = features.last[0]
    block = blocks(3, 3, 4)
    masks = ((torch.arange(16)[:, None] >> torch.arange(4)) & 1).bool()
    v = prize(bent, x, masks[:, block], 0, "prob")
    first = sum(
        math.factorial(len(s)) * math.factorial(3 - len(s)) / 24 * (v[1 + sum(1 << q for q in s)] - v[sum(1 << q for q in s)])
        for size in range(4)
        for s in combinations([1, 2, 3], size)
    )
    assert float(m[0, 0, 0]) * 4 == pytest.approx(first, abs=0.02 * abs(first) + 1e-4)


def test_an_image_stops_when_it_is_precise_enough(lse_net, features, monkeypatch):
    """A blank image after the first round, its neighbor of the batch when its own error is small."""
    flat = Features((torch.cat([features.last[:1] * 0 + 1, features.last[:1]]),))
    seen, forward = [], lse_net.head.forward
    monkeypatch.setattr(lse_net.head, "forward", lambda f: seen.append(len(f.last)) or forward(f))

    def rows(**options):
        seen.clear()
        cam("shap-cam", lse_net, None, TARGETS[:2], features=flat, **options)
        return sum(seen[1:])

    assert rows(orders=40, tolerance=0) == 40 * 10 * 2
    assert rows(orders=40, tolerance=1e9) == 8 * 10 * 2
    assert rows(orders=40, tolerance=1e-9) == 8 * 10 + 40 * 10


def test_wrong_options_say_what_to_do(net, images):
    for wrong in ({"orders": 3}, {"orders": 0}, {"players": 0}, {"tolerance": -1}):
        with pytest.raises(ValueError, match="even number of orders from 2, players from 1, tolerance from 0; got"):
            cam("shap-cam", net, images, **wrong)
    with pytest.raises(ValueError, match=r"unknown score 'probs'; did you mean 'prob'\?"):
        cam("shap-cam", net, images, score="probs")
