"""Closed forms of the poolings, alignment of rows and logits, laws of bags."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.models import HEADS, Features
from wsol.models.heads.linear import Gap, Lse, Max, PooledFeatures
from wsol.models.heads.peaks import Prm
from wsol.models.heads.regions import TopK

KINDS = {"gap": Gap, "cam": PooledFeatures, "max": Max, "lse": Lse, "top-k": TopK, "prm": Prm}


def features(b=4, c=6, h=3, w=5, seed=0, dtype=torch.float32):
    return Features((torch.randn(b, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=dtype),))


def head(kind, c=6, k=3, dtype=torch.float32, **options):
    made = kind(c, k, **options).to(dtype).eval()
    torch.nn.init.normal_(made.weight, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(made.bias, generator=torch.Generator().manual_seed(2))
    return made


def test_every_head_is_tested():
    """The linear ones here, each other one in a file of its own."""
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for name, where in HEADS.items():
        assert name in KINDS or re.search(rf"^from .* import .*\b{where.partition(':')[2]}\b", tests, re.MULTILINE), name


def test_gap_is_the_mean_feature_through_a_linear_layer():
    f, net = features(), head(Gap)
    torch.testing.assert_close(net(f).logits, f.last.mean((2, 3)) @ net.weight.T + net.bias)


def test_lse_by_hand():
    net = Lse(1, 1, r=10.0)
    torch.nn.init.ones_(net.weight)
    f = Features((torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 2, 2),))
    expected = math.log(sum(math.exp(10 * m) for m in (0.1, 0.2, 0.3, 0.4)) / 4) / 10
    assert net(f).logits.item() == pytest.approx(expected, abs=1e-6)


def test_lse_tends_to_the_mean_and_to_the_maximum():
    f = features(dtype=torch.float64)
    maps = head(Gap, dtype=torch.float64).class_maps(f)
    mean, top = maps.mean((2, 3)), maps.amax((2, 3))
    flat = head(Lse, dtype=torch.float64, r=1e-6)
    sharp = head(Lse, dtype=torch.float64, r=1e5)
    torch.testing.assert_close(flat(f).logits - flat.bias, mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(sharp(f).logits - sharp.bias, top, rtol=0, atol=1e-4)
    half = head(Lse, dtype=torch.float64, r=5.0)
    between = half(f).logits - half.bias
    assert ((between > mean) & (between < top)).all()
    gentle = head(Lse, dtype=torch.float64, r=0.01)  # float32 does not drown at an r one may choose
    exact, single = gentle(f).logits, gentle.float()(Features((f.last.float(),))).logits
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [1e4, -1e4, 1e30])
def test_lse_is_finite_for_any_logit(scale):
    f = Features((features().last * scale,))
    net = head(Lse, r=10.0)
    leaf = f.last.clone().requires_grad_(True)
    p = net(Features((leaf,)))
    torch.testing.assert_close(p.logits, p.maps.amax((2, 3)), rtol=1e-3, atol=1.0)  # so spread out, it is the maximum
    p.logits.sum().backward()
    assert torch.isfinite(p.logits).all()
    assert torch.isfinite(leaf.grad).all()


def test_lse_of_the_largest_floats():
    maps = torch.tensor([3e38, 3e38, -3e38, 3e38]).reshape(1, 1, 2, 2).requires_grad_(True)
    pooled = Lse(1, 1).pool(maps)
    assert pooled.item() == pytest.approx(3e38)
    pooled.sum().backward()
    assert maps.grad.flatten().tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


def test_lse_slope_is_a_softmax():
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    net = Lse(6, 3, r=3.0).double()
    (slope,) = torch.autograd.grad(net.pool(maps).sum(), maps)
    torch.testing.assert_close(slope, torch.softmax(3 * maps.flatten(2), 2).reshape(maps.shape))
    assert torch.autograd.gradcheck(net.pool, (maps,))


@pytest.mark.parametrize("kind", KINDS.values())
def test_rows_maps_and_logits_stay_aligned(kind):
    """Evidence planted along row c lights map c and raises logit c; the survey's code read row c + 1."""
    net = kind(6, 3).eval()
    with torch.no_grad():
        net.weight.copy_(torch.eye(3, 6))
    for c in range(3):
        x = torch.zeros(1, 6, 4, 4)
        x[0, c, 1, 2] = 8.0
        p = net(Features((x,)))
        assert p.logits.argmax().item() == c
        assert p.maps[0].flatten().argmax().item() == c * 16 + 1 * 4 + 2
        assert torch.equal(p.maps[0, c], x[0, c])
    assert net.weight.shape == (3, 6)
    assert net.bias.shape == (3,)


