"""The engine: what the net says of changed features and images, in chunks that fit a budget."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsol.cams import Evidence, cam
from wsol.cams.evidence import budget_of, chunks
from wsol.cams.sight import look
from wsol.models import Features, Localizer, Prediction


def gather(net, images, targets=None, stages=(), **more) -> Evidence:
    return Evidence(net, *look(net, images, None, targets, stages), images, **more)


@pytest.fixture
def rows(monkeypatch):
    """The number of rows of each call of the head."""
    seen: list[int] = []

    def watch(net):
        forward = net.head.forward
        monkeypatch.setattr(net.head, "forward", lambda f: seen.append(len(f.last)) or forward(f))
        return seen

    return watch


@pytest.mark.parametrize("layer", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("budget", [1, 100_000, 2**30])
def test_the_tail_of_the_features_is_the_net(net, images, layer, budget):
    e = gather(net, images, budget=budget)
    expected = net(images).logits.detach()
    found = e.tail(e.stage(layer), layer)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    order = torch.tensor([3, 0, 0, 2, 1, 3, 3])
    made = e.tail(lambda part: e.stage(layer)[order[part]], layer, count=7)
    torch.testing.assert_close(made, expected[order], rtol=1e-4, atol=1e-5)
    assert e.tail(lambda part: e.stage(layer)[order[part]], layer, count=0).shape == (0, 3)
    with pytest.raises(ValueError, match="needs count="):
        e.tail(lambda part: e.stage(layer)[order[part]], layer)


def test_chunks_fit_the_budget_and_cover_every_row(net, images, rows):
    assert [(s.start, s.stop) for s in chunks(7, 10, 35)] == [(0, 3), (3, 6), (6, 7)]
    assert [(s.start, s.stop) for s in chunks(2, 10, 3)] == [(0, 1), (1, 2)]
    assert budget_of(torch.device("cuda")) == 2**29
    assert budget_of(torch.device("cpu")) == Evidence(net, *look(net, images, None, None, ())).budget == 2**25
    e = gather(net, images, budget=4 * 16 * 5 * 7 * 3 * 2)  # twice the estimate of one row at the last stage
    seen = rows(net)
    e.tail(e.stage(-1)[[0, 1, 2, 3, 0]])
    assert seen == [2, 2, 1]
    seen.clear()
    e.tail(e.stage(0), 0)  # finer stages are larger
    assert seen == [1, 1, 1, 1]


@pytest.mark.parametrize("budget", [1, 2**30])
def test_the_score_of_the_images_is_the_net(net, images, budget):
    e = gather(net, images, budget=budget)
    expected = net(images).logits.detach()
    torch.testing.assert_close(e.score(images), expected, rtol=1e-4, atol=1e-5)
    dark = e.score(lambda part: images[part] * 0, count=4)
    torch.testing.assert_close(dark, net(images * 0).logits.detach(), rtol=1e-4, atol=1e-5)
    half = e.score(images, half=True)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0.1, atol=0.1)
    assert not torch.equal(half, e.score(images))


def test_the_tail_is_float32_without_graph_whatever_the_caller_says(net, images):
    with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
        e = gather(net, images)
        found = e.tail(e.stage(0).bfloat16(), 0)
    exact = e.tail(e.stage(0).bfloat16().float(), 0)
    assert torch.equal(found, exact)


def test_the_gap_head_is_affine_and_no_other_tail_is(gap_net, lse_net, images):
    e = gather(gap_net, images)
    affine = e.affine(-1)
    anything = torch.randn(5, 16, 3, 4)
    torch.testing.assert_close(
        affine.maps(anything).sum((2, 3)) + affine.bias, gap_net.head(Features((anything,))).logits.detach(), rtol=1e-4, atol=1e-5
    )
    assert e.affine(2) is not None
    assert e.affine(1) is None
    assert gather(lse_net, images).affine(-1) is None


def test_a_head_may_say_that_it_is_affine(gap_net, images):
    class Bent(type(gap_net.head)):  # an heir may pool as it likes, so only its own word counts
        affine = False

    class Straight(type(gap_net.head)):
        affine = True

    for kind, known in ((Bent, False), (Straight, True), (type("Silent", (type(gap_net.head),), {}), False)):
        net = Localizer(gap_net.backbone, kind(16, 3)).eval()
        assert (gather(net, images).affine(-1) is not None) == known


def test_a_decoder_is_left_out_where_the_head_offers_it(gap_net, images):
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.gap = gap_net.head

        def logits(self, f):
            return self.gap(f).logits

        def forward(self, f, groups=None, labels=None):
            pixels = f.stages[-3].mean(1, keepdim=True)  # a stage that the tail of the last one does not have
            return Prediction(self.logits(f), pixels=pixels)

    e = gather(Localizer(gap_net.backbone, Skips()).eval(), images)
    torch.testing.assert_close(e.tail(e.stage(-1)), e.logits, rtol=1e-4, atol=1e-5)
    assert e.prediction.pixels.shape == (4, 1, 20, 28)


def test_a_look_at_other_images_is_their_own_evidence(net, images, targets):
    other = images.flip(3)
    found = gather(net, images, targets).look(other, [1, -1])
    e = gather(net, other, targets, [1, 2])
    for layer in (1, -1):
        for a, b in zip(found[layer], e.at(layer), strict=True):
            torch.testing.assert_close(a, b)
            assert not a.requires_grad
    assert list(found) == [1, -1]


def test_methods_of_images_say_so(net, images):
    with pytest.raises(ValueError, match="give images"):
        _ = Evidence(net, *look(net, None, net.encode(images), None, ())).pixels
    with pytest.raises(ValueError, match="budget must be positive"):
        cam("cam", net, images, budget=0)


def test_targets_are_taken_by_owner(net, images, targets):
    e = gather(net, images, targets)
    owners = torch.tensor([1, 1, 3])
    found = e.of_target(torch.arange(9.0).view(3, 3), owners)
    assert found.tolist() == [2.0, 5.0, 8.0]
    torch.testing.assert_close(e.scores, net(images).logits[range(4), targets].detach())
