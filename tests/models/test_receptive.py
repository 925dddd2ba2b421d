"""The reach is compared with arithmetic where there is some, and blocks with the whole image."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from wsol.models import Backbone, Localizer, build_localizer
from wsol.models.heads.linear import Gap
from wsol.models.receptive import GlobalReachError, bytes_per_pixel, reach


class Chain(Backbone):
    """Convolutions of given kernel, stride, dilation and padding, with something at the end."""

    paper = "none"

    def __init__(self, layers, last=None, channels=4):
        super().__init__()
        self.channels = (channels,)
        stride, inside, made = 1, 3, []
        for kernel, step, dilation, padding in layers:
            made.append(nn.Conv2d(inside, channels, kernel, step, padding, dilation))
            stride, inside = stride * step, channels
        self.strides = (stride,)
        self.net = nn.Sequential(*made, *([last] if last else []), nn.ReLU())

    def normalize(self, images):
        return images

    def stage(self, number, x):
        return self.net(x)


def chain(layers, last=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Chain(layers, last)
        return Localizer(backbone, Gap(backbone.channels[-1], 2)).eval()


def arithmetic(layers):
    """(before, after, stride): cell j reads px j * stride - before_px to j * stride + after_px."""
    before = after = 0
    stride = 1
    for kernel, step, dilation, padding in layers:
        before += padding * stride
        after += (dilation * (kernel - 1) - padding) * stride
        stride *= step
    return -(-before // stride), after, stride


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 2, 1, 1)] * 3,
        [(7, 2, 1, 3), (3, 2, 1, 1), (3, 1, 2, 2), (5, 2, 1, 2)],
        [(4, 4, 1, 0), (2, 2, 1, 0)],
        [(1, 1, 1, 0), (3, 8, 1, 1)],
    ],
)
def test_reach_is_that_of_the_kernels(layers):
    before, after_px, stride = arithmetic(layers)
    size = (16 * stride, 24 * stride)
    for axis, found in zip(size, reach(chain(layers), size), strict=True):
        assert (found.before, found.stride, found.length) == (before, stride, axis)
        # a block that ends at a multiple of the stride keeps the cells that read nothing behind its last px
        assert found.after == -(-(after_px - stride + 1) // stride)


def whole_and_blocks(net, size, side):
    """The last stage of a random image at once, and put together of blocks of `side` x `side` cells."""
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    down, across = reach(net, size)
    with torch.inference_mode():
        whole = net.encode(images).last
        assert whole.shape[2:] == (down.cells, across.cells)
        joined = torch.full_like(whole, torch.nan)
        for top, left in itertools.product(range(0, down.cells, side), range(0, across.cells, side)):
            bottom, right = min(top + side, down.cells), min(left + side, across.cells)
            y, x = down.span(top, bottom), across.span(left, right)
            block = net.encode(images[..., y.start : y.stop, x.start : x.stop]).last
            joined[..., top:bottom, left:right] = block[..., y.skip : y.skip + bottom - top, x.skip : x.skip + right - left]
    return whole, joined


@pytest.mark.parametrize("size", [(320, 448), (333, 251), (305, 470)])
@pytest.mark.parametrize("side", [3, 5, 8])
def test_blocks_of_any_size_give_the_whole_map_of_any_size(size, side):
    layers = [(3, 2, 1, 1), (5, 2, 1, 2), (3, 2, 1, 1), (3, 1, 2, 2)]
    whole, joined = whole_and_blocks(chain(layers), size, side)
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-6 * float(whole.abs().max()))


@pytest.mark.parametrize(("name", "stride"), [("efficientnet_lite0", 32), ("efficientnet_lite0", 16), ("resnet18", 32)])
@pytest.mark.parametrize("size", [(512, 640), (523, 613)])
def test_blocks_of_the_backbones_give_the_whole_map(name, stride, size):
    net = build_localizer(name, "gap", 2, weights=None, output_stride=stride, generator=torch.Generator().manual_seed(0)).eval()
    whole, joined = whole_and_blocks(net, size, 192 // stride)
    assert float(whole.std()) > 0
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-6 * max(1.0, float(whole.abs().max())))


def test_a_halo_of_one_cell_less_leaves_seams():
    net = chain([(3, 2, 1, 1)] * 4)
    images = torch.rand(1, 3, 256, 64, generator=torch.Generator().manual_seed(1))
    down, _ = reach(net, (256, 64))
    with torch.inference_mode():
        whole = net.encode(images).last
        for before, same in ((down.before, True), (down.before - 1, False)):
            y = down._replace(before=before).span(6, 9)
            block = net.encode(images[..., y.start : y.stop, :]).last[..., y.skip : y.skip + 3, :]
            assert torch.allclose(block, whole[..., 6:9, :], rtol=0, atol=1e-6) == same


class SqueezeExcite(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class BrighterThanTheMean(nn.Module):
    """NaN does not pass a comparison: only blocks show that the whole image counts."""

    def forward(self, x):
        return x * (x > x.mean((2, 3), keepdim=True))


class Windows(nn.Module):
    """Means of windows of 4 x 4 cells that begin at the image's corner, as in a Swin transformer."""

    def forward(self, x):
        tall, wide = -x.shape[2] % 4, -x.shape[3] % 4
        mean = nn.functional.avg_pool2d(nn.functional.pad(x, (0, wide, 0, tall)), 4)
        return x + mean.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., : x.shape[2], : x.shape[3]]


class Positions(nn.Module):
    def forward(self, x):
        return x + torch.linspace(0, 1, x.shape[3])


@pytest.mark.parametrize(
    ("last", "seen"),
    [
        (SqueezeExcite(), "reaches cells more than"),
        (nn.GroupNorm(2, 4), "reaches cells more than"),
        (nn.InstanceNorm2d(4), "reaches cells more than"),
        (BrighterThanTheMean(), "differ by"),
        (Windows(), "differ by"),
        (Positions(), "differ by"),
        (nn.Linear(16, 16), "takes no image"),
    ],
)
def test_what_needs_the_whole_image_is_refused(last, seen):
    with pytest.raises(GlobalReachError, match=seen):
        reach(chain([(3, 2, 1, 1)] * 3, last), (128, 128))


def test_attention_is_refused():
    net = build_localizer("vit_tiny", "gap", 2, weights=None, output_stride=16).eval()
    net.backbone.blocks = net.backbone.blocks[:1]
    with pytest.raises(GlobalReachError, match="reaches cells more than"):
        reach(net, (256, 256))


def test_span_refuses_cells_that_are_not_there():
    down, _ = reach(chain([(3, 2, 1, 1)]), (64, 64))
    with pytest.raises(ValueError, match=r"a range in 0\.\.32; got 3 to 33"):
        down.span(3, 33)


def test_bytes_per_pixel_of_known_layers():
    """The images, the output of the convolution and that of ReLU: 3 + 4 + 4 values of 4 bytes."""
    found = bytes_per_pixel(chain([(1, 1, 1, 0)]), side=64)
    assert found == pytest.approx(4 * (3 + 4 + 4))
