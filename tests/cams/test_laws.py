"""Laws that hold for every method of the table, in a loop over the table."""

from __future__ import annotations

import copy

import pytest
import torch

from wsol._names import resolve
from wsol.cams import METHODS, cam, cams
from wsol.models import Features, build_localizer

every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_maps_are_raw_float32_at_feature_resolution(method, net, images, targets):
    m = cam(method, net, images, targets)
    assert m.shape == (4, 5, 7)
    assert m.dtype == torch.float32
    assert not m.requires_grad
    assert torch.isfinite(m).all()
    assert m.std() > 0


@every_method
def test_a_batch_is_its_images_one_by_one(method, net, images, targets):
    whole = cam(method, net, images, targets)
    for i in range(len(images)):
        torch.testing.assert_close(whole[i], cam(method, net, images[i : i + 1], targets[i : i + 1])[0], rtol=1e-4, atol=1e-5)


@every_method
def test_the_class_matters_and_none_is_the_predicted_one(method, net, images):
    predicted = net(images).logits.argmax(1)
    assert torch.equal(cam(method, net, images), cam(method, net, images, predicted))
    assert not torch.equal(cam(method, net, images), cam(method, net, images, (predicted + 1) % 3))


@every_method
def test_nothing_of_the_net_is_touched(method, net, images, targets):
    for p in net.parameters():
        p.grad = torch.full_like(p, 7.0)
    state = copy.deepcopy(net.state_dict())
    flags = [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in net.modules()]
    needs = [p.requires_grad for p in net.parameters()]
    cam(method, net, images, targets)
    assert all((p.grad == 7).all() for p in net.parameters())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert flags == [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in net.modules()]
    assert needs == [p.requires_grad for p in net.parameters()]
    assert not images.requires_grad


@every_method
def test_a_frozen_net_and_any_gradient_mode_give_the_same(method, net, images, targets):
    expected = cam(method, net, images, targets)
    with torch.no_grad():
        assert torch.equal(expected, cam(method, net, images, targets))
    with torch.inference_mode():
        assert torch.equal(expected, cam(method, net, images, targets))
        assert torch.equal(expected, cam(method, net, images, targets, features=net.encode(images)))
    for p in net.parameters():
        p.requires_grad_(False)
    assert torch.equal(expected, cam(method, net, images, targets))
    assert not torch.is_inference(cam(method, net, images, targets))


@every_method
def test_training_mode_is_refused(method, net, images, targets):
    net.train()
    with pytest.raises(RuntimeError, match=r"call net\.eval\(\) first"):
        cam(method, net, images, targets)
    net.eval()
    net.head.train()  # a part is enough
    with pytest.raises(RuntimeError, match=r"call net\.eval\(\) first"):
        cam(method, net, images, targets)


@every_method
def test_a_nan_never_passes(method, net, images, targets):
    images[2, 0, 5, 5] = torch.nan
    with pytest.raises(ValueError, match=r"gave NaN or infinity for images \[2\]"):
        cam(method, net, images, targets)


@every_method
def test_targets_that_do_not_fit_are_refused(method, net, images):
    with pytest.raises(ValueError, match=r"targets must be \(4,\), one class per image; got \(3,\)"):
        cam(method, net, images, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"targets must be \(4,\)"):
        cam(method, net, images, torch.tensor(1))
    with pytest.raises(ValueError, match=r"classes in 0\.\.2; got 0\.\.3"):
        cam(method, net, images, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"classes in 0\.\.2; got -1\.\.2"):
        cam(method, net, images, torch.tensor([0, 1, 2, -1]))
    with pytest.raises(TypeError, match="int64"):
        cam(method, net, images, torch.ones(4))


@every_method
def test_an_unknown_option_names_the_valid_ones(method, net, images):
    with pytest.raises(TypeError, match=rf"unknown option of CAM method '{method}': 'layer'.*known:"):
        cam(method, net, images, layer=2)


@every_method
def test_features_in_hand_give_the_same(method, net, images, targets):
    f = net.encode(images)
    before = [s.requires_grad for s in f.stages]
    assert torch.equal(cam(method, net, None, targets, features=f), cam(method, net, images, targets))
    assert before == [s.requires_grad for s in f.stages]


@every_method
def test_bfloat16_features_get_a_float32_gradient(method, net, images, targets):
    f = net.encode(images)
    half = Features(tuple(s.bfloat16() for s in f.stages))
    exact = Features(tuple(s.bfloat16().float() for s in f.stages))
    expected = cam(method, net, None, targets, features=exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cam(method, net, None, targets, features=half), expected)


@every_method
def test_the_facts_are_stated(method):
    kind = resolve("CAM method", method, METHODS, "wsol.cams")
    assert all(isinstance(getattr(kind, fact), bool) for fact in ("needs_gradient", "local", "rectified"))
    assert len(kind.paper) > 10


@pytest.mark.parametrize("method", [m for m in METHODS if resolve("m", m, METHODS, "wsol.cams").local])
def test_a_local_map_depends_on_the_features_around_a_point_only(method, net, images, targets):
    f = net.encode(images)
    moved = f.last.detach().clone()
    moved[:, :, :, 4:] = torch.rand(moved[:, :, :, 4:].shape)
    whole, other = (cam(method, net, None, targets, features=Features((x,))) for x in (f.last, moved))
    torch.testing.assert_close(whole[:, :, :4], other[:, :, :4])


def test_all_methods_on_the_real_backbone_channels_last():
    net = build_localizer("efficientnet_lite0", "lse", 2, weights=None, output_stride=16).eval()
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    plain = cams(list(METHODS), net, x)
    fast = cams(list(METHODS), net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))
    for name in METHODS:
        torch.testing.assert_close(plain[name], fast[name], rtol=1e-3, atol=1e-4)
        assert plain[name].shape == (2, 4, 6)
