"""Maps at the size of the image: captum as oracle, linear nets with closed forms, RISE written out mask by mask."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wsol.cams import cam, cams
from wsol.cams.inputs import IntegratedGradients, Rise, window_starts
from wsol.models import Backbone, Localizer
from wsol.models.heads.linear import Gap


class Straight(Backbone):
    """One stage: the image times a fixed field of weights. The logit is linear in the pixels: field . x / (H W) + bias."""

    paper = "none"
    channels = (3,)

    def __init__(self, field) -> None:
        super().__init__()
        self.strides = (1,)
        self.register_buffer("field", field)

    def normalize(self, images):
        return images - 0.25

    def stage(self, number, x):
        return x * self.field

    @staticmethod
    def find_imagenet():
        raise RuntimeError("no weights")


@pytest.fixture
def straight():
    seed = torch.Generator().manual_seed(4)
    net = Localizer(Straight(torch.randn(3, 8, 12, generator=seed)), Gap(3, 2)).eval()
    for p in net.head.parameters():
        nn.init.normal_(p, generator=seed)
    return net


@pytest.fixture
def small():
    return torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(5))


def slope_of(net, target):
    """d logit / d pixel of the straight net, (3, 8, 12)."""
    return net.head.weight.detach()[target][:, None, None] * net.backbone.field / 96


@pytest.fixture
def attr():
    return pytest.importorskip("captum.attr")


def logits_of(net):
    return lambda x: net(x).logits


def inner(seed):
    """The generator that a method draws from, for a call with this seed."""
    outer = torch.Generator().manual_seed(seed)
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=outer)))


def close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_gradient_is_captums_saliency(net, images, targets, attr):
    leaf = images.clone().requires_grad_(True)
    slope = attr.Saliency(logits_of(net)).attribute(leaf, targets, abs=False).detach()
    close(cam("gradient", net, images, targets, reduce="sum"), slope.sum(1))
    close(cam("gradient", net, images, targets), slope.abs().amax(1))


def test_gradient_of_a_straight_net_is_its_weights(straight, small):
    m = cam("gradient", straight, small, torch.tensor([0, 1]), reduce="sum")
    for i in range(2):
        close(m[i], slope_of(straight, i).sum(0))


def test_smooth_grad_is_captums_noise_tunnel(net, images, targets, attr):
    tunnel = attr.NoiseTunnel(attr.Saliency(logits_of(net)))
    image = images[1:2]
    spread = 0.2 * float(image.max() - image.min())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(inner(8).initial_seed())
        slope = tunnel.attribute(
            image, target=targets[1:2], nt_type="smoothgrad", nt_samples=6, nt_samples_batch_size=1, stdevs=spread, abs=False
        ).detach()
    found = cam("smooth-grad", net, image, targets[1:2], n=6, level=0.2, reduce="sum", generator=torch.Generator().manual_seed(8))
    close(found, slope.sum(1))


def test_smooth_grad_without_noise_or_curvature_is_the_gradient(net, images, targets, straight, small):
    assert torch.equal(cam("smooth-grad", net, images, targets, level=0.0, n=3), cam("gradient", net, images, targets))
    close(cam("smooth-grad", straight, small, n=3), cam("gradient", straight, small))
    assert not torch.allclose(cam("smooth-grad", net, images, targets, n=3), cam("gradient", net, images, targets), rtol=1e-2)


@pytest.mark.parametrize(("rule", "method"), [("gauss-legendre", "gausslegendre"), ("midpoint", "riemann_middle")])
@pytest.mark.parametrize(("baseline", "color"), [("black", 0.0), ("mean", 0.5), ("white", 1.0)])
def test_integrated_gradients_are_captums(net, images, targets, attr, rule, method, baseline, color):
    oracle = attr.IntegratedGradients(logits_of(net))
    expected = oracle.attribute(images, torch.full_like(images, color), targets, n_steps=7, method=method).detach().sum(1)
    close(cam("integrated-gradients", net, images, targets, baseline=baseline, steps=7, rule=rule), expected)


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint"])
def test_integrated_gradients_add_up_to_the_difference_of_the_logits(net, images, targets, rule):
    m = cam("integrated-gradients", net, images, targets, steps=100, rule=rule)
    logits = (net(images).logits - net(torch.zeros_like(images)).logits).detach()
    difference = logits.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(m.sum((1, 2)), difference, rtol=0.01, atol=0.005)


def test_integrated_gradients_of_a_straight_net_are_exact_in_one_step(straight, small):
    for rule in ("gauss-legendre", "midpoint"):
        m = cam("integrated-gradients", straight, small, torch.tensor([1, 1]), steps=1, rule=rule, baseline="white")
        close(m, (slope_of(straight, 1) * (small - 1)).sum(1))


@given(st.integers(1, 40), st.sampled_from(["gauss-legendre", "midpoint"]))
def test_rules_of_integration_are_exact_to_their_degree(steps, rule):
    method = IntegratedGradients(steps=steps, rule=rule)
    for power in range(2 * steps if rule == "gauss-legendre" else 2):
        assert math.isclose(sum(method.weights * method.points**power), 1 / (power + 1), rel_tol=1e-9)


def bilinear(cells, size):
    """Weight of each of `cells` samples at each of `size` points, pixel centers aligned, clamped at the ends."""
    weights = torch.zeros(size, cells, dtype=torch.float64)
    for i in range(size):
        at = min(max((i + 0.5) * cells / size - 0.5, 0.0), cells - 1.0)
        low = min(int(at), cells - 2)
        weights[i, low] += 1 - (at - low)
        weights[i, low + 1] += at - low
    return weights


def test_rise_has_the_expectation_of_a_straight_net(straight, small):
    """E[y M(q)] / p with y = sum_r s_r M(r) + y0, and E[M(r) M(q)] = p^2 + p (1 - p) sum_c B_c(r) B_c(q), over all shifts."""
    p, cells, n = 0.4, 2, 20_000
    high, wide = bilinear(cells, 12), bilinear(cells, 18)  # 8 / 2 = 4 and 12 / 2 = 6, one square more
    second = torch.zeros(96, 96, dtype=torch.float64)
    for dy in range(4):
        for dx in range(6):
            cover = torch.einsum("yi,xj->yxij", high[dy : dy + 8], wide[dx : dx + 12]).reshape(96, cells * cells)
            second += (p**2 + p * (1 - p) * cover @ cover.T) / 24
    straight.backbone.field[:, :, 6:] = 0  # evidence on the left only, and plenty
    straight.backbone.field[:, :, :6] = 8
    straight.head.weight.data[0] = 1
    straight.head.bias.data[0] = 0.5
    generator = torch.Generator().manual_seed(11)
    options = {"n": n, "cells": cells, "p": p, "score": "logit"}
    for expected in (True, False):
        found = cam("rise", straight, small, torch.tensor([0, 0]), expected=expected, generator=generator, **options)
        for i in range(2):
            shown = (slope_of(straight, 0) * (small[i] - 0.25)).sum(0).flatten().double()
            rest = float(straight.head.bias.detach()[0])  # the logit of a wholly hidden image
            exact = (second @ shown) / p + rest
            assert (found[i].flatten() - exact).abs().max() < 0.02 * exact.abs().max()
            assert exact.max() - exact.min() > 0.2 * exact.abs().max()  # so that the map is more than its mean


@pytest.mark.parametrize(("score", "fill", "expected"), [("prob", "mean", False), ("logit", "white", True)])
def test_rise_mask_by_mask(net, images, targets, score, fill, expected):
    n, cells, p = 9, 3, 0.6
    found = cam(
        "rise", net, images, targets, n=n, cells=cells, p=p, score=score, fill=fill, expected=expected,
        generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    generator = inner(2)
    grids = torch.rand((n, 1, cells, cells), generator=generator) < p
    down = torch.randint(14, (n,), generator=generator)  # ceil(40 / 3)
    right = torch.randint(19, (n,), generator=generator)  # ceil(56 / 3)
    color = {"mean": 0.5, "white": 1.0}[fill]
    total, weight = torch.zeros(4, 40, 56, dtype=torch.float64), torch.zeros(40, 56, dtype=torch.float64)
    for i in range(n):
        high, wide = bilinear(cells, 56)[int(down[i]) :][:40], bilinear(cells, 76)[int(right[i]) :][:56]
        mask = high @ grids[i, 0].double() @ wide.T
        logits = net((color + mask * (images - color)).float()).logits.detach()
        said = (logits.softmax(1) if score == "prob" else logits).gather(1, targets[:, None]).double()
        total += said[:, :, None] * mask
        weight += mask
    close(found, (total / (n * p) if expected else total / weight.clamp(min=1e-12)).float())


def test_rise_masks_show_a_share_p_everywhere():
    images = torch.zeros(1, 3, 30, 45)
    masks = Rise(n=4000, cells=4, p=0.3).masks(images, torch.Generator().manual_seed(0))(slice(0, 4000))
    assert masks.shape == (4000, 30, 45)
    assert 0 <= masks.min() <= masks.max() <= 1 + 1e-6
    assert (masks.mean(0) - 0.3).abs().max() < 5 * 0.46 / math.sqrt(4000)  # 5 deviations of the mean


def test_rise_of_a_net_that_says_always_the_same_is_flat(net, images, targets):
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([0.3, -0.2, 1.0]))
    m = cam("rise", net, images, targets, n=20)
    chance = net.head.bias.detach().softmax(0)[targets]
    torch.testing.assert_close(m, chance[:, None, None].expand_as(m), rtol=1e-5, atol=1e-6)
    uneven = cam("rise", net, images, targets, n=20, expected=True)
    assert uneven.std() > 0.01


def test_occlusion_is_captums(net, images, targets, attr):
    oracle = attr.Occlusion(logits_of(net))
    expected = oracle.attribute(images, (3, 8, 8), (3, 4, 4), baselines=0.5, target=targets).detach()[:, 0]
    close(cam("occlusion", net, images, targets, window=8, stride=4), expected)


def test_occlusion_of_a_straight_net(straight, small):
    """A square takes away its part of the sum; a pixel has the mean of the squares over it, the last ones flush."""
    m = cam("occlusion", straight, small, torch.tensor([0, 1]), window=5, stride=2, fill="white")
    for i in range(2):
        lost = (slope_of(straight, i) * (small[i] - 1)).sum(0)
        total, cover = torch.zeros(8, 12), torch.zeros(8, 12)
        for y in (0, 2, 3):
            for x in (0, 2, 4, 6, 7):
                total[y : y + 5, x : x + 5] += lost[y : y + 5, x : x + 5].sum()
                cover[y : y + 5, x : x + 5] += 1
        close(m[i], total / cover)


def test_occlusion_of_single_pixels_adds_up_on_a_straight_net(straight, small):
    m = cam("occlusion", straight, small, torch.tensor([0, 1]), window=1, stride=1)
    d = cam("integrated-gradients", straight, small, torch.tensor([0, 1]), baseline="mean", steps=1)
    close(m, d, 1e-3)


def test_occlusion_by_probability(net, images, targets):
    m = cam("occlusion", net, images, targets, window=40, stride=20, score="prob")
    chance = net(images).logits.detach().softmax(1).gather(1, targets[:, None])[:, 0]
    dark = images.clone()
    dark[:, :, :, :40] = 0.5
    first = chance - net(dark).logits.detach().softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(m[:, :, 0], first[:, None].expand(4, 40), rtol=1e-4, atol=1e-6)  # only the first covers it


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_windows_cover_every_pixel_and_stay_inside(length, window, stride):
    window = min(window, length)
    stride = min(stride, window)
    starts = window_starts(length, window, stride)
    assert starts[0] == 0
    assert starts[-1] == length - window
    assert {i for s in starts for i in range(s, s + window)} == set(range(length))
    assert starts == sorted(set(starts))


def test_masked_methods_in_bfloat16(net, images, targets):
    for method, options in (("rise", {"n": 30}), ("occlusion", {"window": 16})):
        d = cams(
            {"exact": method, "short": method},
            net,
            images,
            targets,
            options={"exact": options, "short": {**options, "bf16": True}},
        )
        assert not torch.equal(d["exact"], d["short"])
        close(d["short"], d["exact"], 0.1)


def test_options_out_of_range_are_refused(net, images):
    for method, options, message in (
        ("gradient", {"reduce": "mx"}, "did you mean 'max'"),
        ("smooth-grad", {"n": 0}, "n must be at least 1"),
        ("smooth-grad", {"level": -0.1}, "level at least 0"),
        ("integrated-gradients", {"steps": 0}, "steps must be at least 1; got 0"),
        ("integrated-gradients", {"rule": "mid-point"}, "did you mean 'midpoint'"),
        ("integrated-gradients", {"baseline": "blak"}, "did you mean 'black'"),
        ("rise", {"p": 1.0}, r"p in \(0, 1\); got n=4000, cells=7, p=1.0"),
        ("rise", {"score": "log"}, "did you mean 'logit'"),
        ("occlusion", {"stride": 40}, r"stride must be in 1\.\.window"),
        ("occlusion", {"window": 41}, "the window of 41 px does not fit images of 40 x 56"),
    ):
        with pytest.raises(ValueError, match=message):
            cam(method, net, images, **options)
