"""TS-CAM: logits are means of a convolution of the tokens, maps that convolution times the attention of the class token."""

from __future__ import annotations

import pytest
import torch

from wsol.cams import cam
from wsol.models import Features, build_localizer
from wsol.models.heads.ts_cam import TsCam


def features(b=2, c=4, blocks=3, h=3, w=5, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    attention = torch.rand(b, blocks, h, w, generator=draw, dtype=dtype)
    return Features((torch.randn(b, c, h, w, generator=draw, dtype=dtype),), {"attention": attention})


def head(**options):
    made = TsCam(4, 3, **options).eval()
    torch.nn.init.normal_(made.weight, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(made.bias, generator=torch.Generator().manual_seed(2))
    return made


def slow_semantic(net, x):
    """The convolution of one image (c, h, w), cell by cell, zeros outside; with bias."""
    channels, height, width = x.shape
    out = torch.zeros(len(net.bias), height, width)
    for k in range(len(net.bias)):
        for i in range(height):
            for j in range(width):
                total = net.bias[k].item()
                for di in (-1, 0, 1):
                    for dj in (-1, 0, 1):
                        if 0 <= i + di < height and 0 <= j + dj < width:
                            weights = net.weight[k, :, di + 1, dj + 1].tolist()
                            total += sum(weights[c] * x[c, i + di, j + dj].item() for c in range(channels))
                out[k, i, j] = total
    return out


@pytest.mark.parametrize(("blocks", "share"), [("mean", 1 / 3), ("sum", 1.0)])
def test_logits_and_maps_of_the_slow_reference(blocks, share):
    f, net = features(), head(blocks=blocks)
    p = net(f)
    for i in range(2):
        semantic = slow_semantic(net, f.last[i])
        seen = sum(f.extra["attention"][i, b] * share for b in range(3))
        torch.testing.assert_close(p.logits[i], semantic.mean((1, 2)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(p.maps[i], semantic * seen, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.logits(f), p.logits)
    torch.testing.assert_close(net.class_maps(f).mean((2, 3)) + net.bias, p.logits)


def test_on_a_transformer_attention_and_tokens_meet():
    net = build_localizer("vit_tiny", "ts-cam", 2, weights=None, output_stride=16).eval()
    images, targets = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0])
    with torch.no_grad():
        f = net.encode(images)
        said, semantic = net(images), net.head.class_maps(f)
    rows = torch.arange(2)
    assert f.extra["attention"].shape == (2, 12, 4, 3)
    torch.testing.assert_close(said.maps, f.extra["attention"].mean(1, keepdim=True) * semantic)  # the bias starts at 0
    assert torch.equal(cam("native", net, images, targets), said.maps[rows, targets])
    torch.testing.assert_close(cam("cam", net, images, targets), semantic[rows, targets])
    given = cam("native", net, None, targets, features=f)
    assert torch.equal(given, said.maps[rows, targets])


def test_changed_tokens_are_classified_without_attention():
    """The tail of the map methods knows of no attention, and the logits need none."""
    net, f = head(), features()
    with pytest.raises(ValueError, match=r"needs features with the attention.*'vit_tiny'"):
        net(Features(f.stages))
    assert torch.equal(net.logits(Features(f.stages)), net.logits(f))
    convolutional = build_localizer("efficientnet_lite0", "ts-cam", 2, weights=None)
    with pytest.raises(ValueError, match="take a transformer backbone"):
        convolutional(torch.rand(1, 3, 64, 64))


def test_half_precision_float64_and_bags():
    f, net = features(), head()
    half = Features((f.last.bfloat16(),), {"attention": f.extra["attention"].bfloat16()})
    exact = Features((half.last.float(),), {"attention": half.extra["attention"].float()})
    with torch.autocast("cpu", torch.bfloat16):
        p = net(half)
    assert torch.equal(p.maps, net(exact).maps)
    assert torch.equal(p.logits, net(exact).logits)
    double = net(Features((f.last.double(),), {"attention": f.extra["attention"].double()}))
    torch.testing.assert_close(double.maps.float(), net(f).maps)
    assert double.logits.dtype == torch.float64
    bag = net(f, groups=torch.tensor([0, 0]))
    torch.testing.assert_close(bag.logits[0], net(f).logits.amax(0))  # the top one of two tiles, at bag_top 0.25
    assert torch.equal(bag.maps, net(f).maps)


def test_unknown_ways_to_join_blocks_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        head(blocks="means")
