"""The head's own maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsol.cams import cam, cams
from wsol.models import Localizer, Prediction


class Drawing(nn.Module):
    """A head that hands out whatever it was given, so that the channel taken can be told."""

    def __init__(self, maps=None, pixels=None, **extra):
        super().__init__()
        self.given = maps, pixels, extra

    def forward(self, f, groups=None, labels=None):
        maps, pixels, extra = self.given
        return Prediction(f.last.mean((2, 3))[:, :3], maps, pixels, extra)


@pytest.fixture
def drawn():
    k = torch.arange(4 * 3 * 2 * 2, dtype=torch.float32).reshape(4, 3, 2, 2)
    return {"maps": k, "attention": k + 100, "pixels": k[:, :1] + 200}


def test_at_a_linear_head_it_is_cam(net, images, targets):
    d = cams(["cam", "native"], net, images, targets)
    assert torch.equal(d["cam"], d["native"])


def test_each_image_gets_its_target(gap_net, images, targets, drawn):
    net = Localizer(gap_net.backbone, Drawing(**drawn)).eval()
    own = torch.stack([drawn["maps"][i, c] for i, c in enumerate(targets.tolist())])
    assert torch.equal(cam("native", net, images, targets), drawn["pixels"][:, 0])
    assert torch.equal(cam("native", net, images, targets, source="maps"), own)
    assert torch.equal(cam("native", net, images, targets, source="attention"), own + 100)


def test_the_first_there_is(gap_net, images, targets, drawn):
    net = Localizer(gap_net.backbone, Drawing(drawn["maps"], attention=drawn["attention"])).eval()
    own = torch.stack([drawn["maps"][i, c] for i, c in enumerate(targets.tolist())])
    assert torch.equal(cam("native", net, images, targets), own)
    drawn["maps"] = drawn["pixels"] = None
    drawn["attention"] = drawn["attention"][:, 2]  # (b, h, w): one for all classes
    net = Localizer(gap_net.backbone, Drawing(**drawn)).eval()
    assert torch.equal(cam("native", net, images, targets), drawn["attention"])


def test_a_head_that_draws_nothing_is_refused(gap_net, images, targets, drawn):
    net = Localizer(gap_net.backbone, Drawing()).eval()
    with pytest.raises(ValueError, match=r"needs a head that draws maps, attention or pixels; Drawing draws none.*'grad-cam'"):
        cam("native", net, images, targets)
    net = Localizer(gap_net.backbone, Drawing(maps=drawn["maps"])).eval()
    with pytest.raises(ValueError, match="needs a head that draws pixels; Drawing draws maps"):
        cam("native", net, images, targets, source="pixels")
    with pytest.raises(ValueError, match=r"unknown source 'pixel'; did you mean 'pixels'\?"):
        cam("native", net, images, targets, source="pixel")
