"""Grad-CAM++, its smooth kin, XGrad-CAM, counterfactual and guided Grad-CAM: authors' formulas, captum, identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.cams import cam, cams
from wsol.models import Features, Localizer


def pieces(net, images, targets, layer):
    """Features and slopes by a graph through the whole net, float64 numpy, image by image."""
    found = []
    for image, target in zip(images, targets.tolist(), strict=True):
        x = net.backbone.normalize(image[None])
        stages = []
        for i in range(3):
            x = net.backbone.stage(i, x)
            stages.append(x)
        (slope,) = torch.autograd.grad(net.head(Features((x,))).logits[0, target], stages[layer])
        found.append((stages[layer].detach()[0].double().numpy(), slope[0].double().numpy()))
    return found


def signed(net):
    """The net without its last ReLU: features of either sign."""
    stage = net.backbone.stage
    net.backbone.stage = lambda i, x: net.backbone.norms[i](net.backbone.convs[i](x)) if i == 2 else stage(i, x)
    return net


def authors_plus_plus(features, g, normalize, first=None, second=None, third=None):
    """The released code of Grad-CAM++, channel by channel (its common factor exp(logit) left out)."""
    m = np.zeros(features.shape[1:])
    first, second, third = (d if d is not None else g**i for i, d in enumerate((first, second, third), start=1))
    for k in range(len(features)):
        below = 2 * second[k] + features[k].sum() * third[k]
        alpha = second[k] / np.where(below != 0, below, 1)
        weight = np.maximum(first[k], 0)
        if normalize:
            total = np.where(weight != 0, alpha, 0).sum()
            alpha = alpha / (total if total != 0 else 1)
        m += (alpha * weight).sum() * features[k]
    return m


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("layer", [1, 2])
def test_plus_plus_is_the_authors_formula(net, images, targets, layer, normalize):
    m = cam("grad-cam++", net, images, targets, layers=[layer], normalize_alpha=normalize)
    for found, (a, g) in zip(m, pieces(net, images, targets, layer), strict=True):
        np.testing.assert_allclose(found.numpy(), authors_plus_plus(a, g, normalize), rtol=1e-3, atol=1e-6)


def test_plus_plus_of_signed_features(net, images, targets):
    signed(net)
    m = cam("grad-cam++", net, images, targets)
    for found, (a, g) in zip(m, pieces(net, images, targets, 2), strict=True):
        np.testing.assert_allclose(found.numpy(), authors_plus_plus(a, g, False), rtol=1e-3, atol=1e-5)


def test_plus_plus_at_a_gap_head_in_closed_form(gap_net, images, targets):
    m = cam("grad-cam++", gap_net, images, targets)
    a = gap_net.encode(images).last.detach()
    g = gap_net.head.weight.detach()[targets] / 35
    weights = 35 * g.relu() / (2 + g * a.sum((2, 3)))
    torch.testing.assert_close(m, torch.einsum("bc,bchw->bhw", weights, a), rtol=1e-4, atol=1e-6)


def test_plus_plus_does_not_underflow(gap_net, images, targets):
    """g^3 of slopes near 1e-17 is 0 in float32; the ratio is 1/2 there."""
    with torch.no_grad():
        gap_net.head.weight.mul_(1e-15)
    a, weight = gap_net.encode(images).last.detach(), gap_net.head.weight.detach()[targets].relu()
    expected = torch.einsum("bc,bchw->bhw", weight / 2, a)
    torch.testing.assert_close(cam("grad-cam++", gap_net, images, targets), expected, rtol=1e-4, atol=0)


def test_smooth_plus_plus_without_noise_is_plus_plus(net, images, targets):
    for normalize in (False, True):
        plain = cam("grad-cam++", net, images, targets, normalize_alpha=normalize)
        smooth = cam("smooth-grad-cam++", net, images, targets, n=3, level=0, normalize_alpha=normalize)
        torch.testing.assert_close(smooth, plain, rtol=1e-4, atol=1e-7)


def test_smooth_plus_plus_written_slowly(net, images, targets):
    """The same noise: moments over all copies, the clean features."""
    m = cam("smooth-grad-cam++", net, images, targets, n=4, level=0.3, layers=[1], generator=torch.Generator().manual_seed(9))
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(9)))
    draw = torch.Generator().manual_seed(seed)
    noise = [torch.randn(3, 40, 56, generator=draw) for _ in range(4)]
    clean = pieces(net, images, targets, 1)
    for i in range(len(images)):
        spread = 0.3 * (images[i].max() - images[i].min())
        noisy = torch.stack([images[i] + spread * eps for eps in noise])
        slopes = [g for _, g in pieces(net, noisy, targets[[i] * 4], 1)]
        moments = [np.mean([g**power for g in slopes], axis=0) for power in (1, 2, 3)]
        np.testing.assert_allclose(m[i].numpy(), authors_plus_plus(clean[i][0], None, False, *moments), rtol=1e-3, atol=1e-6)


def test_xgrad_is_the_authors_formula(net, images, targets):
    for layer in (1, 2):
        m = cam("xgrad-cam", net, images, targets, layers=[layer])
        for found, (a, g) in zip(m, pieces(net, images, targets, layer), strict=True):
            slow = sum((g[k] * a[k]).sum() / (a[k].sum() + 1e-6) * a[k] for k in range(len(a)))
            np.testing.assert_allclose(found.numpy(), slow, rtol=1e-3, atol=1e-5)


def test_xgrad_adds_up_to_hirescam_at_any_head_and_is_gradcam_at_gap(net, images, targets):
    for layer in (0, 1, 2):
        d = cams(
            ["xgrad-cam", "hirescam", "grad-cam"],
            net,
            images,
            targets,
            options={m: {"layers": [layer]} for m in ("xgrad-cam", "hirescam")},
        )
        torch.testing.assert_close(d["xgrad-cam"].sum((1, 2)), d["hirescam"].sum((1, 2)), rtol=1e-3, atol=1e-5)
    if type(net.head).__name__ == "Gap":
        torch.testing.assert_close(d["xgrad-cam"], d["grad-cam"], rtol=1e-3, atol=1e-6)


def test_a_channel_that_cancels_weighs_nothing_in_xgrad(gap_net):
    a = torch.zeros(1, 16, 1, 4)
    a[0, 0] = torch.tensor([5.0, -5.0, 3.0, -3.0])
    a[0, 1] = torch.tensor([1.0, 2.0, 0.0, 1.0])
    m = cam("xgrad-cam", gap_net, None, torch.tensor([1]), features=Features((a,)))
    torch.testing.assert_close(m[0], gap_net.head.weight[1, 1].detach() / 4 * a[0, 1], rtol=1e-5, atol=1e-6)


def test_the_counterfactual_is_the_opposite(net, images, targets):
    d = cams({"for": "grad-cam", "against": "grad-cam"}, net, images, targets, options={"against": {"counterfactual": True}})
    assert torch.equal(d["against"], -d["for"])


def test_hirescam_adds_up_to_the_logit_of_a_perceptron(gap_net, images, targets):
    """Completeness at a ReLU head: logit = sum g A + sum over its biases of bias * d logit / d bias."""

    class Perceptron(nn.Module):
        def __init__(self, bias):
            super().__init__()
            torch.manual_seed(2)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(560, 9, bias), nn.ReLU(), nn.Linear(9, 3, bias))

        def forward(self, f, groups=None, labels=None):
            from wsol.models import Prediction

            return Prediction(self.layers(f.last))

    for bias in (False, True):
        net = Localizer(gap_net.backbone, Perceptron(bias)).eval()
        score = net(images).logits.gather(1, targets[:, None])[:, 0]
        biases = [p for name, p in net.head.named_parameters() if name.endswith("bias")]
        of_biases = torch.zeros(4)
        for i in range(4 if bias else 0):
            slopes = torch.autograd.grad(score[i], biases, retain_graph=True)
            of_biases[i] = sum((p * g).sum() for p, g in zip(biases, slopes, strict=True)).detach()
        m = cam("hirescam", net, images, targets)
        torch.testing.assert_close(m.sum((1, 2)), score.detach() - of_biases, rtol=1e-4, atol=1e-5)


class Modular(nn.Module):
    """The tiny net, ReLUs as modules: captum rewires modules only."""

    def __init__(self, net, relu):
        super().__init__()
        self.net = net
        self.relus = nn.ModuleList(relu() for _ in range(3))

    def forward(self, x):
        x = self.net.backbone.normalize(x)
        for conv, norm, relu in zip(self.net.backbone.convs, self.net.backbone.norms, self.relus, strict=True):
            x = relu(norm(conv(x)))
        return self.net.head(Features((x,))).logits


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
def test_guided_gradcam_is_captums(net, images, targets):
    attr = pytest.importorskip("captum.attr")
    whole = Modular(net, nn.ReLU).eval()
    leaf = images.clone().requires_grad_(True)
    by_color = attr.GuidedGradCam(whole, whole.relus[2]).attribute(leaf, targets, interpolate_mode="bilinear").detach()
    m = cam("guided-grad-cam", net, images, targets)
    assert m.abs().max() > 0
    torch.testing.assert_close(m, by_color.sum(1), rtol=1e-3, atol=1e-4 * float(m.abs().max()))


def test_guided_gradcam_draws_where_gradcam_looks(net, images, targets):
    d = cams(["guided-grad-cam", "grad-cam"], net, images, targets)
    where = functional.interpolate(d["grad-cam"].relu()[:, None], (40, 56), mode="bilinear")[:, 0]
    assert (where == 0).any()
    assert (d["guided-grad-cam"][where == 0] == 0).all()
