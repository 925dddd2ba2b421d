from __future__ import annotations

import numpy as np
import pytest
import torch

from wsol.data import Batch
from wsol.models import build_localizer
from wsol.training import build_strategy, cross_entropy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    return build_localizer("efficientnet_lite0", "gap", 3, weights=None, generator=generator()).eval()


def numbered(b=6, height=40, width=64):
    """Image i has the value (i + 1) / 10 everywhere: each pixel says whose it is."""
    values = (torch.arange(b) + 1) / 10
    return Batch(values[:, None, None, None].expand(b, 3, height, width).clone(), torch.arange(b) % 3, list("abcdefgh"[:b]))


@pytest.mark.parametrize("seed", range(20))
def test_one_box_of_the_partner_is_pasted_at_the_same_place(seed):
    batch = numbered()
    mixed = build_strategy("cutmix").mix(batch, generator(seed))
    foreign = mixed.images[:, 0] != batch.images[:, 0]
    moved = mixed.partner != torch.arange(6)
    for i in range(6):
        assert torch.equal(
            mixed.images[i][:, foreign[i]], torch.full_like(mixed.images[i][:, foreign[i]], (mixed.partner[i] + 1) / 10)
        )
    if moved.any():
        box = foreign[moved][0]
        assert all(torch.equal(one, box) for one in foreign[moved])
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns[None])  # a product of stretches
        for line in (rows, columns):
            assert int((line.int().diff() == 1).sum()) + int(line[0]) <= 1  # each in one piece
        assert mixed.own == pytest.approx(1 - float(box.float().mean()))
    assert sorted(mixed.partner.tolist()) == list(range(6))


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_sides_follow_the_square_root_of_a_beta_share(beta):
    strategy, batch = build_strategy("cutmix", beta=beta), numbered(2, 400, 800)
    for seed in range(30):
        draws = generator(seed)
        share = np.random.default_rng(int(torch.randint(2**62, (), generator=draws))).beta(beta, beta)
        mixed = strategy.mix(batch, generator(seed))
        box = mixed.images[0, 0] != batch.images[0, 0]
        if not box.any():
            continue
        for lines, side in ((box.any(1), 400), (box.any(0), 800)):
            length, expected = int(lines.sum()), int(side * (1 - share) ** 0.5)
            cut = bool(lines[0] or lines[-1])
            assert length == expected or (cut and length < expected)


def test_loss_weighs_both_labels_by_area(net):
    batch = Batch(torch.rand(6, 3, 32, 48, generator=generator(3)), torch.arange(6) % 3, list("abcdef"))
    strategy = build_strategy("cutmix", label_smoothing=0.1)
    for seed in range(3):
        images, partner, own = strategy.mix(batch, generator(seed))
        logits = net(images).logits
        expected = own * cross_entropy(logits, batch.labels, label_smoothing=0.1)
        expected = expected + (1 - own) * cross_entropy(logits, batch.labels[partner], label_smoothing=0.1)
        loss = strategy(net, batch, generator(seed), 1)
        assert list(loss) == ["cross_entropy"]
        assert loss["cross_entropy"].item() == pytest.approx(expected.item())
        assert torch.equal(strategy.seen(net, batch, generator(seed)), images)


def test_losses_of_the_head_are_weighed_alike_and_it_erases_by_the_larger_share(net):
    class Erasing(torch.nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head, self.labels = head, []

        def forward(self, f, groups=None, labels=None):
            self.labels.append(labels)
            return self.head(f)

        def loss(self, prediction, labels):
            return {"side": labels.float().mean() + 1}

    batch, strategy = numbered(3, 32, 32), build_strategy("cutmix")
    batch = Batch(batch.images, torch.tensor([0, 2, 2]), batch.samples)
    head = Erasing(net.head)
    fake = type("Net", (), {"head": head, "encode": staticmethod(net.encode)})
    for seed in range(8):
        _, partner, own = strategy.mix(batch, generator(seed))
        theirs = batch.labels[partner]
        loss = strategy(fake, batch, generator(seed), 1)["side"]
        assert loss.item() == pytest.approx(own * (batch.labels.float().mean() + 1) + (1 - own) * (theirs.float().mean() + 1))
        assert torch.equal(head.labels[-1], batch.labels if own >= 0.5 else theirs)


def test_how_often_a_batch_is_mixed(net):
    batch = numbered(4, 32, 32)
    never = build_strategy("cutmix", prob=0.0)
    mixed = never.mix(batch, generator())
    assert mixed.own == 1.0
    assert torch.equal(mixed.images, batch.images)
    plain = build_strategy("classify")(net, batch, generator(), 1)["cross_entropy"]
    assert never(net, batch, generator(), 1)["cross_entropy"].item() == plain.item()
    often, draws = build_strategy("cutmix", prob=0.25), generator()
    shares = [often.mix(batch, draws).own for _ in range(600)]
    assert np.mean([s < 1 for s in shares]) == pytest.approx(0.25, abs=0.06)


def test_refusals(net):
    bags = Batch(torch.rand(3, 3, 32, 32), torch.tensor([0, 1]), ["a", "b"], torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="train slides with strategy has, adl or classify"):
        build_strategy("cutmix")(net, bags, generator(), 1)
    with pytest.raises(ValueError, match="beta must be positive"):
        build_strategy("cutmix", beta=0.0)
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got -0\.1"):
        build_strategy("cutmix", prob=-0.1)
