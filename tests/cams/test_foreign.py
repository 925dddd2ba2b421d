"""Methods on a module that is not ours: the maps of captum on the module itself, and ours on our own net as a plain module."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from wsol import cams as room
from wsol._names import resolve
from wsol.cams import METHODS, cams
from wsol.models import Features, Localizer, from_module

KINDS = {m: resolve("CAM method", m, METHODS, "wsol.cams") for m in METHODS}
every_method = pytest.mark.parametrize("method", [m for m in METHODS if m != "masker"])  # which draws with a head of its own
FEWER = {
    "smooth-grad-cam++": {"n": 3},
    "shap-cam": {"orders": 4, "players": 64},
    "ss-cam": {"n": 3},
    "is-cam": {"n": 3},
    "smooth-grad": {"n": 3},
    "integrated-gradients": {"steps": 3},
    "rise": {"n": 20},
}
"""Options that make a method quick where it would run the net many times."""

NEEDS_CLASS_MAPS = ("cam", "native", "prm")


def cam(method, *args, **options):
    return room.cam(method, *args, **FEWER.get(method, {}), **options)


class Block(nn.Module):
    """Residual, with an activation in place on the sum."""

    def __init__(self, inside, outside):
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, 2, 1)
        self.bn = nn.BatchNorm2d(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, 2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)).add_(self.shortcut(x)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.layer1, self.layer2 = Block(3, 8), Block(8, 12), Block(12, 16)
        self.top = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x):
        return self.top(self.layer2(self.layer1(self.stem(x))))


class Transformer(nn.Module):
    """Patches of 8 px, a class token, two blocks of torch's own."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        layers = [nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="relu", norm_first=True) for _ in range(2)]
        self.blocks = nn.ModuleList(layers)
        self.top = nn.Linear(16, 3)

    def forward(self, x):
        t = self.patches(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.token.expand(len(t), -1, -1), t], 1)
        for block in self.blocks:
            t = block(t)
        return self.top(t[:, 0])


class Plain(nn.Module):
    """A localizer of ours as a module like any other: normalized images -> logits."""

    def __init__(self, net):
        super().__init__()
        self.stages = nn.ModuleList(_Stage(net.backbone, i) for i in range(3))
        self.top = net.head

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.top(Features((x,))).logits


class _Stage(nn.Module):
    def __init__(self, backbone, number):
        super().__init__()
        self.conv, self.norm = backbone.convs[number], backbone.norms[number]

    def forward(self, x):
        return self.norm(self.conv(x)).relu_()


