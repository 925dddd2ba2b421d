from __future__ import annotations

import numpy as np
import pytest
import torch

from wsol.slides import rgb_to_od
from wsol.training.residuals import colors, density, directions, residuals


@pytest.fixture
def images():
    return torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps():
    return torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_density_is_that_of_the_slides():
    rgb = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    ours = density(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)
    assert ours[0].permute(1, 2, 0).numpy() == pytest.approx(rgb_to_od(rgb), abs=1e-5)


def test_products_of_directions_are_pearson_correlations(maps):
    r = directions(maps) @ directions(7 * maps + 3).T
    assert r.numpy() == pytest.approx(np.corrcoef(maps.flatten(1).numpy()), abs=1e-12)
    assert not directions(torch.full((1, 6, 8), 0.3, dtype=torch.float64)).any()


def test_a_residual_is_what_least_squares_leaves(images, maps):
    """Against numpy's own solver, image by image."""
    for image, one, left in zip(images, maps, residuals(maps, images), strict=True):
        m = one.flatten().numpy()
        known = np.column_stack([colors(image[None], (6, 8))[0].numpy(), np.ones(48)])
        wanted = m - known @ np.linalg.lstsq(known, m, rcond=None)[0]
        assert left.numpy() == pytest.approx(wanted / np.linalg.norm(m - m.mean()), abs=1e-9)
        share = 1 - np.sum(wanted**2) / np.sum((m - m.mean()) ** 2)
        assert float(left @ directions(one[None])[0]) == pytest.approx(1 - share)  # r of a map with itself: 1 = R^2 + the rest


def test_colors_are_means_of_cells_and_of_their_neighborhoods(images):
    found = colors(images, (6, 8)).reshape(3, 6, 8, 10)
    patch = images[1, :, 16:24, 8:16]
    assert found[1, 2, 1, :3].numpy() == pytest.approx(density(patch[None])[0].mean((1, 2)).numpy(), abs=1e-5)
    assert float(found[1, 2, 1, 3]) == pytest.approx(float((patch[2] - patch[0]).mean()), abs=1e-6)
    assert found[..., 5:][1, 2, 1].numpy() == pytest.approx(found[1, 1:4, 0:3, :5].mean((0, 1)).numpy(), abs=1e-9)
    assert found[..., 5:][1, 0, 0].numpy() == pytest.approx(found[1, :2, :2, :5].mean((0, 1)).numpy(), abs=1e-9)
    tissue = torch.ones(1, 3, 48, 64)
    tissue[:, 1, :, 32:] = 0.5
    assert colors(tissue, (6, 8))[0, :, 4].reshape(6, 8).tolist() == [[0.0] * 4 + [1.0] * 4] * 6


def test_blank_images_explain_nothing_and_color_explains_itself(images, maps):
    assert torch.allclose(residuals(maps, torch.ones(3, 3, 48, 64)), directions(maps))
    mixed = colors(images, (6, 8)) @ torch.randn(10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert not residuals(mixed.reshape(3, 6, 8), images).any()
