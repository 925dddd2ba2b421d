from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wsol.data import Batch
from wsol.models import Prediction
from wsol.training import build_strategy
from wsol.training.resume import weights_hash

MASKED = ("foreground", "background", "sizes")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net(toy):
    return sure(toy.localizer())


def sure(net):
    with torch.no_grad():
        net.head.weight.mul_(4)
    return net


def attached(net, **options):
    strategy = build_strategy("maxmin", **options)
    strategy.attach(net)
    return strategy


def images(b=4, size=40, seed=1):
    return torch.rand(b, 3, size, size, generator=generator(seed))


def batch(labels=(0, 1, 1, 0)):
    return Batch(images(len(labels)), torch.tensor(labels), [str(i) for i in range(len(labels))])


class Says(nn.Module):
    """A head that has made up its mind."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, f, groups=None, labels=None):
        return SimpleNamespace(logits=self.logits.expand(len(f.last), -1))


def barrier(z, t):
    return -math.log(-z) / t if z <= -1 / t**2 else t * z - math.log(1 / t**2) / t + 1 / t


def slow(net, head, here, *, background, weight, epoch, shares, threshold=0.15, w=5.0, scale=0.8):
    """The formula, image by image, as it is printed."""
    t, threshold = min(5.0 * 1.01 ** (epoch - 1), 10.0), min(threshold + 0.001 * (epoch - 1), 0.2)
    terms = {"cross_entropy": [], "foreground": [], "background": [], "sizes": []}
    for x, y in zip(here.images, here.labels.tolist(), strict=True):
        f = net.encode(x[None]).last[0]
        maps = torch.stack([sum(row[c] * f[c] for c in range(len(f))) for row in net.head.weight])
        p = torch.softmax(torch.stack([m.mean() for m in maps]) + net.head.bias, 0)
        m = sum(p[c] * maps[c] for c in range(len(p)))
        m = nn.functional.interpolate(m[None, None], size=x.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        inside = 1 / (1 + torch.exp(-w * ((m - m.min()) / (m.max() - m.min()) - threshold)))
        said = []
        for part in (inside, 1 - inside):
            half = x * part + 0.4 * (1 - part)
            size = [int(s * scale) for s in x.shape[1:]]
            half = nn.functional.interpolate(half[None], size=size, mode="bilinear", align_corners=False)
            logits = head.weight @ net.encode(half).last[0].mean((1, 2)) + head.bias
            said.append(torch.softmax(logits, 0))
        terms["cross_entropy"].append(-math.log(p[y]))
        terms["foreground"].append(-math.log(said[0][y]))
        out = said[1].tolist()
        sem, eem = -sum(math.log(q) for q in out) / len(out), sum(q * math.log(q) for q in out)
        terms["background"].append(weight * (sem if background == "sem" else eem))
        area = x[0].numel() if shares else 1
        sizes = [float(part.sum()) / area for part in (inside, 1 - inside)]
        terms["sizes"].append(sum(barrier(-s, t) for s in sizes))
    return {name: sum(values) / len(values) for name, values in terms.items()}


@pytest.mark.parametrize(
    ("background", "sizes", "epoch", "classes"), [("sem", "pixels", 1, 2), ("eem", "shares", 31, 2), ("eem", "pixels", 200, 3)]
)
def test_the_total_is_the_formula(toy, background, sizes, epoch, classes):
    net = sure(toy.localizer(classes))
    strategy = attached(net, background=background, weight=0.3, sizes=sizes)
    with torch.no_grad():  # the second head has gone its own way
        strategy.classifier.weight.copy_(torch.randn(strategy.classifier.weight.shape, generator=generator(5)))
        expected = slow(
            net, strategy.classifier, batch(), background=background, weight=0.3, epoch=epoch, shares=sizes == "shares"
        )
    losses = {name: value.item() for name, value in strategy(net, batch(), generator(), epoch).items()}
    assert losses == pytest.approx(expected, rel=1e-4)
    assert all(abs(value) > 1e-3 for value in losses.values())  # none is multiplied by 0


def test_entropies_by_hand(toy):
    for logits, sem, eem in (
        ([0.0, 0.0, 0.0], math.log(3), -math.log(3)),
        ([math.log(6), math.log(3), 0.0], -(math.log(0.6) + math.log(0.3) + math.log(0.1)) / 3, -0.8979457),
        ([1e4, 0.0, 0.0], 2e4 / 3, 0.0),
    ):
        for background, expected in (("sem", sem), ("eem", eem)):
            net = toy.localizer(3)
            strategy = attached(net, background=background, weight=1.0)
            strategy.classifier = Says(logits)
            assert strategy(net, batch(), generator(), 1)["background"].item() == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_gradient_goes_through_the_masks(net):
    strategy = attached(net, sizes="shares")
    losses = strategy(net, batch(), generator(), 1)
    for name in MASKED:  # the net's own head only makes the mask of these
        (slope,) = torch.autograd.grad(losses[name], [net.head.weight], retain_graph=True)
        assert slope.abs().max() > 1e-6, name
    backbone = torch.autograd.grad(losses["sizes"], list(net.backbone.parameters()))  # reads nothing but the mask
    assert all(bool(g.isfinite().all()) for g in backbone)
    assert max(float(g.abs().max()) for g in backbone) > 1e-6


def test_sigma_is_where_the_mask_is_one_half():
    strategy = build_strategy("maxmin")
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    for epoch, threshold in ((1, 0.15), (11, 0.16), (51, 0.2), (400, 0.2)):
        mask = strategy.mask(maps, torch.tensor([0]), (8, 8), epoch)
        assert torch.equal(mask >= 0.5, maps / 63 >= threshold)
        assert mask.flatten()[-1].item() == pytest.approx(1 / (1 + math.exp(-5 * (1 - threshold))))


def test_a_constant_map_gives_a_constant_mask_and_no_gradient():
    strategy = build_strategy("maxmin")
    maps = torch.full((2, 1, 3, 3), 7.3)
    maps[1] = torch.arange(9.0).view(3, 3)
    maps.requires_grad_()
    mask = strategy.mask(maps, torch.arange(2), (12, 12), 1)
    assert mask[0].flatten().tolist() == pytest.approx([1 / (1 + math.exp(5 * 0.15))] * 144)
    mask.sum().backward()
    assert maps.grad[0].abs().max() == 0
    assert maps.grad[1].isfinite().all()
    assert maps.grad[1].abs().max() > 0


def test_schedules_hang_on_the_epoch_alone(net):
    here = batch()
    used = attached(net)
    for epoch in range(1, 4):
        used(net, here, generator(), epoch)
    fresh = attached(net)
    assert {k: v.item() for k, v in used(net, here, generator(), 60).items()} == {
        k: v.item() for k, v in fresh(net, here, generator(), 60).items()
    }
    mask = torch.full((1, 1, 10, 10), 0.25)
    for epoch, t in ((1, 5.0), (2, 5.05), (500, 10.0)):
        expected = barrier(-25.0, t) + barrier(-75.0, t)
        assert fresh.size_loss(mask, torch.tensor([0]), epoch).item() == pytest.approx(expected)


def test_a_resumed_training_is_bit_equal(run, toy, tmp_path):
    def interrupted(epoch, draws):
        if epoch == 2:
            raise KeyboardInterrupt
        return toy.batches(epoch, draws, steps=1)

    def go(batches=lambda epoch, draws: toy.batches(epoch, draws, steps=1), **options):
        strategy = build_strategy("maxmin")
        net = run(net=toy.localizer(), strategy=strategy, batches=batches, epochs=3, bf16=False, **options)[0]
        return weights_hash(net, strategy)

    with pytest.raises(KeyboardInterrupt):
        go(batches=interrupted, state_path=tmp_path)
    assert go(state_path=tmp_path) == go()


def test_min_max_and_sizes_are_those_of_the_bag():
    strategy = build_strategy("maxmin")
    maps = torch.rand(3, 1, 4, 4, generator=generator())
    mask = strategy.mask(maps, torch.tensor([0, 1, 0]), (4, 4), 1)
    pair = torch.cat([maps[0], maps[2]], 1)[None]  # the two tiles of bag 0 as one image
    joined = strategy.mask(pair, torch.tensor([0]), (8, 4), 1)
    assert torch.allclose(mask[[0, 2], 0], joined[0, 0].view(2, 4, 4))
    alone = strategy.mask(maps[1:2], torch.tensor([0]), (4, 4), 1)
    assert torch.equal(mask[1:2], alone)
    apart = [strategy.size_loss(m, torch.tensor([0]), 1) for m in (joined, alone)]
    assert strategy.size_loss(mask, torch.tensor([0, 1, 0]), 1).item() == pytest.approx(sum(float(a) for a in apart) / 2)


@pytest.mark.parametrize("options", [{}, {"empty_class": 0}])
def test_a_bag_of_one_tile_is_an_image(net, options):
    here = batch()
    strategy = attached(net, sizes="shares", **options)
    bags = Batch(here.images, here.labels, here.samples, torch.arange(4))
    one, other = (strategy(net, b, generator(), 3) for b in (here, bags))
    assert {k: v.item() for k, v in one.items()} == pytest.approx({k: v.item() for k, v in other.items()})


def test_an_empty_class_is_pushed_to_zero_and_not_cut(net):
    here = batch((0, 1, 0, 1))
    strategy = attached(net, empty_class=0)
    losses = {k: v.item() for k, v in strategy(net, here, generator(), 1).items()}
    maps = net(here.images).maps[:, 1].detach()  # of the only other class
    expected = nn.functional.binary_cross_entropy(maps[[0, 2]].sigmoid(), torch.zeros_like(maps[:2]))
    assert losses["empty"] == pytest.approx(expected.item(), rel=1e-4)
    tumor = Batch(here.images[[1, 3]], here.labels[[1, 3]], ["1", "3"])
    alone = {k: v.item() for k, v in strategy(net, tumor, generator(), 1).items()}
    assert alone["empty"] == 0
    assert [losses[name] for name in MASKED] == pytest.approx([alone[name] for name in MASKED])
    pixels = nn.functional.interpolate(maps[[1, 3], None], size=(40, 40), mode="bilinear")
    inside = torch.sigmoid(5 * pixels)
    sizes = [barrier(-float(m.sum()), 5.0) for m in inside]  # only the foreground's
    assert losses["sizes"] == pytest.approx(sum(sizes) / 2, rel=1e-4)
    normal = Batch(here.images[[0, 2]], here.labels[[0, 2]], ["0", "2"])
    nothing = strategy(net, normal, generator(), 1)
    assert list(nothing) == ["cross_entropy", "empty", *MASKED]
    assert [nothing[name].item() for name in MASKED] == [0, 0, 0]
    sum(nothing.values()).backward()


def test_bags_of_an_empty_class_leave_with_all_their_tiles(net):
    tiles = images(5)
    strategy = attached(net, empty_class=1)
    bags = Batch(tiles, torch.tensor([0, 1, 0]), list("abc"), torch.tensor([2, 1, 0, 1, 2]))
    rest = Batch(tiles[[0, 2, 4]], torch.tensor([0, 0]), list("ac"), torch.tensor([1, 0, 1]))
    one, other = ({k: v.item() for k, v in strategy(net, b, generator(), 1).items()} for b in (bags, rest))
    assert [one[name] for name in MASKED] == pytest.approx([other[name] for name in MASKED])
    assert one["empty"] == pytest.approx(nn.functional.softplus(net(tiles[[1, 3]]).maps[:, 0]).mean().item(), rel=1e-4)


def test_finite_when_saturated_in_bfloat16(net):
    with torch.no_grad():
        net.head.weight.mul_(1e4)
    strategy = attached(net, sizes="shares", background="eem")
    with torch.autocast("cpu", torch.bfloat16):
        losses = strategy(net, batch(), generator(), 1)
    sum(losses.values()).backward()
    assert all(bool(value.isfinite()) for value in losses.values())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "eemm"}, "unknown background 'eemm'; did you mean 'eem'"),
        ({"sizes": "px"}, "known: pixels, shares"),
        ({"scale": 0.0}, r"scale in \(0, 1\]"),
        ({"threshold": 0.3}, r"got 0\.3, 0\.2"),
        ({"barrier": 20.0}, r"start 20\.0, end 10\.0"),
    ],
)
def test_refusals_of_options(options, message):
    with pytest.raises(ValueError, match=message):
        build_strategy("maxmin", **options)


def test_refusals_while_training(net):
    with pytest.raises(ValueError, match="call attach"):
        build_strategy("maxmin")(net, batch(), generator(), 1)
    with pytest.raises(ValueError, match=r"0\.\.1; got 2"):
        attached(net, empty_class=2)(net, batch(), generator(), 1)
    with pytest.raises(ValueError, match="use one with maps"):
        build_strategy("maxmin").foreground(Prediction(torch.zeros(1, 2)))
