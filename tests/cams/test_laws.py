"""Laws that hold for every method of the table, in a loop over the table."""

from __future__ import annotations

import copy
import inspect
import re

import pytest
import torch

from wsol import cams as room
from wsol._names import resolve
from wsol.cams import METHODS
from wsol.models import Features, Localizer, Prediction, build_localizer

every_method = pytest.mark.parametrize("method", METHODS)
KINDS = {m: resolve("CAM method", m, METHODS, "wsol.cams") for m in METHODS}


FEWER = {
    "smooth-grad-cam++": {"n": 3},
    "shap-cam": {"orders": 4, "players": 64},
    "ss-cam": {"n": 2},
    "is-cam": {"n": 2},
    "smooth-grad": {"n": 3},
    "integrated-gradients": {"steps": 3},
    "rise": {"n": 20},
    "smooth": {"n": 2},
    "sess": {"scales": (1.0, 1.6)},
}
"""Options that make the laws quick where a method runs the net many times."""


def cam(method, *args, **options):
    return room.cam(method, *args, **FEWER.get(method, {}), **options)


def cams(methods, *args, **options):
    return room.cams(methods, *args, options={m: FEWER[m] for m in methods if m in FEWER}, **options)


def methods_that(*facts: str, but: tuple[str, ...] = ()):
    """Those of which all of `facts` hold, and none of `but`."""
    chosen = [m for m, k in KINDS.items() if all(getattr(k, f) for f in facts) and not any(getattr(k, f) for f in but)]
    return pytest.mark.parametrize("method", chosen)


def layered():
    """Those that may read any stage."""
    return pytest.mark.parametrize("method", [m for m, k in KINDS.items() if "layers" in inspect.signature(k).parameters])