def seeded(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return kind().eval()


def wrapped(module, layer, **options):
    return from_module(module, layer, size=(40, 56), **options)


@pytest.fixture
def residual() -> Residual:
    return seeded(Residual)


@pytest.fixture
def plain(net) -> Plain:
    return Plain(net).eval()


@pytest.fixture
def foreign(net, plain) -> Localizer:
    return wrapped(plain, ["stages.0", "stages.1", "stages.2"], normalize=net.backbone.normalize)


def assert_same(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("layer", ["stem", "layer1", "layer2"])
def test_captum_on_the_module_itself_agrees(residual, images, targets, layer):
    attr = pytest.importorskip("captum.attr")
    net = wrapped(residual, layer)
    part = residual.get_submodule(layer)
    signed = attr.LayerGradCam(residual, part).attribute(images, targets, relu_attributions=False).detach()[:, 0]
    torch.testing.assert_close(cam("grad-cam", net, images, targets), signed, rtol=1e-4, atol=1e-6)
    product = attr.LayerGradientXActivation(residual, part).attribute(images, targets).detach().sum(1)
    torch.testing.assert_close(cam("hirescam", net, images, targets), product, rtol=1e-4, atol=1e-6)


def test_captum_agrees_on_tokens(images, targets):
    attr = pytest.importorskip("captum.attr")
    module = seeded(Transformer)
    net = wrapped(module, ["patches", "blocks.0"], reshape=(5, 7))
    product = attr.LayerGradientXActivation(module, module.blocks[0]).attribute(images, targets).detach().sum(2)
    torch.testing.assert_close(cam("hirescam", net, images, targets), product[:, 1:].reshape(-1, 5, 7), rtol=1e-3, atol=1e-6)
    signed = attr.LayerGradCam(module, module.patches).attribute(images, targets, relu_attributions=False).detach()[:, 0]
    found = cams({"coarse": "grad-cam", "fine": "grad-cam"}, net, images, targets, options={"fine": {"layers": [0]}})
    torch.testing.assert_close(found["fine"], signed, rtol=1e-3, atol=1e-6)  # its slope also comes through the class token
    again = cam("grad-cam", net, None, targets, layers=[0], features=net.encode(images))
    torch.testing.assert_close(again, signed, rtol=1e-3, atol=1e-6)  # handed-over features lose nothing of it
    assert found["coarse"].std() > 0


@every_method
def test_ours_as_a_plain_module_gives_the_map_of_ours(method, net, foreign, images, targets):
    if method in NEEDS_CLASS_MAPS:
        with pytest.raises(ValueError, match="needs a head"):
            cam(method, foreign, images, targets)
        return
    assert_same(cam(method, foreign, images, targets), cam(method, net, images, targets))


@pytest.mark.parametrize(
    "method", [m for m, k in KINDS.items() if "layers" in inspect.signature(k).parameters and m not in NEEDS_CLASS_MAPS]
)
@pytest.mark.parametrize("layer", [0, 1])
def test_of_finer_stages_too(method, layer, net, foreign, images, targets):
    found = cam(method, foreign, images, targets, layers=[layer])
    assert_same(found, cam(method, net, images, targets, layers=[layer]))


@every_method
def test_a_linear_layer_on_the_mean_gives_class_maps_and_closed_forms(method, gap_net, images, targets):
    class Pooled(Plain):
        def __init__(self, net):
            super().__init__(net)
            self.top = nn.Linear(16, 3)
            self.top.weight, self.top.bias = net.head.weight, net.head.bias

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.top(x.mean((2, 3)))

    net = wrapped(Pooled(gap_net).eval(), "stages.2", normalize=gap_net.backbone.normalize)
    assert net.head.affine
    assert_same(cam(method, net, images, targets), cam(method, gap_net, images, targets))


@every_method
@pytest.mark.parametrize("frozen", [False, True])
def test_a_module_in_training_is_drawn_in_evaluation_and_left_as_it_was(method, frozen, images, targets, residual):
    expected = cam(method, wrapped(residual, ["layer1", "layer2"]), images, targets)
    residual.train()
    residual.layer1.eval()
    for p in residual.parameters():
        p.requires_grad_(not frozen)
        p.grad = torch.full_like(p, 7.0)
    net = wrapped(residual, ["layer1", "layer2"])
    before = [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in residual.modules()]
    statistics = residual.stem.bn.running_mean.clone()
    assert torch.equal(cam(method, net, images, targets), expected)
    with torch.inference_mode():
        assert_same(cam(method, net, images, targets), expected, 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(cam(method, net, images, targets)).all()
    assert before == [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in residual.modules()]
    assert torch.equal(residual.stem.bn.running_mean, statistics)
    assert all((p.grad == 7).all() and p.requires_grad != frozen for p in residual.parameters())


@every_method
def test_a_batch_is_its_images_one_by_one(method, residual, images, targets):
    net = wrapped(residual, ["layer1", "layer2"])
    whole = cam(method, net, images, targets, generator=torch.Generator().manual_seed(0))
    for i in (0, 3):
        one = cam(method, net, images[i : i + 1], targets[i : i + 1], generator=torch.Generator().manual_seed(0))
        assert_same(whole[i], one[0])
    assert_same(cam(method, net, images, targets, budget=1), cam(method, net, images, targets))


@every_method
def test_a_transformer_is_drawn_or_says_why_not(method, images, targets):
    """Below the class token every method works; above it, all but those that change features."""
    module = seeded(Transformer)
    if method in NEEDS_CLASS_MAPS:
        return
    below = cam(method, wrapped(module, "patches"), images, targets)
    assert below.shape == ((4, 5, 7) if KINDS[method].resolution == "feature" else (4, 40, 56))
    assert torch.isfinite(below).all()
    above = wrapped(module, "blocks.0", reshape=(5, 7))
    if KINDS[method].needs_tail:
        with pytest.raises(ValueError, match=r"beside its grid \(a class token\)"):
            cam(method, above, images, targets)
    elif method == "tta":
        with pytest.raises(ValueError, match="give images of the size that `reshape` is for"):
            cam(method, above, images, targets)  # it turns them: 5 x 7 cells become 7 x 5
        assert cam(method, above, images, targets, moves="flips").shape == below.shape
    else:
        assert cam(method, above, images, targets).shape == below.shape


@pytest.mark.parametrize("method", ["occlusion", "sess"])
def test_a_coarse_cut_keeps_to_the_budget_of_its_finest_layers(method, images):
    class Counting(nn.Conv2d):
        def forward(self, x):
            made = super().forward(x)
            largest.append(4 * made.numel())
            return made

    largest: list[int] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fine = [Counting(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(8)]
        module = nn.Sequential(nn.Sequential(*fine), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    net = from_module(module, "0", size=(40, 56))
    assert net.backbone.density == 16
    largest.clear()
    options = {"occlusion": {"window": 8, "stride": 8, "fill": "black"}, "sess": {"scales": (2.0,)}}[method]
    budget = 2**21
    room.cam(method, net, images[:1], budget=budget, **options)
    assert max(largest) * 4 <= budget  # an estimate by the stage alone makes one chunk of all
    assert len(largest) < 20  # and chunks hold several images
