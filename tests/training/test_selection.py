from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsol.training import map_stability


@pytest.fixture
def images():
    g = torch.Generator().manual_seed(0)
    return [torch.rand(3, 3, 16, 24, generator=g), torch.rand(2, 3, 16, 24, generator=g)]


def stain(images):
    return functional.avg_pool2d(images[:, 2] - images[:, 0], 4)


def constant(images):
    return torch.full((len(images), 4, 6), 0.7)


def test_equivariant_map_is_perfectly_stable_and_so_is_its_negative(images):
    assert map_stability(stain, images) == pytest.approx(1)
    assert map_stability(lambda x: -3 * stain(x) + 5, images) == pytest.approx(1)


def test_a_constant_map_does_not_win(images):
    noisy = torch.Generator().manual_seed(3)
    assert map_stability(constant, images) == 0
    assert map_stability(lambda x: torch.zeros(len(x), 4, 6), images) == 0
    # rounding noise on a constant is not a place, even if it is the same noise each time
    assert map_stability(lambda x: constant(x) + 1e-6 * stain(x), images) == 0
    unstable = map_stability(lambda x: stain(x) + 0.3 * torch.randn(len(x), 4, 6, generator=noisy), images)
    assert 0.05 < unstable < 0.95


def test_a_map_that_ignores_the_image_is_not_stable(images):
    ramp = torch.linspace(0, 1, 24).reshape(1, 4, 6)  # antisymmetric under both flips
    expected = []
    for axes in ((-1,), (-2,), (-2, -1)):
        expected.append(torch.corrcoef(torch.stack([ramp.flatten(), ramp.flip(axes).flatten()]))[0, 1])
    assert map_stability(lambda x: ramp.expand(len(x), 4, 6), images) == pytest.approx(
        float(torch.stack(expected).mean()), abs=1e-6
    )
    assert float(torch.stack(expected).mean()) < 0


def test_blind_spot_a_symmetric_frame_is_stable(images):
    frame = torch.ones(4, 6)
    frame[1:3, 1:5] = 0
    assert map_stability(lambda x: frame.expand(len(x), 4, 6), images) == pytest.approx(1)


def test_images_weigh_alike_whatever_the_batches(images):
    def ramped(x):
        return stain(x) + 0.2 * torch.linspace(0, 1, 6)

    alone = [image[None] for batch in images for image in batch]
    assert map_stability(ramped, images) == pytest.approx(map_stability(ramped, alone))


def test_broken_maps_are_errors(images):
    with pytest.raises(ValueError, match="NaN or infinity"):
        map_stability(lambda x: stain(x) * float("nan"), images)
    with pytest.raises(ValueError, match=r"maps must be \(b, h, w\)"):
        map_stability(lambda x: x, images)
    with pytest.raises(ValueError, match="at least one"):
        map_stability(stain, [])
