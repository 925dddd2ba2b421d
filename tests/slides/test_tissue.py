from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsol.data.sources.phantom_flaws import INKS, draw_flawed, small
from wsol.slides import pen_mask, tissue_mask
from wsol.slides.regions import disk, without_small
from wsol.slides.tissue import glass_color

MPP, DOWN = 8.0, 16


def thumbnail(rgb):
    return cv2.resize(rgb, None, fx=1 / DOWN, fy=1 / DOWN, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module", params=[0, 1])
def flawed(request):
    rgb, masks = draw_flawed(2048, request.param, patient_seed=request.param)
    return thumbnail(rgb), {name: small(mask, DOWN) for name, mask in masks.items()}


def share(mask, of):
    return (mask & of).sum() / of.sum()


def test_pale_tissue_is_kept_and_what_is_none_is_dropped(flawed):
    rgb, truth = flawed
    mask, tissue = tissue_mask(rgb, MPP), truth["tissue"]
    assert (mask & tissue).sum() / (mask | tissue).sum() > 0.85
    assert share(mask, tissue) > 0.92
    assert share(mask, truth["fat"]) > 0.85
    assert share(mask, truth["mucin"]) > 0.9
    assert share(mask, truth["pen"]) < 0.2
    assert share(mask, truth["coverslip"]) < 0.2
    assert not (mask & truth["border"]).any()


def test_marker_is_found_and_little_else(flawed):
    rgb, truth = flawed
    pen = pen_mask(rgb, MPP)
    near = cv2.dilate((truth["pen"] | truth["border"]).astype(np.uint8), disk(160, MPP)) > 0
    assert share(pen, truth["pen"]) > 0.8
    assert not (pen & ~near).any()


def test_without_flaws_there_is_no_pen_and_nothing_is_lost():
    rgb, masks = draw_flawed(2048, 3, flaws=(), patient_seed=3)
    assert list(masks) == ["tissue"]
    small_rgb, tissue = thumbnail(rgb), small(masks["tissue"], DOWN)
    assert not pen_mask(small_rgb, MPP).any()
    mask = tissue_mask(small_rgb, MPP)
    assert (mask & tissue).sum() / (mask | tissue).sum() > 0.9


def test_mask_finds_the_block(stained):
    mask = tissue_mask(thumbnail(stained), MPP)
    truth = np.zeros((48, 64), bool)
    truth[6:31, 12:44] = True
    assert mask.dtype == bool
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85


@pytest.mark.parametrize("mpp", [2.0, 4.0, 8.0, 16.0])
def test_mask_at_any_resolution(stained, mpp):
    scale = 0.5 / mpp
    mask = tissue_mask(cv2.resize(stained, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), mpp)
    assert mask.mean() == pytest.approx(400 * 500 / 768 / 1024, rel=0.25)


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 243, 243), (236, 231, 237), (0, 0, 0)])
def test_glass_is_no_tissue(glass):
    rng = np.random.default_rng(0)
    rgb = np.clip(rng.normal(glass, 2, (64, 64, 3)), 0, 255).astype(np.uint8)
    assert not tissue_mask(rgb, MPP).any()


@pytest.mark.parametrize(
    "ink",
    [(30, 60, 190), (57, 76, 182), (20, 120, 60), (20, 20, 25), (80, 80, 85), (220, 75, 95), (120, 200, 150), *INKS.values()],
)
def test_pen_is_no_tissue(ink):
    rgb = np.full((128, 128, 3), 244, np.uint8)
    rgb[40:80, 20:100] = ink
    assert not tissue_mask(rgb, MPP).any()
    assert pen_mask(rgb, MPP)[40:80, 20:100].all()


def test_lymphoid_tissue_is_no_pen():
    """Nothing but hematoxylin, dense: its red is as dense as its green, and no marker's."""
    od = 0.9 * np.array([0.65, 0.70, 0.29]) / 0.70
    rgb = np.full((64, 64, 3), 244, np.uint8)
    rgb[16:48, 16:48] = 244 * np.exp(-od)
    assert not pen_mask(rgb, MPP).any()
    assert tissue_mask(rgb, MPP)[18:46, 18:46].all()


def test_gray_shadows_and_yellow_glue_are_no_tissue():
    rgb = np.full((128, 128, 3), 244, np.uint8)
    rgb[20:60, 20:100] = (200, 200, 201)
    rgb[70:110, 20:100] = (244, 240, 215)
    assert not tissue_mask(rgb, MPP).any()


def test_tinted_glass_is_the_zero_of_density():
    """A scanner whose glass is lilac: without its own zero the whole slide would be tissue."""
    rgb = np.full((128, 128, 3), (238, 228, 240), np.uint8)
    rgb[40:80, 40:80] = (220, 160, 200)
    np.testing.assert_array_equal(glass_color(rgb), [238, 228, 240])
    mask = tissue_mask(rgb, MPP)
    assert mask[42:78, 42:78].all()
    assert mask.sum() < 44 * 44


def test_glass_is_the_bright_one_of_what_is_frequent():
    """Twice as much mucin as glass: a mode of each channel would be of neither."""
    rgb = np.full((60, 60, 3), (222, 217, 232), np.uint8)
    rgb[:20] = (246, 244, 241)
    rgb[0, :5] = 255  # a few saturated px are no glass
    np.testing.assert_array_equal(glass_color(rgb), [246, 244, 241])
    assert tissue_mask(rgb, MPP)[25:].all()
    assert not tissue_mask(rgb, MPP)[:17].any()


def test_a_slide_full_of_tissue_has_no_glass_and_is_all_tissue():
    rgb = np.full((64, 64, 3), (220, 160, 200), np.uint8)
    np.testing.assert_array_equal(glass_color(rgb), [245, 245, 245])
    assert tissue_mask(rgb, MPP).all()


def test_holes_are_filled_and_dust_is_dropped(stained):
    rgb = cv2.resize(stained, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)  # 4 um per px
    rgb[25:50, 45:70] = 243  # a lumen of 100 um
    rgb[80:83, 100:103] = (150, 90, 170)  # dust of 12 um
    mask = tissue_mask(rgb, 4.0)
    assert mask[25:50, 45:70].all()
    assert not mask[75:90, 95:110].any()


def test_kernels_and_parts():
    assert disk(40, 8.0).shape == (5, 5)
    assert disk(3, 8.0).tolist() == [[1]]
    mask = np.zeros((6, 6), bool)
    mask[0, :3] = mask[2, 0] = mask[3, 1] = True  # three in a row, and two that touch by a corner
    assert without_small(mask, 3).sum() == 3
    assert without_small(mask, 2).sum() == 3
    assert without_small(mask, 1).sum() == 5


def test_real_slide_and_no_pen(shared_data):
    from wsol.slides import open_slide

    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        rgb = slide.thumbnail(MPP)
    assert not pen_mask(rgb, MPP).any()
    assert 0.35 < tissue_mask(rgb, MPP).mean() < 0.5
