from __future__ import annotations

import pytest
import torch

from wsol.models import build_localizer


def build(seed=0, **options):
    options = {"backbone": "efficientnet_lite0", "head": "gap", "num_classes": 2, "weights": None, **options}
    return build_localizer(**options, generator=torch.Generator().manual_seed(seed))


def test_the_same_generator_gives_the_same_net_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    a, b, c = build(0).state_dict(), build(0).state_dict(), build(1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])
    assert not torch.equal(a["backbone._conv_stem.weight"], c["backbone._conv_stem.weight"])
    pretrained = build(0, weights="imagenet").state_dict()
    assert torch.equal(pretrained["head.weight"], a["head.weight"])


def test_unknown_names_name_the_nearest():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet-18'; did you mean 'resnet18'\?"):
        build(backbone="resnet-18")
    with pytest.raises(ValueError, match=r"unknown head 'lsa'; did you mean 'lse'\?"):
        build(head="lsa")
    known = r"\(known: background, published_rows, dropout, bag_top\)"
    with pytest.raises(TypeError, match=rf"unknown option 'drop_out' of head 'gap'; did you mean 'dropout'\? {known}"):
        build(head_options={"drop_out": 0.1})
    with pytest.raises(TypeError, match=r"option 'r' of head 'gap'"):
        build(head_options={"r": 3.0})
    with pytest.raises(ValueError, match="num_classes"):
        build(num_classes=0)


def test_head_options_arrive():
    net = build(head="lse", head_options={"r": 5.0, "dropout": 0.2, "bag_top": 0.5}, num_classes=4)
    assert (net.head.r, net.head.dropout, net.head.bag_top) == (5.0, 0.2, 0.5)
    assert net.head.weight.shape == (4, 1280)
