"""Tiles that inherit the label of their slide, against per-tile cross-entropy worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from wsol.data import Batch
from wsol.models.heads.attention import AttentionMil
from wsol.training import INHERITED, STRATEGIES, build_strategy

GROUPS = torch.tensor([1, 0, 0, 1, 0, 1])


def generator():
    return torch.Generator().manual_seed(0)


def bags(labels=(0, 1), groups=GROUPS):
    return Batch(torch.rand(6, 3, 16, 16, generator=generator()), torch.tensor(labels), ["a", "b"], groups)


def test_each_tile_learns_the_label_of_its_slide(toy):
    net, batch = toy.localizer(), bags()
    found = build_strategy("inherit", class_weights=[0.5, 2.0])(net, batch, generator(), 1)["cross_entropy"]
    total = 0.0
    for image, bag in zip(batch.images, GROUPS.tolist(), strict=True):
        z = net(image[None]).logits[0].double().tolist()
        total += [0.5, 2.0][bag] * (math.log(sum(math.exp(v) for v in z)) - z[bag])
    assert found.item() == pytest.approx(total / 6, 1e-5)


def test_it_is_classify_on_tiles_as_images_and_not_on_bags(toy):
    net, batch = toy.localizer(), bags()
    alone = Batch(batch.images, batch.labels[GROUPS], list("abcdef"))
    inherit, classify = build_strategy("inherit"), build_strategy("classify")
    loss = inherit(net, batch, generator(), 1)["cross_entropy"]
    assert torch.equal(loss, classify(net, alone, generator(), 1)["cross_entropy"])
    assert torch.equal(loss, inherit(net, alone, generator(), 1)["cross_entropy"])
    assert abs(loss.item() - classify(net, batch, generator(), 1)["cross_entropy"].item()) > 1e-4


def test_a_positive_slide_with_normal_tiles_is_asked_for_the_impossible(toy):
    """Equal tiles in slides of both labels: no net does better than log 2, where a bag can hold the lesion in one other tile."""
    net, batch = toy.localizer(), bags()
    same = Batch(batch.images[:1].expand(6, -1, -1, -1), batch.labels, batch.samples, batch.groups)
    logit = (net(same.images[:1]).logits[0] * torch.tensor([-1.0, 1.0])).sum()
    expected = (functional.softplus(logit) + functional.softplus(-logit)) / 2
    loss = build_strategy("inherit")(net, same, generator(), 1)["cross_entropy"]
    assert loss.item() == pytest.approx(expected.item(), 1e-5)
    assert loss.item() >= math.log(2)


def test_attention_over_tiles_is_not_taught(toy):
    net = toy.localizer()
    net.head = AttentionMil(8, 2, width=4)
    build_strategy("inherit")(net, bags(), generator(), 1)["cross_entropy"].backward()
    assert all(p.grad is None for p in net.head.attention.parameters())
    assert net.head.weight.grad.abs().sum() > 0


def test_the_face_tells_who_inherits():
    assert [name for name in STRATEGIES if name in INHERITED] == ["inherit"]
