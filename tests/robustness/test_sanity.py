from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from wsol.cams import cams
from wsol.models import Backbone, Localizer, build_localizer
from wsol.models.heads.linear import Gap
from wsol.robustness import (
    SanityCurve,
    blocks,
    cascading,
    compare_maps,
    edge_maps,
    independent,
    principal_maps,
    sanity_curve,
)

STAGES = ["head", "stage-2", "stage-1", "stem"]


class Tiny(Backbone):
    """Convolutions and norms in lists of their own: nothing in the names says which stage they belong to."""

    paper = "none"
    channels = (8, 12, 16)

    def __init__(self) -> None:
        super().__init__()
        self.strides = (2, 4, 8)
        inside = (3, *self.channels[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(inside, self.channels, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in self.channels)

    def normalize(self, images):
        return images - 0.5

    def stage(self, number, x):
        return self.norms[number](self.convs[number](x)).relu()

    @staticmethod
    def find_imagenet() -> Path:
        raise RuntimeError("no weights")


@pytest.fixture
def net():
    """Every parameter and statistic at a value that no initializer gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Localizer(Tiny(), Gap(16, 2))
        with torch.no_grad():
            for value in made.state_dict().values():
                if value.is_floating_point():
                    value.add_(0.5 * torch.rand_like(value) + 0.1)
                else:
                    value.add_(7)
    return made.eval()


@pytest.fixture
def images():
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def changed(net, other):
    """Keys of the state that differ in all entries but those an initializer may hit by chance."""
    mine, its = net.state_dict(), other.state_dict()
    return {k for k in mine if not torch.equal(mine[k], its[k])}


OWN = {
    "head": {"head.weight", "head.bias"},
    **{
        block: {f"backbone.convs.{i}.{p}" for p in ("weight", "bias")}
        | {f"backbone.norms.{i}.{p}" for p in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
        for i, block in ((2, "stage-2"), (1, "stage-1"), (0, "stem"))
    },
}


def test_blocks_of_a_localizer_go_from_the_logits_down(net):
    assert blocks(net) == STAGES


def test_the_cascade_randomizes_everything_above_and_nothing_below(net):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    expected: set[str] = set()
    for name, other in cascading(net, seeded()):
        expected |= OWN[name]
        assert changed(net, other) == expected
        assert not other.training
    assert expected == set(before)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())


def test_independent_randomizes_one_block(net):
    assert {name: changed(net, other) for name, other in independent(net, seeded())} == OWN


def test_batch_norm_starts_anew(net):
    (_, other), *_ = [step for step in independent(net, seeded()) if step[0] == "stage-1"]
    norm = other.backbone.norms[1]
    for value, start in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
        assert (value == start).all()


def test_the_generator_alone_decides(net):
    torch.manual_seed(5)
    first = [other.state_dict() for _, other in cascading(net, seeded(1))]
    state = torch.get_rng_state()
    torch.manual_seed(6)
    second = [other.state_dict() for _, other in cascading(net, seeded(1))]
    other = [other.state_dict() for _, other in cascading(net, seeded(2))]
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first, second, strict=True) for k in a)
    assert not torch.equal(first[-1]["head.weight"], other[-1]["head.weight"])
    assert not torch.equal(first[0]["head.weight"], first[1]["head.weight"])  # each step draws anew
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())


def test_a_fresh_net_gives_the_weights():
    def build(generator):
        return build_localizer("efficientnet_lite0", "gap", 2, weights=None, generator=generator)

    net = build(seeded(1)).eval()
    assert blocks(net) == ["head", "stage-4", "stage-3", "stage-2", "stage-1", "stem"]
    last = [other for _, other in cascading(net, seeded(7), fresh=build)][-1]
    generator = seeded(7)
    expected = [build(generator) for _ in range(6)][-1].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in last.state_dict().items())


def test_any_module_has_its_children_as_blocks():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.Linear(4, 2))
    assert blocks(net) == ["3", "2", "0"]
    names = [{k.split(".")[0] for k in changed(net, other)} for _, other in cascading(net, seeded())]
    assert names == [{"3"}, {"2", "3"}, {"0", "2", "3"}]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))


def test_what_cannot_be_randomized_is_an_error():
    with pytest.raises(ValueError, match=r"no initializer for 0\.gain \(3,\): give Scaled a reset_parameters"):
        list(cascading(nn.Sequential(Scaled()), seeded()))
    net = nn.Sequential(nn.Linear(2, 2))
    net.register_parameter("extra", nn.Parameter(torch.ones(2)))
    with pytest.raises(ValueError, match="extra lies in no block"):
        blocks(net)


def drawer(method, images, targets):
    return lambda net: list(cams([method], net, images, targets)[method].numpy())


@pytest.mark.parametrize("method", ["cam", "grad-cam", "hirescam"])
def test_maps_of_the_class_pass(net, images, method):
    draw = drawer(method, images, torch.zeros(5, dtype=torch.int64))
    curve = sanity_curve(draw, cascading(net, seeded()), draw(net))
    assert curve.blocks == tuple(STAGES)
    assert curve.spearman.shape == (4, 5)
    assert curve.verdict == "passes"
    assert curve.undefined == 0


def test_the_same_net_fails_with_similarity_one(net, images):
    draw = drawer("cam", images, torch.zeros(5, dtype=torch.int64))
    curve = sanity_curve(draw, [("nothing", net)], draw(net))
    for name in ("spearman", "absolute", "ssim", "hog"):
        np.testing.assert_allclose(getattr(curve, name), 1)
    assert curve.verdict == "fails"


def test_edges_do_not_change_at_any_step_and_fail(net, images):
    def draw(_):
        return list(edge_maps(images.numpy()))

    curve = sanity_curve(draw, cascading(net, seeded()), draw(net))
    for name in ("spearman", "absolute", "ssim", "hog"):
        np.testing.assert_allclose(getattr(curve, name), 1)
    assert curve.verdict == "fails"


def test_principal_maps_do_not_change_with_the_weights_above_them_and_fail(net, images):
    def draw(other):
        with torch.no_grad():
            return list(principal_maps(other.encode(images).last.numpy()))

    steps = dict(cascading(net, seeded()))
    for a, b in zip(draw(net), draw(steps["head"]), strict=True):
        np.testing.assert_array_equal(a, b)
    curve = sanity_curve(draw, steps.items(), draw(net))
    np.testing.assert_allclose(curve.spearman[0], 1)
    assert (curve.medians()[1:] < 0.95).all()
    assert curve.verdict == "fails"


def test_edges_are_the_sobel_magnitude_of_luminance():
    image = np.random.default_rng(0).random((1, 3, 9, 11))
    gray = 0.299 * image[0, 0] + 0.587 * image[0, 1] + 0.114 * image[0, 2]
    slopes = [ndimage.sobel(gray, axis) / 4 for axis in (0, 1)]
    np.testing.assert_allclose(edge_maps(image)[0], np.hypot(*slopes) / math.sqrt(2), atol=1e-6)


def test_principal_maps_are_the_first_eigenvector():
    features = np.random.default_rng(0).random((2, 6, 4, 5))
    for found, f in zip(principal_maps(features), features.reshape(2, 6, 20), strict=True):
        values, vectors = np.linalg.eigh(f @ f.T)
        expected = vectors[:, -1] @ f
        np.testing.assert_allclose(found.ravel(), expected * np.sign(expected.sum()), atol=1e-5)
        assert np.square(found).sum() == pytest.approx(values[-1], rel=1e-5)
    one = np.full((1, 3, 2, 2), -1.0) * np.arange(4).reshape(2, 2)
    np.testing.assert_allclose(principal_maps(one)[0], np.arange(4).reshape(2, 2) * math.sqrt(3), atol=1e-6)


def made(*rows):
    values = np.array(rows, float)
    return SanityCurve(tuple("abcdefgh"[: len(values)]), values, values, values, values)


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (made([0.1, 0.2], [0.94, 0.9]), "fails"),  # in the mean over the steps
        (made([0.0], [0.995], [0.0]), "fails"),  # at one step
        (made([0.0], [0.98], [0.0]), "passes"),
        (made([0.1], [0.9], [0.4]), "passes"),
        (made([-1.0], [-1.0]), "passes"),  # turned around is changed
        (made([np.nan, 0.1, 0.3], [np.nan, np.nan, np.nan]), "passes"),
        (made([np.nan], [np.nan]), "undefined"),
    ],
)
def test_the_rule(curve, verdict):
    assert curve.verdict == verdict


def test_constant_maps_are_counted_and_left_out():
    flat, up = np.zeros((8, 8)), np.arange(64.0).reshape(8, 8)
    curve = compare_maps([flat, up, up], [up, up, -up], "shuffled labels")
    assert curve.undefined == 1
    assert curve.medians().tolist() == [pytest.approx(0)]
    assert curve.blocks == ("shuffled labels",)


def test_wrong_inputs_say_what_is_wrong(net):
    up = np.arange(64.0).reshape(8, 8)
    with pytest.raises(ValueError, match="got 1 for 2"):
        compare_maps([up], [up, up], "x")
    with pytest.raises(ValueError, match="`nets` is empty"):
        sanity_curve(lambda net: [up], [], [up])
    with pytest.raises(ValueError, match=r"images must be \(n, 3, H, W\), got \(8, 8\)"):
        edge_maps(up)
    with pytest.raises(ValueError, match=r"features must be \(n, c, h, w\), got \(8, 8\)"):
        principal_maps(up)
