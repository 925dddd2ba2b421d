"""A part whose parameters are all frozen stays as it was found, whatever `train()` says."""

from __future__ import annotations

import torch

from wsol.models import build_localizer


def test_a_frozen_part_stays_in_evaluation_mode():
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None, freeze_bn=False, head_options={"dropout": 0.9})
    net.head.requires_grad_(False)
    net.train()
    assert not net.head.training
    assert net.backbone.training
    f = net.encode(torch.rand(1, 3, 64, 64))
    assert torch.equal(net.head(f).logits, net.head(f).logits)  # no dropout in a frozen head


def test_a_frozen_backbone_keeps_its_statistics():
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None, freeze_bn=False)
    net.backbone.requires_grad_(False)
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    net.train()
    net(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in net.backbone.state_dict().items())
    assert net.head.training
