"""Identities between the methods, captum as oracle, LayerCAM written out slowly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.cams import cam, cams
from wsol.models import Features


def target_logits(net, images, targets):
    return net(images).logits.detach().gather(1, targets[:, None])[:, 0]


def test_at_a_gap_head_three_methods_are_one(gap_net, images, targets):
    d = cams(["cam", "grad-cam", "hirescam"], gap_net, images, targets)
    cells = 5 * 7
    torch.testing.assert_close(d["grad-cam"] * cells, d["cam"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(d["hirescam"] * cells, d["cam"], rtol=1e-4, atol=1e-5)


def test_at_a_gap_head_maps_add_up_to_the_logit(gap_net, images, targets):
    d = cams(["cam", "hirescam"], gap_net, images, targets)
    above_bias = target_logits(gap_net, images, targets) - gap_net.head.bias.detach()[targets]
    torch.testing.assert_close(d["hirescam"].sum((1, 2)), above_bias, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(d["cam"].mean((1, 2)), above_bias, rtol=1e-4, atol=1e-5)


def test_cam_is_the_row_of_its_own_class(net, images, targets):
    f = net.encode(images)
    m = cam("cam", net, images, targets)
    for i, c in enumerate(targets.tolist()):
        slow = sum(net.head.weight[c, k] * f.last[i, k] for k in range(16))
        torch.testing.assert_close(m[i], slow.detach(), rtol=1e-4, atol=1e-5)


def test_cam_raises_its_own_logit(net, images, targets):
    """Alignment by effect: features that follow the map of class c lift logit c, and they lift it most."""
    f = net.encode(images)
    m = cam("cam", net, images, targets)
    planted = f.last.detach().clone()
    planted += 3 * net.head.weight.detach()[targets][:, :, None, None] * (m == m.amax((1, 2), keepdim=True))[:, None]
    gain = (net.head(Features((planted,))).logits - net.head(f).logits).detach()
    assert (gain.argmax(1) == targets).all()


def test_hirescam_is_gradcam_where_the_slope_is_constant(gap_net, lse_net, images, targets):
    d = cams(["grad-cam", "hirescam"], gap_net, images, targets)
    torch.testing.assert_close(d["grad-cam"], d["hirescam"], rtol=1e-4, atol=1e-6)
    e = cams(["grad-cam", "hirescam"], lse_net, images, targets)
    assert not torch.allclose(e["grad-cam"], e["hirescam"], rtol=1e-2)  # and LSE's is not


def test_at_an_lse_head_hirescam_is_the_map_under_its_softmax(lse_net, images, targets):
    d = cams(["cam", "hirescam"], lse_net, images, targets)
    share = torch.softmax(2.0 * d["cam"].flatten(1), 1).reshape(d["cam"].shape)
    torch.testing.assert_close(d["hirescam"], share * d["cam"], rtol=1e-3, atol=1e-5)


def test_layercam_is_at_least_hirescam_and_equal_under_positive_slopes(net, images, targets):
    d = cams(["layer-cam", "hirescam"], net, images, targets)
    assert (d["layer-cam"] >= d["hirescam"] - 1e-6).all()
    with torch.no_grad():
        net.head.weight.abs_()
    d = cams(["layer-cam", "hirescam"], net, images, targets)
    torch.testing.assert_close(d["layer-cam"], d["hirescam"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_captum_and_plain_autograd_agree(net, images, targets, layer):
    attr = pytest.importorskip("captum.attr")

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(_Stage(net.backbone, i) for i in range(3))
            self.head = net.head

        def forward(self, x):
            x = net.backbone.normalize(x)
            for stage in self.layers:
                x = stage(x)
            return self.head(Features((x,))).logits

    whole = Whole().eval()
    signed = attr.LayerGradCam(whole, whole.layers[layer]).attribute(images, targets, relu_attributions=False).detach()[:, 0]
    torch.testing.assert_close(cam("grad-cam", net, images, targets, layers=[layer]), signed, rtol=1e-4, atol=1e-6)
    product = attr.LayerGradientXActivation(whole, whole.layers[layer]).attribute(images, targets).detach().sum(1)
    torch.testing.assert_close(cam("hirescam", net, images, targets, layers=[layer]), product, rtol=1e-4, atol=1e-6)


class _Stage(nn.Module):
    def __init__(self, backbone, number):
        super().__init__()
        self.backbone, self.number = backbone, number

    def forward(self, x):
        return self.backbone.stage(self.number, x)


def slow_layercam(net, image, target, layer):
    """One image, one layer, cell by cell; the slope by a graph through the whole net."""
    stages = []
    x = net.backbone.normalize(image[None])
    for i in range(3):
        x = net.backbone.stage(i, x)
        x.retain_grad()
        stages.append(x)
    before = [p.grad for p in net.parameters()]
    net.head(Features((x,))).logits[0, target].backward()
    for p, grad in zip(net.parameters(), before, strict=True):
        p.grad = grad
    a, g = stages[layer].detach()[0], stages[layer].grad[0]
    m = torch.zeros(a.shape[1:])
    for k in range(a.shape[0]):
        for y in range(a.shape[1]):
            for z in range(a.shape[2]):
                m[y, z] += max(float(g[k, y, z]), 0.0) * a[k, y, z]
    return m


@pytest.mark.parametrize("layer", [1, 2])
def test_layercam_against_the_slow_one(net, images, targets, layer):
    m = cam("layer-cam", net, images[:2], targets[:2], layers=[layer])
    for i in range(2):
        torch.testing.assert_close(m[i], slow_layercam(net, images[i], targets[i], layer), rtol=1e-4, atol=1e-6)


def test_fused_layercam_is_the_largest_of_its_scaled_layers(net, images, targets):
    fused = cam("layer-cam", net, images, targets, layers=[0, -1], gamma=3.0)
    slow = []
    for layer in (0, 2):
        m = cam("layer-cam", net, images, targets, layers=[layer]).clamp(min=0)
        m = torch.stack([torch.tanh(3.0 * one / one.max()) for one in m])
        slow.append(functional.interpolate(m[:, None], (20, 28), mode="bilinear", align_corners=False)[:, 0])
    torch.testing.assert_close(fused, torch.maximum(*slow), rtol=1e-4, atol=1e-6)


def test_no_positive_evidence_is_a_map_of_zeros(gap_net, images, targets):
    with torch.no_grad():
        gap_net.head.weight.abs_().neg_()
    assert (cam("grad-cam", gap_net, images, targets) <= 0).all()
    assert (cam("layer-cam", gap_net, images, targets) == 0).all()
    assert (cam("layer-cam", gap_net, images, targets, layers=[-1, 0]) >= 0).all()
    with torch.no_grad():
        gap_net.head.weight.zero_()  # a dead head has nothing to say, and says it without NaN
    for m in cams(["cam", "grad-cam", "hirescam", "layer-cam"], gap_net, images, targets).values():
        assert (m == 0).all()
    assert (cam("layer-cam", gap_net, images, targets, layers=[-1, 0]) == 0).all()


def test_maps_ignore_the_bias_and_scale_with_the_weights(net, images, targets):
    names = ["cam", "grad-cam", "hirescam", "layer-cam"]
    before = cams(names, net, images, targets)
    with torch.no_grad():
        net.head.bias += 10
    after = cams(names, net, images, targets)
    for name in names:
        torch.testing.assert_close(before[name], after[name])
