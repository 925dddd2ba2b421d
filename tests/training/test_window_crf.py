"""The windowed CRF term against a double loop over all pairs, and in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from wsol.training.regularizers import window_crf


def slow(s, image, radius, sigma_rgb, sigma_xy):
    """All ordered pairs of one image."""
    above = below = 0.0
    height, width = s.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    for y, x in cells:
        for v, u in cells:
            if (y, x) != (v, u) and max(abs(y - v), abs(x - u)) <= radius:
                far = ((y - v) ** 2 + (x - u) ** 2) / (2 * sigma_xy**2)
                other = sum((float(image[c, y, x]) - float(image[c, v, u])) ** 2 for c in range(3)) / (2 * sigma_rgb**2)
                weight, p, q = math.exp(-far - other), float(s[y, x]), float(s[v, u])
                above += weight * (p * (1 - q) + q * (1 - p))
                below += weight
    return above / below


@pytest.mark.parametrize("size", [(5, 6), (1, 4), (3, 2)])
@pytest.mark.parametrize(("radius", "sigma_rgb", "sigma_xy"), [(1, 0.3, 50.0), (2, 0.1, 1.0), (4, 0.5, 2.0)])
def test_it_is_the_double_loop(size, radius, sigma_rgb, sigma_xy):
    g = torch.Generator().manual_seed(0)
    s, images = torch.rand(2, *size, generator=g), torch.rand(2, 3, *size, generator=g)
    found = window_crf(s, images, radius=radius, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy)
    expected = [slow(a, b, radius, sigma_rgb, sigma_xy) for a, b in zip(s, images, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_closed_forms():
    images = torch.zeros(4, 3, 6, 6)
    s = torch.zeros(4, 6, 6)
    s[1], s[2] = 1.0, 0.3
    s[3] = (torch.arange(6)[:, None] + torch.arange(6)) % 2  # a chess board: of 4 + 4 neighbors, those in rows and columns differ
    found = window_crf(s, images, radius=1, sigma_xy=1e6)
    straight, diagonal = 2 * 6 * 5, 2 * 5 * 5
    assert found.tolist() == pytest.approx([0.0, 0.0, 2 * 0.3 * 0.7, straight / (straight + diagonal)])


def test_an_edge_in_the_image_lets_the_map_change_there():
    images = torch.zeros(2, 3, 8, 8)
    images[0, :, :, 4:] = 1.0
    images[1, :, 4:] = 1.0  # this edge runs across
    s = torch.zeros(2, 8, 8)
    s[:, :, 4:] = 1.0
    along, across = window_crf(s, images).tolist()
    assert along == pytest.approx(0.0, abs=1e-12)
    assert across > 0.1


def test_gradients_reach_the_map_alone_and_are_finite_where_no_two_colors_are_alike():
    g = torch.Generator().manual_seed(0)
    s, images = torch.rand(1, 4, 4, generator=g).requires_grad_(), (100 * torch.rand(1, 3, 4, 4, generator=g)).requires_grad_()
    window_crf(s, images, sigma_rgb=1e-3).sum().backward()
    assert s.grad.isfinite().all()
    assert images.grad is None


@pytest.mark.parametrize(
    ("size", "options", "told"),
    [((4, 5), {}, "of one size"), ((4, 4), {"radius": 0}, "radius must be at least 1"), ((4, 4), {"sigma_rgb": 0.0}, "sigmas")],
)
def test_wrong_input_is_refused(size, options, told):
    with pytest.raises(ValueError, match=told):
        window_crf(torch.zeros(1, 4, 4), torch.zeros(1, 3, *size), **options)
    with pytest.raises(ValueError, match="single pixel"):
        window_crf(torch.zeros(1, 1, 1), torch.zeros(1, 3, 1, 1))
