"""The mask of a trained head as a method."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsol.cams import cam, cams
from wsol.models import Features, Localizer, build_localizer, from_module


def test_it_is_the_heads_mask(masking_net, images, targets):
    f = masking_net.encode(images)
    assert torch.equal(cam("masker", masking_net, images, targets), masking_net.head.mask(f, targets).detach())
    fuller = cam("masker", masking_net, images, targets, confidence=0.0)
    assert torch.equal(fuller, masking_net.head.mask(f, targets, 0.0).detach())
    assert not torch.allclose(fuller, cam("masker", masking_net, images, targets))
    assert fuller.min() >= 0
    assert fuller.max() <= 1


def test_it_costs_one_encode_and_one_decode_beside_the_others(masking_net, images, targets, monkeypatch):
    calls = {"encode": 0, "mask": 0, "grad": 0}

    def counted(name, function):
        def inner(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return inner

    alone = cam("masker", masking_net, images, targets)
    monkeypatch.setattr(torch.autograd, "grad", counted("grad", torch.autograd.grad))
    monkeypatch.setattr(Localizer, "encode", counted("encode", Localizer.encode))
    monkeypatch.setattr(type(masking_net.head), "mask", counted("mask", type(masking_net.head).mask))
    assert torch.equal(cam("masker", masking_net, images, targets), alone)
    assert calls == {"encode": 1, "mask": 1, "grad": 0}
    together = cams(["masker", "cam", "native", "grad-cam"], masking_net, images, targets)
    assert calls == {"encode": 2, "mask": 2, "grad": 1}
    torch.testing.assert_close(together["masker"], alone)


def test_the_other_methods_draw_the_base(masking_net, images, targets):
    plain = Localizer(masking_net.backbone, masking_net.head.base).eval()
    names = ["cam", "native", "grad-cam", "hirescam", "ablation-cam", "recipro-cam"]
    ours, theirs = (cams(names, n, images, targets) for n in (masking_net, plain))
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name])


def test_wrappers_average_masks(masking_net, images, targets):
    drawn = cam("tta", masking_net, images, targets, base="masker", moves="flip")
    mirrored = cam("masker", masking_net, images.flip(-1), targets).flip(-1)
    torch.testing.assert_close(drawn, (cam("masker", masking_net, images, targets) + mirrored) / 2)


def test_channels_last_changes_nothing():
    net = build_localizer("efficientnet_lite0", "masker", 2, weights=None, output_stride=16).eval()
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    plain = cam("masker", net, x, confidence=0.0)
    fast = cam("masker", net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), confidence=0.0)
    assert plain.shape == (2, 16, 24)
    torch.testing.assert_close(fast, plain, rtol=0, atol=2e-3)


def test_a_head_that_draws_no_masks_is_refused(gap_net, masking_net, images, targets):
    with pytest.raises(ValueError, match=r"needs a net that was trained with head 'masker'.*Gap draws no masks.*'grad-cam'"):
        cam("masker", gap_net, images, targets)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    with pytest.raises(ValueError, match="draws no masks"):
        cam("masker", from_module(module, "1", size=(40, 56)), images, targets)
    f = masking_net.encode(images)
    with pytest.raises(ValueError, match="reads the last 2 stages; the features hold 1"):
        cam("masker", masking_net, None, targets, features=Features(f.stages[-1:]))
