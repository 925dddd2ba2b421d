"""The head alone on features that were made before says what the whole net says."""

from __future__ import annotations

import pytest
import torch

from wsol.models import Encoded, build_localizer


@pytest.fixture
def net():
    return build_localizer("efficientnet_lite0", "attention-mil", 2, weights=None, head_options={"gated": True}).eval()


def images(n=5):
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_cells_and_means_give_the_logits_of_the_net(net):
    x, groups = images(), torch.tensor([0, 1, 0, 1, 1])
    features = net.encode(x).last
    for groups_ in (None, groups):
        whole, alone = net(x, groups=groups_), Encoded(net)(features, groups=groups_)
        assert torch.equal(alone.logits, whole.logits)
        assert torch.equal(alone.maps, whole.maps)
        means = Encoded(net)(features.mean((2, 3), keepdim=True), groups=groups_)
        assert torch.allclose(means.logits, whole.logits, atol=1e-6)


def test_what_the_head_learns_the_net_has_learned(net):
    before, features = net(images()).logits, net.encode(images()).last
    alone = Encoded(net).train()
    assert {id(p) for p in alone.parameters()} == {id(p) for p in net.head.parameters()}
    with torch.no_grad():
        for p in alone.parameters():
            p.add_(1.0)
    assert not torch.allclose(net(images()).logits, before)
    assert torch.equal(Encoded(net.eval())(features).logits, net(images()).logits)
    assert alone.output_stride == net.output_stride


def test_only_its_own_features_come_in(net):
    alone = Encoded(net)
    with pytest.raises(ValueError, match=r"features \(b, 1280, h, w\).*got \(5, 3, 64, 64\)"):
        alone.encode(images())
    with pytest.raises(ValueError, match="start 1"):
        alone.encode(torch.zeros(1, 1280, 2, 2), start=1)
    leaf = alone.encode(torch.zeros(1, 1280, 2, 2), leaf=-1).last
    assert leaf.is_leaf
    assert leaf.requires_grad
