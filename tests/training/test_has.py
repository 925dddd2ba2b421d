from __future__ import annotations

import pytest
import torch

from wsol.data import Batch
from wsol.models import build_localizer
from wsol.training import build_strategy, cross_entropy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    return build_localizer("efficientnet_lite0", "gap", 2, weights=None, generator=generator()).eval()


def batch(height=48, width=70, b=4):
    return Batch(torch.rand(b, 3, height, width, generator=generator(1)), torch.arange(b) % 2, list("abcdefgh"[:b]))


def slowly_hidden(images, grid, prob, color, draws):
    out, tall, wide = images.clone(), -(-images.shape[2] // grid), -(-images.shape[3] // grid)
    chances = torch.rand(len(images), 1, tall, wide, generator=draws)
    for i in range(len(images)):
        for row in range(tall):
            for column in range(wide):
                if chances[i, 0, row, column] < prob:
                    for channel in range(3):
                        out[i, channel, row * grid : (row + 1) * grid, column * grid : (column + 1) * grid] = color[channel]
    return out


@pytest.mark.parametrize(("height", "width"), [(48, 70), (70, 48), (8, 8)])  # also no square, which the released code gets wrong
def test_whole_blocks_are_hidden_and_nothing_else(net, height, width):
    here = batch(height, width)
    seen = build_strategy("has", grid=16, prob=0.4).seen(net, here, generator())
    assert torch.equal(seen, slowly_hidden(here.images, 16, 0.4, [127 / 255] * 3, generator()))


def test_a_hidden_pixel_is_normalized_to_zero(net):
    everything = build_strategy("has", prob=1.0).seen(net, batch(), generator())
    assert net.backbone.normalize(everything).abs().max() < 1e-5


def test_blocks_are_hidden_as_often_as_said(net):
    here = Batch(torch.ones(16, 3, 128, 128), torch.zeros(16, dtype=torch.int64), ["x"] * 16)
    seen = build_strategy("has", grid=4, prob=0.3).seen(net, here, generator())
    share = (seen != 1).float().mean()
    assert float(share) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / (16 * 32 * 32)) ** 0.5)
    assert not torch.equal(seen[0], seen[1])  # each image its own blocks


def test_loss_is_the_cross_entropy_of_what_is_seen(net):
    here, strategy = batch(), build_strategy("has", grid=16, label_smoothing=0.1)
    before = here.images.clone()
    expected = cross_entropy(net(strategy.seen(net, here, generator())).logits, here.labels, label_smoothing=0.1)
    loss = strategy(net, here, generator(), 1)
    assert loss["cross_entropy"].item() == pytest.approx(expected.item())
    assert torch.equal(here.images, before)
    nothing = build_strategy("has", prob=0.0)(net, here, generator(), 1)["cross_entropy"]
    assert nothing.item() == build_strategy("classify")(net, here, generator(), 1)["cross_entropy"].item()


def test_tiles_of_bags_are_hidden_from_too(net):
    tiles = batch(b=4)
    bags = Batch(tiles.images, torch.tensor([0, 1]), ["a", "b"], torch.tensor([0, 1, 1, 0]))
    strategy = build_strategy("has", grid=16)
    expected = cross_entropy(net(strategy.seen(net, bags, generator()), groups=bags.groups).logits, bags.labels)
    assert strategy(net, bags, generator(), 1)["cross_entropy"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("options", "message"), [({"grid": 0}, "got 0"), ({"prob": 1.5}, r"in \[0, 1\]; got 1\.5")])
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        build_strategy("has", **options)
