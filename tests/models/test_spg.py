"""SPG: what each branch is told by its guide, and what it costs it not to say so."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from wsol.cams import cam
from wsol.models import Features, build_localizer
from wsol.models.heads.linear import Gap
from wsol.models.heads.spg import Spg, seeds

CHANNELS, CLASSES = (2, 3, 4, 5), 3


def features(b=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    sides = (16, 12, 8, 4)
    return Features(tuple(torch.rand(b, c, s, s + 2, generator=draw) for c, s in zip(CHANNELS, sides, strict=True)))


def head(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Spg(CHANNELS, CLASSES, **{"width": 6, "size": 24, **options}).eval()
        for p in (*made.shared.parameters(), *made.c.parameters()):
            torch.nn.init.normal_(p, std=1.5)
    return made


def slow_guidance(branch, guide, high, low):
    """Loss of one branch from logits and guides (b, s, s), pixel by pixel."""
    total, count = 0.0, 0
    for logits, one in zip(branch.tolist(), guide.tolist(), strict=True):
        flat = [v for row in one for v in row]
        above = sum(v > high for v in flat)
        limit = high if above * 224**2 >= 30 * len(flat) else 0.7 * max(flat)
        for x, v in zip([v for row in logits for v in row], flat, strict=True):
            if v < low:
                total, count = total + math.log1p(math.exp(x)), count + 1
            elif v > limit:
                total, count = total + math.log1p(math.exp(-x)), count + 1
    return total / max(count, 1), count


@torch.no_grad()
def slow_losses(net, f, labels):
    """The branches layer by layer, the guides from them."""

    def conv(layer, x):
        return functional.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    def large(x):
        return functional.interpolate(x, (net.size, net.size), mode="bilinear")[:, 0]

    b1 = large(conv(net.shared[2], conv(net.shared[0], conv(net.b1[0], f.stages[-3]).relu()).relu()))
    b2 = large(conv(net.shared[2], conv(net.shared[0], conv(net.b2[0], f.stages[-2]).relu()).relu()))
    c = large(conv(net.c[2], conv(net.c[0], f.stages[-1]).relu()))
    attention = []
    for image, label in zip(f.last, labels, strict=True):
        m = large(sum(net.weight[label, k] * image[k] for k in range(CHANNELS[-1]))[None, None])[0]
        attention.append((m - m.min()) / (m.max() - m.min()))
    fused = 1 / (1 + torch.exp(-b1)) / 2 + 1 / (1 + torch.exp(-b2)) / 2
    guides = {"spg_b2": (b2, torch.stack(attention)), "spg_b1": (b1, 1 / (1 + torch.exp(-b2))), "spg_c": (c, fused)}
    return {name: slow_guidance(*pair, *t) for (name, pair), t in zip(guides.items(), net.thresholds, strict=True)}


@pytest.mark.parametrize("thresholds", [((0.7, 0.05), (0.5, 0.05), (0.7, 0.1)), ((0.6, 0.3), (0.95, 0.4), (0.55, 0.45))])
def test_losses_are_those_of_the_slow_reference(thresholds):
    f, net, labels = features(), head(thresholds=thresholds), torch.tensor([0, 2, 1])
    found = net.loss(net(f, labels=labels), labels)
    expected = slow_losses(net, f, labels.tolist())
    assert found.keys() == expected.keys()
    for name, (loss, count) in expected.items():
        assert 0 < count < 3 * 24 * 24
        assert found[name].item() == pytest.approx(loss, rel=1e-4), name


def test_maps_logits_and_closed_forms_are_those_of_gap():
    f, net = features(), head()
    gap = Gap(CHANNELS[-1], CLASSES).eval()
    gap.load_state_dict({"weight": net.weight, "bias": net.bias})
    assert torch.equal(net(f).logits, gap(f).logits)
    assert torch.equal(net(f).maps, gap(f).maps)
    assert not net(f).extra  # the branches run in training only, and need finer stages
    assert torch.equal(net(Features((f.last,))).logits, gap(f).logits)
    assert torch.equal(net(f, labels=torch.tensor([0, 2, 1])).logits, gap(f).logits)


def test_few_foreground_pixels_lower_the_threshold():
    """30 of 224 x 224 pixels are enough, 29 are not; and each image has a threshold of its own."""
    guide = torch.full((3, 1, 224, 224), 0.3)
    guide[0].view(-1)[:30] = 0.8
    guide[1].view(-1)[:29] = 0.8
    guide[:, 0, 100, :] = 0.6
    guide[:, 0, 0, 223] = 0.1
    foreground, known = seeds(guide, 0.7, 0.2)
    assert foreground.sum((1, 2, 3)).tolist() == [30, 29 + 224, 224]  # 0.7 x 0.8 = 0.56; the third image has nothing above 0.6
    assert (known & ~foreground).sum((1, 2, 3)).tolist() == [1, 1, 1]


def test_what_is_both_is_background():
    guide = torch.tensor([0.0, 0.05, 0.08, 0.1]).reshape(1, 1, 2, 2)  # lowered: from 0.07 on; background: below 0.09
    foreground, known = seeds(guide, 0.7, 0.09)
    assert foreground.flatten().tolist() == [False, False, False, True]
    assert known.all()


def test_nothing_told_costs_nothing():
    """A map that is the same everywhere guides nobody; a branch that is told nothing has loss 0 and no slope."""
    f, net, labels = features(), head(), torch.tensor([0, 2, 1])
    with torch.no_grad():
        net.weight.zero_()
        net.shared[2].weight.zero_()
        net.shared[2].bias.zero_()
    losses = net.loss(net(f, labels=labels), labels)
    assert [v.item() for v in losses.values()] == [0, 0, 0]
    sum(losses.values()).backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in net.parameters())


def test_no_slope_runs_into_a_guide():
    f, net, labels = features(), head(), torch.tensor([0, 2, 1])
    stages = [s.clone().requires_grad_(True) for s in f.stages]
    losses = net.loss(net(Features(tuple(stages)), labels=labels), labels)
    reach = {"spg_b1": 1, "spg_b2": 2, "spg_c": 3}
    for name, number in reach.items():
        slopes = torch.autograd.grad(losses[name], [*stages, net.weight], allow_unused=True, retain_graph=True)
        assert [s is not None and bool(s.abs().sum() > 0) for s in slopes] == [i == number for i in range(5)]


@pytest.mark.parametrize("scale", [0.0, 1e6, -1e6])
def test_losses_are_finite_in_half_precision(scale):
    f, net, labels = features(), head().train(), torch.tensor([0, 2, 1])
    stages = [(s * scale).bfloat16().requires_grad_(True) for s in f.stages]
    with torch.autocast("cpu", torch.bfloat16):
        losses = net.loss(net(Features(tuple(stages)), labels=labels), labels)
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert all(s.grad is None or s.grad.isfinite().all() for s in stages)


def test_bags_guide_each_tile_by_the_label_of_its_bag():
    f, net = features(), head().train()
    groups, labels = torch.tensor([1, 0, 1]), torch.tensor([2, 0])
    bags, tiles = net(f, groups=groups, labels=labels), net(f, labels=labels[groups])
    assert net.loss(bags, labels) == net.loss(tiles, labels[groups])
    unlabelled = net(f)
    assert torch.equal(unlabelled.extra["spg_map"], net(f, labels=unlabelled.logits.argmax(1)).extra["spg_map"])


def test_on_a_backbone_b1_and_b2_read_the_stages_below_the_last():
    net = build_localizer("efficientnet_lite0", "spg", 2, weights=None, output_stride=16, head_options={"width": 8})
    assert [b[0].in_channels for b in (net.head.b1, net.head.b2, net.head.c)] == [40, 112, 1280]
    x, labels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0])
    f = net.encode(x)
    said = net.head(f, labels=labels)
    assert [said.extra[name].shape[2:] for name in ("spg_b1", "spg_b2", "spg_c")] == [(8, 8), (4, 4), (4, 4)]
    net.eval()
    shown = {m: cam(m, net, x, labels) for m in ("cam", "native", "ablation-cam")}
    assert torch.equal(shown["cam"], shown["native"])
    asked = cam("ablation-cam", net, x, labels, closed_form=False)
    torch.testing.assert_close(shown["ablation-cam"], asked, rtol=1e-3, atol=1e-4 * float(asked.abs().max()))


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="last three stages; this backbone has 2"):
        Spg((4, 5), 2)
    with pytest.raises(ValueError, match=r"three pairs \(high, low\).*got \(\(0.7, 0.05\), \(0.5, 0.6\)"):
        head(thresholds=((0.7, 0.05), (0.5, 0.6), (0.7, 0.1)))
    with pytest.raises(ValueError, match=r"size .* and width"):
        head(size=0)
    net, labels = head(), torch.tensor([0, 2, 1])
    with pytest.raises(ValueError, match="evaluation mode without labels"):
        net.loss(net(features()), labels)
