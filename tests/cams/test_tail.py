"""Ablation-CAM and Recipro-CAM: written slowly with the whole tail, and in closed form at a GAP head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from wsol.cams import cam, cams
from wsol.models import Features

KERNEL = np.outer([1, 2, 1], [1, 2, 1]) / 16


def tail(net, x, layer):
    """Logits of one changed (c, h, w) at a stage."""
    f = Features((x[None],)) if layer == 2 else net.encode(x[None], start=layer + 1)
    return net.head(f).logits.detach()[0]


def score(net, x, layer, target):
    return float(tail(net, x, layer)[target])


def slow_ablation(net, x, layer, target, baseline):
    m = torch.zeros(x.shape[1:])
    for k in range(len(x)):
        other = x.clone()
        other[k] = 0 if baseline == "zero" else x[k].mean()
        m += (score(net, x, layer, target) - score(net, other, layer, target)) * x[k]
    return m


@pytest.mark.parametrize("baseline", ["zero", "mean"])
@pytest.mark.parametrize("layer", [1, 2])
def test_ablation_channel_by_channel(net, images, targets, layer, baseline):
    m = cam("ablation-cam", net, images, targets, layers=[layer], baseline=baseline, closed_form=False)
    for i, x in enumerate(net.encode(images).stages[layer].detach()):
        torch.testing.assert_close(m[i], slow_ablation(net, x, layer, int(targets[i]), baseline), rtol=1e-3, atol=1e-5)


def test_ablation_at_a_gap_head_in_closed_form(gap_net, images, targets):
    kinds = {"fast": {}, "slow": {"closed_form": False}, "mean": {"baseline": "mean"}}
    d = cams(dict.fromkeys(kinds, "ablation-cam"), gap_net, images, targets, options=kinds)
    a, weight = gap_net.encode(images).last.detach(), gap_net.head.weight.detach()[targets]
    drops = weight * a.mean((2, 3))
    torch.testing.assert_close(d["fast"], torch.einsum("bc,bchw->bhw", drops, a), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(d["slow"], d["fast"], rtol=1e-3, atol=1e-5)
    assert (d["mean"] == 0).all()  # a GAP head sees nothing but the means
    own = gap_net(images).logits.detach().gather(1, targets[:, None])[:, 0] - gap_net.head.bias.detach()[targets]
    torch.testing.assert_close(drops.sum(1), own, rtol=1e-4, atol=1e-5)


def test_relative_ablation_keeps_its_sign_where_the_logit_is_negative(net, images, targets):
    with torch.no_grad():
        net.head.bias -= 20
    logits = net(images).logits.detach().gather(1, targets[:, None])[:, 0]
    assert (logits < 0).all()
    d = cams(
        {"plain": "ablation-cam", "relative": "ablation-cam"}, net, images, targets, options={"relative": {"relative": True}}
    )
    torch.testing.assert_close(d["relative"], d["plain"] / (logits.abs() + 1e-6)[:, None, None])


def test_dead_channels_are_not_run(lse_net, images, targets, monkeypatch):
    f = lse_net.encode(images)
    alive = int((f.last.amax((2, 3)) > 0).sum())
    assert alive < 4 * 16
    seen, forward = [], lse_net.head.forward
    monkeypatch.setattr(lse_net.head, "forward", lambda f: seen.append(len(f.last)) or forward(f))
    cam("ablation-cam", lse_net, None, targets, features=f)
    assert sum(seen) == 4 + alive


def left(x, y, z, mask):
    """What is left of (c, h, w) around the place (y, z)."""
    out = torch.zeros_like(x)
    if mask == "delta":
        out[:, y, z] = x[:, y, z]
        return out
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            if 0 <= y + i < x.shape[1] and 0 <= z + j < x.shape[2]:
                source = x[:, y, z] if mask == "spread" else x[:, y + i, z + j]
                out[:, y + i, z + j] = source * KERNEL[i + 1, j + 1]
    return out


@pytest.mark.parametrize("kind", ["prob", "logit"])
@pytest.mark.parametrize("mask", ["delta", "gaussian", "spread"])
@pytest.mark.parametrize("layer", [1, 2])
def test_recipro_place_by_place(net, images, targets, layer, mask, kind):
    m = cam("recipro-cam", net, images[:2], targets[:2], layers=[layer], mask=mask, score=kind, closed_form=False)
    for i, x in enumerate(net.encode(images[:2]).stages[layer].detach()):
        for y in range(0, x.shape[1], 2):
            for z in range(x.shape[2]):
                logits = tail(net, left(x, y, z, mask), layer)
                expected = (logits.softmax(0) if kind == "prob" else logits)[targets[i]]
                torch.testing.assert_close(m[i, y, z], expected, rtol=1e-4, atol=1e-5)


def test_recipro_at_a_gap_head_is_cam(gap_net, images, targets):
    """The three closed forms of logits: CAM; CAM under the kernel; CAM times the mass of the kernel inside the map."""
    kinds = {mask: {"mask": mask, "score": "logit"} for mask in ("delta", "gaussian", "spread")}
    d = cams({"cam": "cam", **dict.fromkeys(kinds, "recipro-cam")}, gap_net, images, targets, options=kinds)
    bias = gap_net.head.bias.detach()[targets][:, None, None]
    torch.testing.assert_close(d["delta"], d["cam"] / 35 + bias, rtol=1e-4, atol=1e-6)
    blurred = torch.stack(
        [torch.from_numpy(ndimage.convolve(m.numpy(), KERNEL.astype(np.float32), mode="constant")) for m in d["cam"]]
    )
    torch.testing.assert_close(d["gaussian"], blurred / 35 + bias, rtol=1e-4, atol=1e-6)
    mass = torch.ones(5, 7)
    mass[[0, -1]] *= 3 / 4
    mass[:, [0, -1]] *= 3 / 4
    torch.testing.assert_close(d["spread"], mass * d["cam"] / 35 + bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["prob", "logit"])
@pytest.mark.parametrize("mask", ["delta", "gaussian", "spread"])
def test_the_closed_form_of_recipro_is_its_tail(gap_net, images, targets, mask, kind):
    kinds = {"fast": {"mask": mask, "score": kind}, "slow": {"mask": mask, "score": kind, "closed_form": False}}
    d = cams(dict.fromkeys(kinds, "recipro-cam"), gap_net, images, targets, options=kinds)
    torch.testing.assert_close(d["fast"], d["slow"], rtol=1e-4, atol=1e-6)


def test_recipro_of_two_classes_are_complements(images):
    from tests.cams.conftest import tiny

    net = tiny("gap", classes=2)
    first, second = (cam("recipro-cam", net, images, torch.full((4,), c)) for c in (0, 1))
    torch.testing.assert_close(first + second, torch.ones_like(first))


def test_recipro_of_one_logit_is_its_sigmoid(images):
    from tests.cams.conftest import tiny

    net = tiny("lse", classes=1)
    prob, logit = (cam("recipro-cam", net, images, score=kind) for kind in ("prob", "logit"))
    torch.testing.assert_close(prob, functional.sigmoid(logit))
    assert prob.std() > 0


def test_wrong_options_say_what_to_do(net, images):
    with pytest.raises(ValueError, match=r"unknown baseline 'men'; did you mean 'mean'\?"):
        cam("ablation-cam", net, images, baseline="men")
    with pytest.raises(ValueError, match=r"unknown mask 'gauss'; did you mean 'gaussian'\?"):
        cam("recipro-cam", net, images, mask="gauss")
    with pytest.raises(ValueError, match=r"unknown score 'logits'; did you mean 'logit'\?"):
        cam("recipro-cam", net, images, score="logits")
