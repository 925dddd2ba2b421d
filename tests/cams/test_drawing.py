"""What `cam` and `cams` promise besides the maps: one encode, one backward, logits, clear errors, cheap imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from wsol._names import resolve
from wsol.cams import METHODS, cam, cams
from wsol.models import Features

KINDS = {m: resolve("CAM method", m, METHODS, "wsol.cams") for m in METHODS}
SHARED = [m for m, k in KINDS.items() if not k.needs_images and not k.needs_tail and m != "masker"]
"""Methods that ask nothing of a net with a linear head beyond the common pass."""


def test_importing_the_room_imports_nothing_heavy():
    code = "import sys, wsol.cams; assert wsol.cams.METHODS; print([m for m in ('torch', 'numpy', 'cv2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_no_module_hides_a_function_of_the_face():
    """`wsol.cams.cam` as a module would take the place of the function once it is imported."""
    import pkgutil

    import wsol.cams

    assert not {m.name for m in pkgutil.iter_modules(wsol.cams.__path__)} & set(wsol.cams.__all__)


@pytest.fixture
def count(monkeypatch):
    """How often the net encoded, the head ran, and a gradient was taken."""
    calls = {"encode": 0, "head": 0, "grad": 0}

    def watch(net):
        def counted(name, function):
            def inner(*args, **kwargs):
                calls[name] += 1
                return function(*args, **kwargs)

            return inner

        monkeypatch.setattr(net, "encode", counted("encode", net.encode))
        monkeypatch.setattr(net.head, "forward", counted("head", net.head.forward))
        monkeypatch.setattr(torch.autograd, "grad", counted("grad", torch.autograd.grad))
        return calls

    return watch


@pytest.mark.parametrize("targets", [None, torch.tensor([0, 1, 2, 0])])
@pytest.mark.parametrize("options", [{}, {"layer-cam": {"layers": [0, 1, -1]}, "hirescam": {"layers": [1]}}])
def test_one_encode_one_head_one_backward_for_all(net, images, count, targets, options):
    alone = {m: cam(m, net, images, targets, **options.get(m, {})) for m in SHARED}
    calls = count(net)
    maps = cams(SHARED, net, images, targets, options=options)
    assert calls == {"encode": 1, "head": 1, "grad": 1}
    assert list(maps) == SHARED
    for m in SHARED:
        torch.testing.assert_close(maps[m], alone[m], rtol=1e-5, atol=1e-6)


def test_no_backward_without_a_gradient_method(net, images, count):
    calls = count(net)
    cams(["cam"], net, images)
    assert calls == {"encode": 1, "head": 1, "grad": 0}


def test_no_encode_with_features_in_hand(net, images, count):
    f = net.encode(images)
    calls = count(net)
    cams(SHARED, net, None, features=f)
    assert calls == {"encode": 0, "head": 1, "grad": 1}


def test_no_graph_below_the_leaf(net, images, monkeypatch):
    """The stages below the leaf run without a graph: that is where memory and time would go."""
    seen = []
    stage = net.backbone.stage
    monkeypatch.setattr(net.backbone, "stage", lambda i, x: seen.append((i, torch.is_grad_enabled())) or stage(i, x))
    cams(SHARED, net, images)
    assert seen == [(0, False), (1, False), (2, False)]
    seen.clear()
    cam("layer-cam", net, images, layers=[1])
    assert seen == [(0, False), (1, False), (2, True)]


def test_logits_and_targets_come_along(net, images):
    maps, logits = cams(["cam", "grad-cam"], net, images, return_logits=True)
    torch.testing.assert_close(logits, net(images).logits.detach())
    assert maps.logits is logits
    assert torch.equal(maps.targets, logits.argmax(1))
    assert not logits.requires_grad


def test_ids_draw_one_method_in_two_ways(net, images):
    maps = cams({"fine": "layer-cam", "coarse": "layer-cam", "cam": "cam"}, net, images, options={"fine": {"layers": [0]}})
    assert {k: tuple(v.shape[1:]) for k, v in maps.items()} == {"fine": (20, 28), "coarse": (5, 7), "cam": (5, 7)}


def test_layers_may_be_counted_from_either_end_and_from_given_features(net, images, targets):
    f = net.encode(images)
    upper = Features(f.stages[1:])
    for back, front in ((-1, 2), (-2, 1)):
        expected = cam("hirescam", net, images, targets, layers=[back])
        assert torch.equal(expected, cam("hirescam", net, images, targets, layers=[front]))
        for given in (f, upper):
            found = cam("hirescam", net, None, targets, layers=[front], features=given)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="not among the last 2 stages"):
        cam("hirescam", net, None, targets, layers=[0], features=upper)


def test_wrong_calls_say_what_to_do(net, images):
    with pytest.raises(ValueError, match=r"unknown CAM method 'gradcam'; did you mean 'grad-cam'\?"):
        cam("gradcam", net, images)
    with pytest.raises(TypeError, match="list of names"):
        cams("cam", net, images)
    with pytest.raises(ValueError, match="stands twice"):
        cams(["cam", "cam"], net, images)
    with pytest.raises(ValueError, match=r"in options.*'grad-cam'"):
        cams(["cam"], net, images, options={"grad-cam": {}})
    with pytest.raises(ValueError, match="give images, or the features"):
        cam("cam", net, None)
    with pytest.raises(ValueError, match="no stage 3"):
        cam("grad-cam", net, images, layers=[3])
    with pytest.raises(ValueError, match="draws one layer"):
        cam("grad-cam", net, images, layers=[0, 1])
    with pytest.raises(ValueError, match="none twice"):
        cam("layer-cam", net, images, layers=[1, 1])
    with pytest.raises(ValueError, match="gamma"):
        cam("layer-cam", net, images, gamma=0)
    with pytest.raises(TypeError, match=r"'gama' of CAM method 'layer-cam'; did you mean 'gamma'"):
        cam("layer-cam", net, images, gama=3)


def test_cam_needs_a_head_with_class_maps(gap_net, images, targets):
    from wsol.models import Localizer, Prediction

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16 * 5 * 7, 3)
            torch.nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))

        def forward(self, f, groups=None, labels=None):
            return Prediction(self.layer(f.last.flatten(1)))

    net = Localizer(gap_net.backbone, Flat()).eval()
    with pytest.raises(ValueError, match=r"head with linear class maps.*Flat has none.*'grad-cam'"):
        cam("cam", net, images, targets)
    h = cam("hirescam", net, images, targets)  # at flatten + linear HiResCAM still sums to logit - bias; Grad-CAM does not
    logits = net(images).logits.gather(1, targets[:, None])[:, 0] - net.head.layer.bias[targets]
    torch.testing.assert_close(h.sum((1, 2)), logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(cam("grad-cam", net, images, targets).sum((1, 2)), logits, atol=1e-2)


def test_features_of_other_images_are_refused(gap_net, images):
    f = gap_net.encode(images)
    for other in (images[:2], torch.cat([images, images], 3)):
        with pytest.raises(ValueError, match=r"features of shape \(4, 16, 5, 7\) do not belong to images of shape"):
            cam("grad-cam", gap_net, other, features=f)


@pytest.mark.parametrize("method", ["layer-cam", "fused"])
def test_a_stage_named_from_both_ends_is_named_twice(method, gap_net, images):
    with pytest.raises(ValueError, match=r"none twice; \[-1, 2\] are stages \[2, 2\]"):
        cam(method, gap_net, images, layers=[-1, 2])


def test_images_and_nets_of_another_kind_are_told_what_to_do(gap_net, images):
    for given, words in ((images.double(), r"float64, the net is torch.float32: call"), (images.numpy(), "torch.from_numpy")):
        with pytest.raises(TypeError, match=words):
            cam("grad-cam", gap_net, given)
    with pytest.raises(TypeError, match=r"got Linear: wrap .*from_module"):
        cam("grad-cam", torch.nn.Linear(2, 2), images)


def test_targets_are_a_tensor(gap_net, images):
    with pytest.raises(TypeError, match=r"got \[0, 2, 1, 2\]: use torch.tensor"):
        cam("grad-cam", gap_net, images, [0, 2, 1, 2])


@pytest.mark.parametrize(
    ("method", "options", "error", "words"),
    [
        ("grad-cam", {"layers": -1}, TypeError, "layers must be a list of integers or None; got -1"),
        ("layer-cam", {"layers": ["layer4"]}, TypeError, "layers must be a list of integers"),
        ("smooth", {"n": 2.5}, TypeError, "n must be an integer; got 2.5"),
        ("smooth", {"level": float("nan")}, ValueError, "level must be a number"),
        ("layer-cam", {"gamma": float("nan")}, ValueError, "gamma must be a number"),
        ("sess", {"window": 1.5}, ValueError, r"window must be a share in \(0, 1\], or an integer of px above 1; got 1.5"),
        ("sess", {"window": float("inf")}, ValueError, "or an integer of px above 1; got inf"),
        ("sess", {"window": "0.5"}, TypeError, "'sess': window must be a number; got '0.5'"),
        ("masker", {"confidence": "6"}, TypeError, "'masker': confidence must be a number or None; got '6'"),
        ("cam", {"budget": 1.5}, TypeError, "budget must be an integer"),
    ],
)
def test_options_of_another_kind_are_refused(method, options, error, words, gap_net, images):
    with pytest.raises(error, match=words):
        cam(method, gap_net, images, **options)