@pytest.mark.parametrize("kind", KINDS.values())
def test_class_maps_have_no_bias(kind):
    f, net = features(), head(kind)
    p = net(f)
    torch.testing.assert_close(p.maps, torch.einsum("kc,bchw->bkhw", net.weight, f.last))
    with torch.no_grad():
        net.bias += 5
    torch.testing.assert_close(net(f).logits, p.logits + 5)
    assert torch.equal(net(f).maps, p.maps)


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_bag_of_one_is_the_image(kind):
    f, net = features(), head(kind)
    p, bags = net(f), net(f, groups=torch.tensor([2, 0, 3, 1]))
    assert torch.equal(bags.logits, p.logits[[1, 3, 0, 2]])
    assert torch.equal(bags.extra["tile_logits"], p.logits)
    assert torch.equal(bags.maps, p.maps)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.floats(0.05, 1.0), st.integers(0, 1000))
def test_bags_average_their_top_tiles_in_any_order(tiles, top, seed):
    generator = torch.Generator().manual_seed(seed)
    net = Gap(2, 3, bag_top=top)
    logits = torch.randn(tiles + 2, 3, generator=generator)
    groups = torch.tensor([0] * tiles + [1, 1])
    pooled = net.pool_bags(logits, groups)
    k = max(1, round(top * tiles))
    slow = [sum(sorted(logits[:tiles, c].tolist(), reverse=True)[:k]) / k for c in range(3)]
    assert pooled[0].tolist() == pytest.approx(slow, abs=1e-5)
    order = torch.randperm(tiles + 2, generator=generator)
    assert torch.equal(net.pool_bags(logits[order], groups[order]), pooled)


def test_a_bag_of_everything_is_the_mean():
    f = features()
    p = head(Gap, bag_top=1.0)(f, groups=torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(p.logits, p.extra["tile_logits"].mean(0, keepdim=True))


@pytest.mark.parametrize("groups", [[0, 1, 1], [0, 2, 2, 0], [1, 1, 1, 1], [-1, 0, 0, 0]])
def test_groups_that_do_not_fit_are_refused(groups):
    with pytest.raises(ValueError, match=r"groups must be int64 \(4,\)|numbered 0..n - 1"):
        head(Gap)(features(), groups=torch.tensor(groups))
    with pytest.raises(ValueError, match="int64"):
        head(Gap)(features(), groups=torch.tensor([0.0, 0, 1, 1]))


@pytest.mark.parametrize("kind", KINDS.values())
def test_dropout_acts_in_training_only(kind):
    f, net = features(), head(kind, dropout=0.5)
    assert torch.equal(net(f).logits, net(f).logits)
    net.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = net(f).logits
        torch.manual_seed(0)
        assert torch.equal(net(f).logits, first)
        assert not torch.equal(net(f).logits, first)
    plain = head(kind).train()
    assert torch.equal(plain(f).logits, plain(f).logits)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (Lse, {"r": 0.0}, "r must be positive"),
        (Lse, {"r": math.inf}, "r must be positive"),
        (Gap, {"dropout": 1.0}, "dropout"),
        (Gap, {"bag_top": 0.0}, "bag_top"),
    ],
)
def test_options_out_of_range_are_refused(kind, options, told):
    with pytest.raises(ValueError, match=told):
        kind(4, 2, **options)
