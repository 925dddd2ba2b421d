from __future__ import annotations

import pytest
import torch
from torch import nn

from wsol.training.optimizer import build_optimizer, load_optimizer, optimizer_tensors, set_rate


def settings(**other):
    return {"lr": 1e-3, "head_lr_factor": 10.0, "weight_decay": 0.1, **other}


def test_every_parameter_stands_in_the_right_group(toy):
    net, strategy = toy.Net(), nn.Linear(2, 2)
    optimizer = build_optimizer(net, strategy, **settings())
    where = {id(p): (g["peak_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(where) == len(list(net.parameters())) + 2
    assert where[id(net.backbone[0].weight)] == (1e-3, 0.1)
    assert where[id(net.backbone[0].bias)] == (1e-3, 0)
    assert where[id(net.backbone[1].weight)] == (1e-3, 0)  # a norm's scale
    assert where[id(net.head.linear.weight)] == (1e-2, 0.1)
    assert where[id(net.head.linear.bias)] == (1e-2, 0)
    assert where[id(strategy.weight)] == (1e-2, 0.1)


def test_frozen_parameters_and_a_strategy_that_holds_the_net(toy):
    net = toy.Net()
    net.backbone.requires_grad_(False)
    holder = nn.Module()
    holder.net = net
    optimizer = build_optimizer(net, holder, **settings())
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in net.head.parameters()}
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(net, nn.Module(), **settings())
    with pytest.raises(ValueError, match="lr must be positive"):
        build_optimizer(net, nn.Module(), **settings(lr=0))


def test_moments_come_back_in_value_and_layout(toy):
    def stepped(net, optimizer, times):
        for i in range(times):
            set_rate(optimizer, 0.5)
            optimizer.zero_grad()
            net(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(i))).logits.square().sum().backward()
            optimizer.step()

    net = toy.Net().eval().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(net, nn.Module(), **settings())
    stepped(net, optimizer, 2)
    other = toy.Net().eval().to(memory_format=torch.channels_last)
    other.load_state_dict(net.state_dict())
    fresh = build_optimizer(other, nn.Module(), **settings())
    load_optimizer(fresh, {k: v.clone(memory_format=torch.contiguous_format) for k, v in optimizer_tensors(optimizer).items()})
    moment = fresh.state[other.backbone[0].weight]["exp_avg"]
    assert moment.is_contiguous(memory_format=torch.channels_last)
    stepped(net, optimizer, 3)
    stepped(other, fresh, 3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
