"""Where seeds fall: by their probabilities, within their candidates, and never where both kinds claim a cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from wsol.training.pixel_losses import IGNORED
from wsol.training.seeds import SeedSampler, otsu_threshold


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def half(b=1, side=16, low=0.0, high=1.0):
    """The left half of the map is fully active."""
    m = torch.full((b, side, side), low)
    m[:, :, : side // 2] = high
    return m


def test_background_seeds_avoid_what_is_active_unless_released():
    m = half(b=200)
    alone = {"foreground": 0, "background": 5, "dilation": 1}
    honest, released = (SeedSampler(**alone, released=r)(m, generator()) for r in (False, True))
    assert (honest == 0).sum() == (released == 0).sum() == 1000
    assert (honest[:, :, :8] == 0).sum() == 0
    share = (released[:, :, :8] == 0).float().sum() / 1000
    assert share == pytest.approx(0.5, abs=0.05)  # half of the background lies on the object: noise


def test_foreground_seeds_follow_the_map_to_its_power():
    m = torch.tensor([0.0, 0.2, 0.4, 1.0]).reshape(1, 2, 2).expand(1500, 2, 2)
    for power, expected in ((1.0, [0, 0.2, 0.4, 1.0]), (2.0, [0, 0.04, 0.16, 1.0]), (0.0, [1, 1, 1, 1])):
        seeds = SeedSampler(foreground=1, background=0, power=power, dilation=1)(m, generator())
        found = (seeds == 1).float().mean(0).flatten()
        assert (seeds == 1).sum() == 1500
        torch.testing.assert_close(found, torch.tensor(expected) / sum(expected), atol=0.05, rtol=0)


def test_background_seeds_follow_one_minus_the_map():
    m = torch.tensor([0.0, 0.2, 0.4, 1.0]).reshape(1, 2, 2).expand(1500, 2, 2)
    found = (SeedSampler(foreground=0, background=1, dilation=1)(m, generator()) == 0).float().mean(0).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, 0.8, 0.6, 0]) / 2.4, atol=0.05, rtol=0)


def test_only_order_and_spacing_of_the_values_count():
    m = torch.rand(3, 8, 8, generator=generator(1))
    drawn = [SeedSampler()(x, generator()) for x in (m, 100 * m - 40)]
    assert (drawn[0] != drawn[1]).float().mean() < 0.05  # but for rounding


def test_counts_and_dilation_act():
    m = torch.rand(1, 31, 31, generator=generator(1))
    for n in (1, 4, 20):
        seeds = SeedSampler(foreground=n, background=2 * n, dilation=1)(m, generator())
        clash = n + 2 * n - int((seeds != IGNORED).sum())
        assert clash % 2 == 0  # a cell drawn twice is lost twice
        assert 0 <= clash <= 2 * n
    peak = torch.zeros(1, 9, 9)
    peak[0, 4, 4] = 1
    grown = SeedSampler(foreground=1, background=0, dilation=5)(peak, generator())
    expected = torch.full((1, 9, 9), IGNORED)
    expected[0, 2:7, 2:7] = 1
    assert torch.equal(grown, expected)
    few = SeedSampler(foreground=50, background=0, dilation=1)(peak, generator())
    assert (few == 1).sum() == 1  # one cell has a probability above 0: no more can be drawn


def test_what_both_claim_is_nobodys():
    m = torch.zeros(1, 1, 7)
    m[..., 3] = 1
    seeds = SeedSampler(foreground=1, background=6, dilation=3)(m, generator())
    assert seeds.flatten().tolist() == [0, 0, IGNORED, IGNORED, IGNORED, 0, 0]


def test_candidates_of_f_cam():
    m = torch.arange(100.0).reshape(1, 10, 10)
    seeds = SeedSampler(foreground=0, background=100, lowest=0.2, power=0, dilation=1)(m, generator())
    assert torch.equal(seeds[0] == 0, m[0] < 20)
    block = torch.zeros(1, 12, 12)
    block[0, 2:9, 3:10] = 0.9
    block[0, 5, 5] = 1.0
    options = {"foreground": 200, "background": 0, "power": 0, "dilation": 1, "otsu": True}
    assert torch.equal(SeedSampler(**options)(block, generator())[0] == 1, block[0] > 0)
    eroded = torch.zeros(12, 12, dtype=torch.bool)
    eroded[4:7, 5:8] = True
    assert torch.equal(SeedSampler(**options, erosion=5)(block, generator())[0] == 1, eroded)
    assert torch.equal(SeedSampler(**options, erosion=11)(block, generator())[0] == 1, block[0] > 0)  # nothing would be left


def test_otsu_is_that_of_an_independent_library():
    rng = np.random.default_rng(0)
    for _ in range(20):
        levels = rng.integers(0, 256, 400) if rng.random() < 0.5 else np.r_[rng.normal(60, 15, 300), rng.normal(170, 20, 100)]
        values = np.clip(np.round(levels), 0, 255)
        ours = otsu_threshold(torch.from_numpy(values))
        theirs = threshold_otsu(values.astype(np.uint8))  # integers: exact bins; theirs parts x > t
        assert ((values >= ours) == (values > theirs)).all()
    with pytest.raises(ValueError, match="all values are the same"):
        otsu_threshold(torch.ones(5))


def test_a_bag_is_one_image_that_was_cut():
    image = torch.rand(1, 8, 24, generator=generator(2))
    tiles = torch.stack(image[0].split(8, dim=1))
    sampler = SeedSampler(foreground=4, background=4, dilation=1)
    seeds = sampler(tiles, generator(), groups=torch.zeros(3, dtype=torch.int64))
    assert 24 - 2 * 12 <= int((seeds != IGNORED).sum()) <= 24
    bag = torch.cat([torch.zeros(2, 8, 8), torch.ones(1, 8, 8)])
    seeds = sampler(bag, generator(), groups=torch.tensor([0, 0, 0]))
    assert (seeds[:2] == 1).sum() == 0  # evidence is in the third tile only
    assert (seeds[2] == 1).sum() == 12
    mixed = sampler(torch.cat([bag, half(b=1, side=8)]), generator(), groups=torch.tensor([0, 0, 0, 1]))
    assert (mixed[3] == 1).sum() == 4


def test_a_constant_map_says_nothing_and_a_broken_one_is_refused():
    assert (SeedSampler()(torch.full((2, 6, 6), 0.3), generator()) == IGNORED).all()
    with pytest.raises(ValueError, match="finite"):
        SeedSampler()(torch.full((1, 3, 3), float("nan")), generator())


def test_the_generator_is_the_only_randomness():
    m = torch.rand(2, 20, 20, generator=generator(3))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again = SeedSampler()(m, generator(5)), SeedSampler()(m, generator(5))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, SeedSampler()(m, generator(6)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"foreground": 0, "background": 0}, "not both 0"),
        ({"background": -1}, "got 10 and -1"),
        ({"power": -1.0}, "power"),
        ({"dilation": 2}, "dilation is the side of a square in cells and must be odd; got 2"),
        ({"erosion": 0}, "erosion"),
        ({"lowest": 0.0}, "lowest"),
    ],
)
def test_options_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        SeedSampler(**options)
