"""Attention over cells and over tiles: slow formulas, the limit of equal attention, bags."""

from __future__ import annotations

import math

import pytest
import torch

from wsol.models import Features
from wsol.models.heads.attention import AttentionMil, DeepMil
from wsol.models.heads.decoders import Decoded
from wsol.models.heads.linear import Gap, PooledFeatures
from wsol.models.heads.masking import Masker


def features(b=4, c=6, h=3, w=5, seed=0, dtype=torch.float64):
    return Features((torch.randn(b, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=dtype),))


def head(kind, c=6, k=3, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = kind(c, k, width=7, **options).double().eval()
        for p in made.parameters():
            torch.nn.init.normal_(p)
    return made


def slow_scores(net, x):
    """e_k of one instance (c,), as the paper writes it."""
    a = net.attention
    made = torch.tanh(a.hidden.weight @ x + a.hidden.bias)
    if a.gate is not None:
        made = made * torch.sigmoid(a.gate.weight @ x + a.gate.bias)
    return a.score.weight @ made


def attended(net, instances):
    """Logits (k,) of a bag of instances, a list of (c,): softmax per class, mean feature per class, linear."""
    scores = torch.stack([slow_scores(net, x) for x in instances])
    logits = []
    for c in range(3):
        weights = torch.softmax(scores[:, c], 0)
        mean = sum(w * x for w, x in zip(weights, instances, strict=True))
        logits.append(net.weight[c] @ mean + net.bias[c])
    return torch.stack(logits)


def cells_of(f, tile):
    return list(f.last[tile].flatten(1).T)


@pytest.mark.parametrize("gated", [False, True])
def test_deep_mil_by_the_formula(gated):
    net, f = head(DeepMil, gated=gated), features()
    p = net(f)
    for i in range(4):
        cells = cells_of(f, i)
        torch.testing.assert_close(p.logits[i], attended(net, cells))
        scores = torch.stack([slow_scores(net, x) for x in cells])
        torch.testing.assert_close(p.extra["attention"][i].flatten(1), scores.softmax(0).T)


def test_equal_attention_is_gap():
    f, gap = features(), Gap(6, 3).double()
    nets = {draws: head(DeepMil, draws=draws) for draws in ("attention", "score", "evidence")}
    for net in nets.values():
        torch.nn.init.zeros_(net.attention.score.weight)
        net.load_state_dict(gap.state_dict(), strict=False)
        torch.testing.assert_close(net(f).logits, gap(f).logits)
    torch.testing.assert_close(nets["evidence"](f).maps, gap(f).maps)
    torch.testing.assert_close(nets["attention"](f).maps, torch.zeros(4, 3, 3, 5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert not nets["score"](f).maps.any()


def test_what_deep_mil_draws():
    f = features()
    p, score, evidence = (head(DeepMil, draws=draws)(f) for draws in ("attention", "score", "evidence"))
    a, net = p.extra["attention"], head(DeepMil)
    torch.testing.assert_close(a.sum((2, 3)), torch.ones(4, 3, dtype=torch.float64))
    torch.testing.assert_close(p.maps, (15 * a).log())
    assert torch.equal(p.maps >= 0, a >= 1 / 15)  # the published threshold
    torch.testing.assert_close(p.maps.sigmoid(), 15 * a / (1 + 15 * a))
    assert ((p.maps - score.maps).flatten(2).std(2) < 1e-9).all()  # the same, but for a constant of each image and class
    torch.testing.assert_close(score.maps[1, :, 2, 4], slow_scores(net, f.last[1, :, 2, 4]))
    torch.testing.assert_close(evidence.maps, 15 * a * net.class_maps(f))
    torch.testing.assert_close(evidence.maps.mean((2, 3)) + net.bias, p.logits)


def test_class_maps_and_attention_stay_aligned():
    """What speaks for class c, and what draws its attention, lights maps of class c alone."""
    net, evidence = head(DeepMil), head(DeepMil, draws="evidence")
    for one in (net, evidence):
        with torch.no_grad():
            one.weight.copy_(torch.eye(3, 6))
            one.attention.hidden.weight.copy_(torch.eye(7, 6))
            one.attention.hidden.bias.zero_()
            one.attention.score.weight.copy_(5 * torch.eye(3, 7))
    for c in range(3):
        x = torch.zeros(1, 6, 4, 4, dtype=torch.float64)
        x[0, c, 1, 2] = 3.0
        f = Features((x,))
        for one in (net, evidence):
            p = one(f)
            assert p.logits.argmax() == c
            assert p.maps[0, c].flatten().argmax() == 1 * 4 + 2
            others = p.maps[0, [d for d in range(3) if d != c]].flatten(1)
            torch.testing.assert_close(others, torch.zeros_like(others), rtol=0, atol=1e-12)


@pytest.mark.parametrize("gated", [False, True])
def test_a_bag_of_deep_mil_attends_to_all_cells(gated):
    net, f = head(DeepMil, gated=gated), features(5)
    bags = net(f, groups=torch.tensor([1, 0, 1, 1, 0])).logits
    for bag, tiles in enumerate(([1, 4], [0, 2, 3])):
        torch.testing.assert_close(bags[bag], attended(net, [x for t in tiles for x in cells_of(f, t)]))


@pytest.mark.parametrize("gated", [False, True])
def test_a_bag_of_attention_mil_attends_to_tiles(gated):
    net, f = head(AttentionMil, gated=gated), features(5)
    p = net(f, groups=torch.tensor([1, 0, 1, 1, 0]))
    means = f.last.mean((2, 3))
    for bag, tiles in enumerate(([1, 4], [0, 2, 3])):
        torch.testing.assert_close(p.logits[bag], attended(net, list(means[tiles])))
    torch.testing.assert_close(p.extra["tile_scores"][3], slow_scores(net, means[3]))
    torch.testing.assert_close(p.maps, torch.einsum("kc,bchw->bkhw", net.weight, f.last))


def test_an_image_alone_is_that_of_cam_and_equal_attention_is_the_mean():
    net, cam, f = head(AttentionMil), PooledFeatures(6, 3).double(), features()
    net.load_state_dict(cam.state_dict(), strict=False)
    assert torch.equal(net(f).logits, cam(f).logits)
    assert net.affine
    torch.nn.init.zeros_(net.attention.score.weight)
    bag = net(f, groups=torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(bag.logits[0], cam(f).logits.mean(0))


def test_saturated_scores_pick_one_tile():
    """Attention of a bag is finite, and goes to one tile, however large the scores are."""
    net = head(AttentionMil)
    state = torch.tensor([[[1.0, 2, 3], [1e30, 0, 0]], [[4, 5, 6], [-1e30, 1e30, 0]]])
    state.requires_grad_(True)
    found = net.pool_bags(state, torch.tensor([0, 0]))
    assert found.tolist() == [[1, 5, 4.5]]
    found.sum().backward()
    assert torch.isfinite(state.grad).all()


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"unknown draws 'atention'; did you mean 'attention'\?"):
        DeepMil(4, 2, draws="atention")
    for kind in (DeepMil, AttentionMil):
        with pytest.raises(ValueError, match="width must be at least 1"):
            kind(4, 2, width=0)


def test_the_default_map_of_a_sharp_attention_is_finite():
    net = head(DeepMil).float()
    torch.nn.init.constant_(net.attention.score.weight, 1e4)
    p = net(features(dtype=torch.float32))
    assert torch.isfinite(p.maps).all()
    assert p.maps.max().item() == pytest.approx(math.log(15), abs=1e-3)


@pytest.mark.parametrize("kind", [Decoded, Masker])
@pytest.mark.parametrize("base", ["attention-mil", "deep-mil"])
def test_a_head_around_it_pools_bags_as_it_does(kind, base):
    generator = torch.Generator().manual_seed(0)
    stages = [torch.rand(4, c, s, s, generator=generator) for c, s in ((8, 16), (8, 8), (12, 4))]
    f, groups, net = Features(tuple(stages)), torch.tensor([0, 1, 0, 1]), kind((8, 8, 12), 3, base=base).eval()
    for p in net.base.attention.parameters():
        torch.nn.init.normal_(p, generator=generator)
    assert torch.equal(net(f, groups=groups).logits, net.base(f, groups=groups).logits)
    assert not torch.allclose(net.base(f, groups=groups).logits, torch.stack([net(f).logits[i::2].mean(0) for i in (0, 1)]))
