from __future__ import annotations

import pytest
import torch

from wsol.training import STRATEGIES, Strategy, build_strategy, cross_entropy


def generator():
    return torch.Generator().manual_seed(0)


OWN_HEAD = ("masker", "negev", "pixelcam", "f-cam", "unet", "readout")
"""Strategies that train a head of their own kind and refuse others: their files have the laws."""


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n not in OWN_HEAD])
def test_laws_of_every_strategy(name, toy):
    strategy, net = build_strategy(name), toy.localizer()
    strategy.attach(net)
    batch = toy.batches(1, generator())[0]
    first, second = (strategy(net, batch, generator(), 1) for _ in range(2))
    assert isinstance(strategy, Strategy)
    assert strategy.paper
    assert all(value.shape == () and value.isfinite() for value in first.values())
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}
    sum(first.values()).backward()
    assert all(p.grad is not None for p in net.head.parameters())


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n == "classify"])
def test_classify_is_cross_entropy(name, toy):
    net, batch = toy.Net().eval(), toy.batches(1, generator())[0]
    strategy = build_strategy(name, label_smoothing=0.2, class_weights=[1.0, 3.0])
    expected = cross_entropy(net(batch.images).logits, batch.labels, label_smoothing=0.2, class_weights=[1.0, 3.0])
    assert strategy(net, batch, generator(), 1)["cross_entropy"].item() == pytest.approx(expected.item())


def test_bags_have_one_label_each(toy):
    net, images = toy.Net().eval(), torch.rand(6, 3, 16, 16, generator=generator())
    groups = torch.tensor([0, 0, 1, 1, 1, 1])
    bags = toy.Batch(images, torch.tensor([0, 1]), ["a", "b"], groups)
    strategy = build_strategy("classify")
    tiles = net(images).logits
    expected = cross_entropy(torch.stack([tiles[:2].mean(0), tiles[2:].mean(0)]), bags.labels)
    assert strategy(net, bags, generator(), 1)["cross_entropy"].item() == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="one per image or per bag"):
        strategy(net, toy.Batch(images, torch.tensor([0, 1, 0, 1, 1, 1]), ["a"] * 6, groups), generator(), 1)
    alone = toy.Batch(images, torch.tensor([0, 1, 0, 1, 1, 1]), list("abcdef"))
    ones = toy.Batch(images, alone.labels, list("abcdef"), torch.arange(6))  # a bag of one is an image
    assert (
        strategy(net, ones, generator(), 1)["cross_entropy"].item()
        == strategy(net, alone, generator(), 1)["cross_entropy"].item()
    )


def test_masks_only_where_declared(toy):
    class WithMasks(Strategy):
        supervision = "masks"

    net, plain = toy.Net().eval(), toy.batches(1, generator())[0]
    masked = toy.MaskedBatch(plain.images, plain.labels, plain.samples, None, torch.zeros(8, 16, 16, dtype=torch.bool))
    with pytest.raises(TypeError, match="handed a MaskedBatch with masks"):
        build_strategy("classify")(net, masked, generator(), 1)
    with pytest.raises(TypeError, match="trains on masks"):
        WithMasks()(net, plain, generator(), 1)
    assert WithMasks()(net, masked, generator(), 1)


def test_losses_must_be_scalars(toy):
    class Broken(Strategy):
        def loss(self, net, batch, generator, epoch):
            return {"a": torch.zeros(3)}

    with pytest.raises(ValueError, match="at least one scalar"):
        Broken()(toy.Net(), toy.batches(1, generator())[0], generator(), 1)


def test_names_and_options():
    with pytest.raises(ValueError, match="unknown strategy 'clasify'; did you mean 'classify'"):
        build_strategy("clasify")
    with pytest.raises(TypeError, match="did you mean 'label_smoothing'"):
        build_strategy("classify", label_smothing=0.1)
    assert build_strategy("classify", label_smoothing=0.1).settings() == {"name": "Classify", "label_smoothing": 0.1}
