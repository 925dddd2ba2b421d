"""Poolings by hand: `cam`, `max`, `top-k`, `wildcat`, `prm`, `noisy-or`; and the background row."""

from __future__ import annotations

import math

import pytest
import torch

from wsol.models import Features, local_maxima
from wsol.models.heads.linear import Gap, Lse, Max, PooledFeatures
from wsol.models.heads.noisy_or import NoisyOr, noisy_or
from wsol.models.heads.peaks import Prm
from wsol.models.heads.regions import TopK, Wildcat
from wsol.training import cross_entropy

TEN = torch.tensor([3.0, 1, 10, 7, 5, 9, 2, 8, 6, 4]).reshape(1, 1, 2, 5)


def features(b=4, c=6, h=5, w=7, seed=0, dtype=torch.float64):
    return Features((torch.randn(b, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=dtype),))


def head(kind, c=6, k=3, **options):
    """In float64, with a bias for each class."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = kind(c, k, **options).double().eval()
        torch.nn.init.normal_(made.bias)
    return made


def slow_top(values, share):
    """The mean of the largest share of numbers."""
    count = max(1, round(share * len(values)))
    return sum(sorted(values, reverse=True)[:count]) / count


def test_pooled_features_are_pooled_maps():
    f, cam, gap = features(), head(PooledFeatures), head(Gap)
    gap.load_state_dict(cam.state_dict())
    torch.testing.assert_close(cam(f).logits, gap(f).logits)
    assert torch.equal(cam(f).maps, gap(f).maps)
    slopes = []
    for net in (cam, gap):
        leaf = f.last.clone().requires_grad_(True)
        slopes += torch.autograd.grad(net(Features((leaf,))).logits[:, 1].sum(), leaf)
    torch.testing.assert_close(*slopes)


def test_max_is_the_limit_of_lse_and_of_top_k():
    f, net = features(), head(Max)
    p = net(f)
    assert torch.equal(p.logits, p.maps.amax((2, 3)) + net.bias)
    torch.testing.assert_close(head(Lse, r=1e6)(f).logits, p.logits, rtol=0, atol=1e-5)
    assert torch.equal(head(TopK, share=1e-9)(f).logits, p.logits)
    assert torch.equal(head(Wildcat, modalities=1, kmax=1, kmin=0)(f).logits, p.logits)


def test_equal_maxima_share_the_slope():
    maps = torch.tensor([2.0, 2, 1, 2]).reshape(1, 1, 2, 2).requires_grad_(True)
    Max(1, 1).pool(maps).sum().backward()
    assert maps.grad.flatten().tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


@pytest.mark.parametrize("share", [0.03, 0.25, 0.4, 1.0])
def test_top_k_by_sorting(share):
    f, net = features(), head(TopK, share=share)
    p = net(f)
    slow = torch.tensor([[slow_top(m.flatten().tolist(), share) for m in maps] for maps in p.maps], dtype=torch.float64)
    torch.testing.assert_close(p.logits - net.bias, slow)


def test_the_top_of_everything_is_the_mean():
    torch.testing.assert_close(head(TopK, share=1.0)(features()).logits, head(Gap)(features()).logits)
    both = head(Wildcat, modalities=1, kmax=0.9999, kmin=0)
    torch.testing.assert_close(both(features()).logits, head(Gap)(features()).logits)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (9 + 0.6 * 1.5) / 2),
        ({"halve": False}, 9 + 0.6 * 1.5),
        ({"alpha": 1.0}, (9 + 1.5) / 2),
        ({"kmin": 3}, (9 + 0.6 * 2) / 2),
        ({"kmin": 0.01}, (9 + 0.6 * 1) / 2),  # one cell at least
        ({"kmax": 4}, (8.5 + 0.6 * 1.5) / 2),
        ({"kmax": 99}, (5.5 + 0.6 * 1.5) / 2),
        ({"kmin": 0}, 9),  # no negative term: nothing to halve
        ({"alpha": 0}, 9),
        ({"released_min": True}, 9),
        ({"released_min": True, "kmin": 3, "alpha": 5.0}, 9),
    ],
)
def test_wildcat_by_hand(options, expected):
    net = Wildcat(1, 1, **{"kmax": 0.3, "kmin": 0.2, "alpha": 0.6, **options})
    assert net.pool(TEN).item() == pytest.approx(expected)


def test_wildcat_draws_the_mean_of_its_modalities():
    net, f = head(Wildcat, modalities=4), features()
    assert net.weight.shape == (12, 6)
    many = torch.einsum("nc,bchw->bnhw", net.weight, f.last)  # as the authors: 4 maps of class 0, 4 of class 1, ...
    p = net(f)
    for c in range(3):
        torch.testing.assert_close(p.maps[:, c], many[:, 4 * c : 4 * c + 4].mean(1))
    torch.testing.assert_close(p.maps, net.class_maps(f))
    slow = [
        [(slow_top(m.flatten().tolist(), 0.5) - 0.6 * slow_top((-m).flatten().tolist(), 0.1)) / 2 for m in maps]
        for maps in p.maps
    ]
    torch.testing.assert_close(p.logits, torch.tensor(slow, dtype=torch.float64) + net.bias)


def slow_peaks(m, window, above_median):
    """Cells that are larger than what comes before them in their window, and not smaller than what comes after."""
    h, w, r = *m.shape, window // 2
    median = m.flatten().sort().values[(h * w - 1) // 2]
    found = torch.zeros(h, w, dtype=torch.bool)
    for y in range(h):
        for x in range(w):
            others = [
                (v, u) for v in range(max(0, y - r), min(h, y + r + 1)) for u in range(max(0, x - r), min(w, x + r + 1))
            ]  # fmt: skip
            best = all(m[y, x] > m[o] if o < (y, x) else m[y, x] >= m[o] for o in others if o != (y, x))
            found[y, x] = best and (not above_median or m[y, x] >= median)
    return found


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("above_median", [False, True])
def test_peaks_by_comparing_neighbors(window, above_median):
    maps = torch.randint(-4, 5, (3, 2, 6, 9), generator=torch.Generator().manual_seed(window)).double()  # many are equal
    maps[0] = 1.5  # flat: one peak, the first cell
    peaks = local_maxima(maps, window, above_median=above_median)
    slow = torch.stack([torch.stack([slow_peaks(m, window, above_median) for m in pair]) for pair in maps])
    assert torch.equal(peaks, slow)
    assert (peaks.sum((2, 3)) >= 1).all()
    net = head(Prm, window=window, above_median=above_median)
    torch.testing.assert_close(net.pool(maps), (maps * slow).sum((2, 3)) / slow.sum((2, 3)))


def test_prm_by_hand():
    m = torch.tensor([[5.0, 1, 0, 2], [1, 0, 0, 1], [0, 0, 0, 0], [-1, 0, 3, 0]]).reshape(1, 1, 4, 4)
    assert local_maxima(m).nonzero()[:, 2:].tolist() == [[0, 0], [0, 3], [3, 2]]
    assert Prm(1, 1).pool(m).item() == pytest.approx((5 + 2 + 3) / 3)
    assert Prm(1, 1, dense=True).pool(m).item() == pytest.approx((5 + 2 + 3 + 3) / 4)  # four windows of 3 x 3 fit
    leaf = m.clone().requires_grad_(True)
    Prm(1, 1).pool(leaf).sum().backward()
    assert leaf.grad.nonzero()[:, 2:].tolist() == [[0, 0], [0, 3], [3, 2]]
    assert leaf.grad.sum() == 1


def test_dense_stimulation_needs_a_window_of_cells():
    with pytest.raises(ValueError, match=r"at least 3 x 3 cells; got \(2, 5\).*output_stride"):
        Prm(1, 1, dense=True).pool(TEN)
    assert Prm(1, 1).pool(TEN).item() == pytest.approx((10 + 9) / 2)  # peaks are found on any map


def test_noisy_or_by_probabilities():
    f, net = features(), head(NoisyOr)
    p = net(f)
    there = 1 - (1 - (p.maps + net.bias[:, None, None]).sigmoid()).prod(2).prod(2)
    torch.testing.assert_close(p.logits.sigmoid(), there)
    low = (p.maps / 4 - 7).sigmoid()  # rare evidence, where the probability itself is no limit to the comparison
    there = 1 - (1 - low).flatten(2).prod(2)
    torch.testing.assert_close(noisy_or((p.maps / 4 - 7).flatten(2), 2), there.log() - (1 - there).log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noisy_or_of_one_cell_is_that_cell(dtype):
    x = torch.tensor([-1e30, -1e4, -200, -50, -11, -10, -9.9, -7, -6.9, -1, 0, 1e-4, 3, 20, 90, 1e4, 1e30], dtype=dtype)
    x.requires_grad_(True)
    found = noisy_or(x[None], 0)
    exact = {"rtol": 1e-12, "atol": 5e-8} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 3e-6}
    torch.testing.assert_close(found, x, **exact)
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(slope, torch.ones_like(x), rtol=3e-4, atol=0)


def test_noisy_or_of_many_equal_cells():
    for low in (-300.0, -60.0, -20.0):  # 1 - (1 - p)^n is n p
        assert noisy_or(torch.full((50,), low), 0).item() == pytest.approx(low + math.log(50), abs=1e-4)
    for high in (30.0, 1e4):  # (1 - p)^n is exp(-n l)
        assert noisy_or(torch.full((50,), high), 0).item() == pytest.approx(50 * high, rel=1e-5)
    assert noisy_or(torch.zeros(1000), 0).item() == pytest.approx(1000 * math.log(2), rel=1e-5)


def test_noisy_or_slope():
    """d logit / d l_i = p_i / P, everywhere."""
    x = torch.tensor([[-40.0, -41, -39], [-8, -7.5, -9], [-1, 2, 0.5], [30, -5, 8]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(noisy_or(x, 1).sum(), x)
    p = x.detach().sigmoid()
    torch.testing.assert_close(slope, p / (-torch.expm1(torch.log1p(-p).sum(1, keepdim=True))), rtol=1e-5, atol=1e-12)


def test_noisy_or_of_a_bag_is_that_of_all_cells():
    f, net = features(5), head(NoisyOr)
    bags = net(f, groups=torch.tensor([1, 0, 1, 1, 0]))
    cells = (bags.maps + net.bias[:, None, None]).flatten(2)
    for bag, tiles in enumerate(([1, 4], [0, 2, 3])):
        torch.testing.assert_close(bags.logits[bag], noisy_or(torch.cat(list(cells[tiles]), 1), 1))


LINEAR = {
    "gap": Gap,
    "cam": PooledFeatures,
    "max": Max,
    "lse": Lse,
    "wildcat": Wildcat,
    "top-k": TopK,
    "prm": Prm,
    "noisy-or": NoisyOr,
}
with_background = pytest.mark.parametrize("kind", LINEAR.values(), ids=LINEAR)


@with_background
def test_the_map_of_class_c_is_row_c_plus_1(kind):
    plain, net, f = head(kind), head(kind, background=True), features()
    plain.load_state_dict(net.state_dict(), strict=False)
    assert net.rows.shape == (4, 6)
    p = net(f)
    assert torch.equal(p.logits, plain(f).logits)  # the background changes nothing for the classes
    assert torch.equal(p.maps, plain(f).maps)
    for c in range(3):
        torch.testing.assert_close(p.maps[:, c], torch.einsum("c,bchw->bhw", net.rows[c + 1], f.last))
    with torch.no_grad():
        net.background_weight += 100
    assert torch.equal(net(f).logits, p.logits)
    assert torch.equal(net.class_maps(f), p.maps)


@with_background
def test_published_rows_are_one_off(kind):
    right, wrong, f = head(kind, background=True), head(kind, background=True, published_rows=True), features()
    wrong.load_state_dict(right.state_dict())
    p, q = right(f), wrong(f)
    assert torch.equal(p.logits, q.logits)  # logits were right
    assert torch.equal(q.maps[:, 1:], p.maps[:, :-1])
    torch.testing.assert_close(q.maps[:, 0], torch.einsum("c,bchw->bhw", right.rows[0], f.last))
    assert torch.equal(wrong.class_maps(f), q.maps)
    with pytest.raises(ValueError, match="set background=True"):
        kind(6, 3, published_rows=True)


@with_background
def test_no_slope_reaches_the_background(kind):
    net, f = head(kind, background=True), features()
    cross_entropy(net(f).logits, torch.tensor([0, 1, 2, 0])).backward()
    assert not net.background_weight.grad.any()
    assert net.weight.grad.any()


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (TopK, {"share": 0.0}, r"share must be in \(0, 1\]"),
        (TopK, {"share": 1.5}, r"share must be in \(0, 1\]"),
        (Wildcat, {"kmax": 0}, "kmax must be a share.*from 1 up; got 0"),
        (Wildcat, {"kmax": 1.5}, "kmax must be a share"),
        (Wildcat, {"kmin": -0.1}, "kmin must be a share.*from 0 up; got -0.1"),
        (Wildcat, {"kmax": math.inf}, "kmax must be a share"),
        (Wildcat, {"alpha": -1}, "alpha must be at least 0"),
        (Wildcat, {"modalities": 0}, "modalities must be at least 1"),
        (Prm, {"window": 4}, "window must be odd"),
    ],
)
def test_options_out_of_range_are_refused(kind, options, told):
    with pytest.raises(ValueError, match=told):
        kind(4, 2, **options)
