"""The color that a backbone normalizes to 0, for any affine normalization, and clear words where there is none."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsol.models import Backbone, build_localizer

MEAN = torch.tensor([0.485, 0.456, 0.406])


class Bare(Backbone):
    channels = (3,)

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def normalize(self, images):
        return self.rule(images)

    def stage(self, number, x):
        return x


def blank(rule, kind=torch.float32):
    return Bare(rule).blank_color(torch.zeros(2, 3, 5, 4, dtype=kind))


def test_it_is_the_mean_color_of_a_standardized_image():
    color = blank(lambda x: (x - MEAN[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None])
    assert color.shape == (1, 3, 1, 1)
    assert color.flatten().tolist() == pytest.approx(MEAN.tolist(), abs=1e-6)
    net = build_localizer("efficientnet_lite0", "gap", 2, weights=None)
    assert net.backbone.blank_color(torch.zeros(1, 3, 8, 8)).flatten().tolist() == pytest.approx([127 / 255] * 3)


def test_channels_may_be_turned_around_and_mixed():
    """Blue, green, red in 0..255 as Caffe has them; and any matrix."""
    caffe = torch.tensor([104.0, 117.0, 123.0])
    found = blank(lambda x: x.flip(1) * 255 - caffe[:, None, None])
    assert found.flatten().tolist() == pytest.approx((caffe.flip(0) / 255).tolist(), abs=1e-6)
    mix = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 1.0]])
    found = blank(lambda x: torch.einsum("ij,bjhw->bihw", mix, x - MEAN[:, None, None]))
    assert found.flatten().tolist() == pytest.approx(MEAN.tolist(), abs=1e-6)


def test_it_has_the_type_of_the_images():
    assert blank(lambda x: x - 0.25, torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda x: x**3 - 0.3, "no color is 0 after the normalization"),
        (lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True), "no color is 0 after"),
        (lambda x: functional.instance_norm(x), "no color is 0 after"),
        (lambda x: x * 0 + 1, "no color is 0 after the normalization"),
        (lambda x: functional.interpolate(x, (4, 4)), "resizes images"),
    ],
)
def test_where_there_is_none_the_error_says_so(rule, said):
    with pytest.raises(ValueError, match=said):
        blank(rule)
