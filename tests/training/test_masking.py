"""The veil and the prices of a mask: limits, closed forms, and scipy for the blur."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from wsol.training.masking import Veil, advantage, area, blurred, smoothness, variation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(4, 3, 40, 56, generator=generator(3))


def whole(images, value):
    return torch.full((len(images), *images.shape[2:]), value)


def test_a_full_mask_shows_the_image_and_nothing_else(images):
    assert torch.equal(Veil(image_noise=0)(images, whole(images, 1.0), generator()), images)


def test_noise_has_the_stated_deviation():
    gray = torch.full((4, 3, 64, 64), 0.5)
    noise = Veil(image_noise=0.03)(gray, whole(gray, 1.0), generator()) - gray
    assert noise.std().item() == pytest.approx(0.03, rel=0.02)
    plain = Veil(blur=0.0, color=0.0, color_noise=0.1)(gray, whole(gray, 0.0), generator()) - 0.5
    assert plain.std().item() == pytest.approx(0.1, rel=0.02)


def test_an_empty_mask_leaves_the_alternative_alone(images):
    """Whatever the image: one color per channel around mid-gray."""
    bare = Veil(blur=0.0, color_noise=0.0, color=0.165)
    first, other = (bare(x, whole(images, 0.0), generator()) for x in (images, 1 - images))
    assert torch.equal(first, other)
    assert torch.equal(first, first[:, :, :1, :1].expand_as(first))
    many = bare(torch.rand(200, 3, 4, 4), torch.zeros(200, 4, 4), generator())[:, :, 0, 0]
    assert 0.335 <= many.min() < 0.35
    assert 0.65 < many.max() <= 0.665
    assert len(many.unique()) == 600  # each channel of each image its own


def test_an_empty_mask_leaves_the_blurred_image(images):
    hidden = Veil(blur=1.0, sigma=3.0, image_noise=0.0)(images, whole(images, 0.0), generator())
    assert torch.equal(hidden, blurred(images, 3.0))


@pytest.mark.parametrize("sigma", [1.0, 3.3, 11.0])
def test_the_blur_is_scipys(images, sigma):
    """Cut at int(2.5 sigma) px, which is 27 for 11: a kernel of 55."""
    found = blurred(images, sigma)
    for i in range(2):
        for channel in range(3):
            slow = gaussian_filter(images[i, channel].double().numpy(), sigma, mode="nearest", radius=int(2.5 * sigma))
            torch.testing.assert_close(found[i, channel].double(), torch.from_numpy(slow), rtol=0, atol=1e-5)
    assert blurred(images.bfloat16(), sigma).dtype == torch.bfloat16
    uniform = torch.full((1, 3, 5, 5), 0.3)
    torch.testing.assert_close(blurred(uniform, sigma), uniform)


def test_the_noisy_image_is_what_is_blurred(images):
    """A blur too narrow to reach a neighbor changes nothing: what is hidden is what is shown."""
    veil = Veil(blur=1.0, sigma=0.3, image_noise=0.2)
    hidden, shown = (veil(images, whole(images, m), generator()) for m in (0.0, 1.0))
    torch.testing.assert_close(hidden, shown)


def test_half_a_mask_is_half_of_each(images):
    veil = Veil(image_noise=0.0)
    shown, hidden, half = (veil(images, whole(images, m), generator()) for m in (1.0, 0.0, 0.5))
    torch.testing.assert_close(half, (shown + hidden) / 2)


def test_blur_and_color_come_by_chance():
    x = torch.rand(400, 3, 8, 8, generator=generator())
    hidden = Veil(blur=0.3, color_noise=0.0, image_noise=0.0)(x, torch.zeros(400, 8, 8), generator())
    flat = (hidden == hidden[:, :, :1, :1]).flatten(1).all(1)
    assert flat.float().mean().item() == pytest.approx(0.7, abs=0.06)


def test_draws_are_the_generators_and_the_gradient_is_the_masks(images):
    mask = whole(images, 0.5).requires_grad_(True)
    x = images.clone().requires_grad_(True)
    state = torch.get_rng_state()
    one, two, other = (Veil()(x, mask, generator(s)) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    one.sum().backward()
    assert x.grad is None
    assert mask.grad.abs().sum() > 0


def test_advantage_is_the_lead_over_the_best_other():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [-2e4, -3e4, -5e4]])
    assert advantage(logits, torch.tensor([1, 2, 1])).tolist() == [2.0, -2.0, -1e4]
    assert advantage(torch.tensor([[3.0, 5.0]]), torch.tensor([0])).tolist() == [-2.0]


@pytest.mark.parametrize("m", [0.0, 0.25, 1.0])
def test_the_area_of_a_uniform_mask(m):
    mask = torch.full((2, 5, 7), m, requires_grad=True)
    found = area(mask, 0.3)
    assert found.tolist() == pytest.approx([(m + 5e-4) ** 0.3] * 2)
    found.sum().backward()
    assert torch.isfinite(mask.grad).all()
    if not m:
        assert found[0].item() == pytest.approx(0.1023, abs=1e-4)  # an empty mask is not free


def test_a_uniform_mask_pays_for_its_border_only():
    mask = torch.full((1, 5, 7), 0.5)
    assert smoothness(mask, 0.3).item() == pytest.approx(0.3 * 0.25 * 2 * (5 + 7) / 2)
    assert smoothness(mask, 0.0).item() == variation(mask).item() == 0.0
    assert smoothness(torch.zeros(1, 5, 7), 0.3).item() == 0.0


def test_smoothness_pixel_by_pixel():
    mask = torch.rand(2, 5, 4, generator=generator(), dtype=torch.float64)
    for i in range(2):
        m = mask[i].tolist()
        steps = sum((m[y + 1][x] - m[y][x]) ** 2 for y in range(4) for x in range(4))
        steps += sum((m[y][x + 1] - m[y][x]) ** 2 for y in range(5) for x in range(3))
        edges = sum(m[0][x] ** 2 + m[4][x] ** 2 for x in range(4)) + sum(m[y][0] ** 2 + m[y][3] ** 2 for y in range(5))
        assert smoothness(mask, 0.3)[i].item() == pytest.approx((steps + 0.3 * edges) / 2)
        assert variation(mask)[i].item() == pytest.approx(steps)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"blur is a probability in \[0, 1\]; got 1.5"):
        Veil(blur=1.5)
    with pytest.raises(ValueError, match="sigma is the deviation of the blur"):
        Veil(sigma=0)
    with pytest.raises(ValueError, match="color_noise must not be negative"):
        Veil(color_noise=-0.1)
