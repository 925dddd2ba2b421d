"""The laws of encode and head, on the real backbone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from wsol.models import BACKBONES, HEADS, Localizer, build_localizer


def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, wsol.models; assert wsol.models.HEADS;"
        "print([m for m in ('torch', 'monai', 'safetensors', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_lite0_does_not_import_monai():
    code = (
        "import sys; from wsol.models import build_localizer; build_localizer('efficientnet_lite0', 'gap', 2, weights=None);"
        "print('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_forward_is_head_of_encode(imagenet_lite0: Localizer, images):
    with torch.no_grad():
        whole, parts = imagenet_lite0(images), imagenet_lite0.head(imagenet_lite0.encode(images))
    assert torch.equal(whole.logits, parts.logits)
    assert torch.equal(whole.maps, parts.maps)
    assert whole.pixels is None


def test_stages_have_the_announced_channels_and_strides(imagenet_lite0: Localizer, images):
    with torch.no_grad():
        f = imagenet_lite0.encode(images)
    b = imagenet_lite0.backbone
    for stage, channels, stride in zip(f.stages, b.channels, b.strides, strict=True):
        assert stage.shape == (2, channels, -(-70 // stride), -(-97 // stride))
    assert f.last is f.stages[-1]
    assert f.last.min() >= 0


@pytest.mark.parametrize("leaf", [0, 2, 4, -1])
def test_leaf_has_a_graph_above_and_none_below(imagenet_lite0: Localizer, images, leaf):
    f = imagenet_lite0.encode(images, leaf=leaf)
    at = leaf % len(f.stages)
    assert not any(s.requires_grad for s in f.stages[:at])
    assert f.stages[at].is_leaf
    assert f.stages[at].requires_grad
    (slope,) = torch.autograd.grad(imagenet_lite0.head(f).logits.sum(), f.stages[at])
    assert slope.shape == f.stages[at].shape
    assert slope.abs().sum() > 0
    with torch.no_grad():
        plain = imagenet_lite0.encode(images)
    assert all(torch.equal(a, b) for a, b in zip(f.stages, plain.stages, strict=True))


@pytest.mark.parametrize("start", [1, 3, 4])
def test_resuming_gives_the_same_stages(imagenet_lite0: Localizer, images, start):
    with torch.no_grad():
        whole = imagenet_lite0.encode(images)
        rest = imagenet_lite0.encode(whole.stages[start - 1], start=start)
    assert len(rest.stages) == len(whole.stages) - start
    assert all(torch.equal(a, b) for a, b in zip(rest.stages, whole.stages[start:], strict=True))


def test_wrong_input_is_refused(imagenet_lite0: Localizer, images):
    with pytest.raises(TypeError, match="divide by 255"):
        imagenet_lite0.encode((images * 255).byte())
    with pytest.raises(ValueError, match=r"\(b, 3, h, w\)"):
        imagenet_lite0.encode(images[0])
    with pytest.raises(ValueError, match="output of stage 1"):
        imagenet_lite0.encode(images, start=2)
    with pytest.raises(ValueError, match=r"start must be a stage in 0\.\.4; got 5"):
        imagenet_lite0.encode(images, start=5)
    with pytest.raises(ValueError, match="no stage 5"):
        imagenet_lite0.encode(images, leaf=5)
    with pytest.raises(ValueError, match="leaf stage 0 lies below"):
        imagenet_lite0.encode(torch.rand(1, 16, 8, 8), leaf=0, start=1)


def test_bfloat16_and_channels_last(images):
    net = build_localizer("efficientnet_lite0", "lse", 2, output_stride=16)
    net = net.to(memory_format=torch.channels_last)
    x = images.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        f = net.encode(x)
        p = net.head(f)
    assert f.last.dtype == torch.bfloat16
    assert all(s.is_contiguous(memory_format=torch.channels_last) for s in f.stages)  # nothing falls back on the slow layout
    assert p.logits.dtype == p.maps.dtype == torch.float32
    p.logits.sum().backward()
    assert all(q.grad is not None and torch.isfinite(q.grad).all() for q in net.parameters())
    with torch.no_grad():
        exact = net.eval()(x).maps
    assert torch.nn.functional.cosine_similarity(exact.flatten(), p.maps.detach().flatten(), dim=0) > 0.99


def test_frozen_batch_norm_keeps_its_statistics(images):
    def stats(net):
        return torch.cat([b.flatten().float() for name, b in net.named_buffers() if "running" in name])

    for freeze in (True, False):
        net = build_localizer("efficientnet_lite0", "gap", 2, weights=None, freeze_bn=freeze)
        before = stats(net).clone()
        for part in (net, net.backbone):  # training either way must not thaw it
            part.train()
            net(images)
        assert torch.equal(before, stats(net)) == freeze
        assert net.training
        assert all(p.requires_grad for p in net.parameters())


def test_describe_is_json_ready(imagenet_lite0: Localizer):
    import json

    told = json.loads(json.dumps(imagenet_lite0.describe()))
    assert told["backbone"] == "efficientnet_lite0"
    assert told["stages"][-1] == {"channels": 1280, "stride": 32}
    assert told["parameters"] == sum(p.numel() for p in imagenet_lite0.parameters())


def test_parameter_groups_cover_the_net(imagenet_lite0: Localizer):
    groups = {*imagenet_lite0.head.parameters(), *imagenet_lite0.backbone.parameters()}
    assert groups == set(imagenet_lite0.parameters())


def test_tables_name_classes_with_a_paper():
    from wsol._names import resolve

    for table in (BACKBONES, HEADS):
        for name in table:
            assert resolve("name", name, table, "wsol.models").paper
