"""What a model takes over from the one that it starts from."""

from __future__ import annotations

import pytest
import torch

from wsol.cli.teacher import inherit, seed_maps
from wsol.models import build_localizer


def built(head, seed):
    return build_localizer("efficientnet_lite0", head, 2, weights=None, generator=torch.Generator().manual_seed(seed))


def same(ours, theirs):
    """Whether two modules have the same weights."""
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("parent", "child", "given", "taken"),
    [
        ("gap", "gap", lambda net: net.head, lambda net: net.head),
        ("gap", "decoded", lambda net: net.head, lambda net: net.head.base),
        ("decoded", "decoded", lambda net: net.head, lambda net: net.head),
        ("decoded", "gap", lambda net: net.head.base, lambda net: net.head),
        ("decoded", "pixel", lambda net: net.head.base, lambda net: net.head.base),
    ],
)
def test_a_classifier_is_taken_over_through_decoders(parent, child, given, taken):
    ours, theirs = built(child, 1), built(parent, 2)
    assert not same(taken(ours), given(theirs))
    inherit(ours, theirs, "parent.safetensors")
    assert same(taken(ours), given(theirs))
    assert same(ours.backbone, theirs.backbone)


def test_several_teachers_say_the_mean_of_their_probabilities():
    nets, images, labels = [built("gap", 1), built("gap", 2)], torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
    place = torch.device("cpu")
    each = [seed_maps([net], "cam", place)(images, labels) for net in nets]
    assert torch.equal(each[0], nets[0](images).maps[range(2), labels])  # one says what it says, without a squash
    mean = seed_maps(nets, "cam", place)(images, labels)
    assert torch.allclose(mean.sigmoid(), (each[0].sigmoid() + each[1].sigmoid()) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="name it in `from`"):
        seed_maps([], "cam", place)