def assert_same(found, expected, tolerance=1e-4):
    """Equal to a share of the largest value: maps of different methods differ in size by orders."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@every_method
def test_maps_are_raw_float32_at_the_stated_resolution(method, net, images, targets):
    m = cam(method, net, images, targets)
    feature = (4, 10, 14) if method == "masker" else (4, 5, 7)  # the head draws it at its second stage
    assert m.shape == {"feature": feature, "image": (4, 40, 56)}[KINDS[method].resolution]
    assert m.dtype == torch.float32
    assert not m.requires_grad
    assert torch.isfinite(m).all()
    assert m.std() > 0


@every_method
def test_a_batch_is_its_images_one_by_one(method, net, images, targets):
    whole = cam(method, net, images, targets)
    for i in range(len(images)):
        assert_same(whole[i], cam(method, net, images[i : i + 1], targets[i : i + 1])[0])


@every_method
def test_the_class_matters_and_none_is_the_predicted_one(method, net, images):
    predicted = net(images).logits.argmax(1)
    assert torch.equal(cam(method, net, images), cam(method, net, images, predicted))
    other = cam(method, net, images, (predicted + 1) % 3)
    assert torch.equal(cam(method, net, images), other) != KINDS[method].class_specific


@every_method
def test_draws_are_the_generators(method, net, images, targets):
    def drawn(seed):
        return cam(method, net, images, targets, generator=torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(drawn(5), drawn(5))
    assert torch.equal(cam(method, net, images, targets), cam(method, net, images, targets))
    assert torch.equal(torch.get_rng_state(), state)
    together = cams(
        sorted({"shap-cam", "smooth-grad-cam++", method}), net, images, targets, generator=torch.Generator().manual_seed(5)
    )
    assert_same(together[method], drawn(5))


@every_method
def test_the_budget_changes_nothing_but_the_chunks(method, net, images, targets):
    assert_same(cam(method, net, images, targets, budget=1), cam(method, net, images, targets))


@every_method
def test_a_float64_net_gives_float32_maps(method, net, images, targets):
    expected = cam(method, net, images, targets)
    found = cam(method, net.double(), images.double(), targets)
    assert found.dtype == torch.float32
    assert_same(found, expected, 1e-3)


@every_method
@pytest.mark.parametrize("case", ["blank", "dead head", "dead features", "saturated"])
def test_degenerate_inputs_give_finite_maps(method, net, images, targets, case):
    with torch.no_grad():
        if case == "blank":
            images = torch.full_like(images, 0.5)
        elif case == "dead head":
            net.head.weight.zero_()
        elif case == "dead features":
            net.backbone.norms[-1].weight.zero_()
            net.backbone.norms[-1].bias.fill_(-1)
        else:
            net.head.weight.mul_(1e6)
    for extra in ({}, {"layers": [0]} if "layers" in inspect.signature(KINDS[method]).parameters else {}):
        m = cam(method, net, images, targets, **extra)
        assert torch.isfinite(m).all()
        if case == "dead features" and not extra and method != "masker":  # which reads finer stages too
            assert m.std((1, 2)).max() <= 1e-6 * m.abs().max().clamp(min=1e-30)  # nothing to see: no place stands out


@layered()
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_any_stage_may_be_read(method, net, images, targets, layer):
    m = cam(method, net, images[:2], targets[:2], layers=[layer])
    feature = {0: (20, 28), 1: (10, 14), -1: (5, 7)}[layer]
    assert m.shape[1:] == (feature if KINDS[method].resolution == "feature" else (40, 56))
    assert torch.equal(m, cam(method, net, images[:2], targets[:2], layers=[layer % 3]))
    assert m.std() > 0


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("cam", "native", "prm", "masker")])
def test_any_head_will_do(method, gap_net, images, targets):
    class Perceptron(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(16 * 5 * 7, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
            )
            for p in self.parameters():
                torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(p.numel()))

        def forward(self, f, groups=None, labels=None):
            return Prediction(self.layers(f.last))

    net = Localizer(gap_net.backbone, Perceptron()).eval()
    m = cam(method, net, images, targets)
    assert m.std() > 0
    assert_same(m[1:2], cam(method, net, images[1:2], targets[1:2]))


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
        assert_same(cam(method, net, images, targets, features=net.encode(images)), expected, 1e-5)
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
    with pytest.raises(ValueError, match=r"the net gave NaN or infinity for images \[2\]"):
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
    with pytest.raises(TypeError, match=rf"unknown option 'layer' of CAM method '{re.escape(method)}'.*known:"):
        cam(method, net, images, layer=2)


@every_method
def test_features_in_hand_give_the_same(method, net, images, targets):
    f = net.encode(images)
    before = [s.requires_grad for s in f.stages]
    given = images if KINDS[method].needs_images else None
    assert torch.equal(cam(method, net, given, targets, features=f), cam(method, net, images, targets))
    assert before == [s.requires_grad for s in f.stages]


@methods_that("needs_images")
def test_methods_of_images_ask_for_them(method, net, images, targets):
    with pytest.raises(ValueError, match=rf"'{re.escape(method)}' changes the images: give images besides"):
        cam(method, net, None, targets, features=net.encode(images))


@methods_that(but=("needs_images",))
def test_bfloat16_features_get_a_float32_gradient(method, net, images, targets):
    f = net.encode(images)
    half = Features(tuple(s.bfloat16() for s in f.stages))
    exact = Features(tuple(s.bfloat16().float() for s in f.stages))
    expected = cam(method, net, None, targets, features=exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cam(method, net, None, targets, features=half), expected)


@every_method
def test_the_facts_are_stated(method):
    kind = KINDS[method]
    facts = ("needs_gradient", "needs_tail", "needs_images", "local", "rectified", "class_specific")
    assert all(isinstance(getattr(kind, fact), bool) for fact in facts)
    assert kind.resolution in ("feature", "image")
    assert len(kind.paper) > 10


@methods_that("local")
def test_a_local_map_depends_on_the_features_around_a_point_only(method, net, images, targets):
    f = net.encode(images)
    moved = f.last.detach().clone()
    moved[:, :, :, 4:] = torch.rand(moved[:, :, :, 4:].shape)
    whole, other = (cam(method, net, None, targets, features=Features((x,))) for x in (f.last, moved))
    torch.testing.assert_close(whole[:, :, :4], other[:, :, :4])


def test_methods_of_features_and_slopes_on_the_real_backbone_channels_last():
    net = build_localizer("efficientnet_lite0", "lse", 2, weights=None, output_stride=16).eval()
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    names = [m for m, k in KINDS.items() if not k.needs_images and m != "masker"] + ["guided-grad-cam", "smooth-grad-cam++"]
    plain = cams(names, net, x)
    fast = cams(names, net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))
    for name in names:
        assert_same(fast[name], plain[name], 2e-3)
        assert plain[name].shape == ((2, 4, 6) if KINDS[name].resolution == "feature" else (2, 64, 96))
