from __future__ import annotations

import numpy as np
import pytest

from wsol.data.sources.phantom_flaws import FLAWS, INKS, draw_flawed, small


@pytest.fixture(scope="module")
def drawn():
    """(rgb, masks) of one slide with all flaws, and the same slide without any."""
    return draw_flawed(1024, 5), draw_flawed(1024, 5, flaws=())


def test_same_seed_same_bits(drawn):
    again, masks = draw_flawed(1024, 5)
    np.testing.assert_array_equal(again, drawn[0][0])
    assert set(masks) == {"tissue", *FLAWS}
    assert all(np.array_equal(masks[name], mask) and mask.dtype == bool for name, mask in drawn[0][1].items())


def test_every_flaw_is_where_its_mask_says(drawn):
    (rgb, masks), (plain, _) = drawn
    assert rgb[masks["border"]].max() < 5
    away = ~masks["pen"] & ~masks["border"]
    marker = rgb[masks["pen"] & ~masks["border"]].mean(axis=0)
    assert np.abs(marker - np.mean(list(INKS.values()), axis=0)).max() < 60
    for name in ("fat", "mucin"):
        where = masks[name] & away
        assert 190 < rgb[where].mean() < 245  # pale
    contrast = {name: image[masks["blur"] & away].std() for name, image in (("blurred", rgb), ("sharp", plain))}
    assert contrast["blurred"] < contrast["sharp"]
    line = masks["coverslip"] & away
    assert np.ptp(rgb[line].mean(axis=0)) < 20  # gray
    glass = ~masks["tissue"] & away & ~masks["coverslip"]
    assert rgb[line].mean() < rgb[glass].mean() - 20


def test_a_fold_is_twice_as_dense():
    rgb, masks = draw_flawed(2048, 1, flaws=["fold"])
    plain, _ = draw_flawed(2048, 1, flaws=[])
    fold = masks["fold"]
    od = [-np.log((image[fold].astype(float) + 1) / 256).mean() for image in (rgb, plain)]
    assert 1.7 < od[0] / od[1] < 2.1
    np.testing.assert_array_equal(masks["tissue"], draw_flawed(2048, 1, flaws=[])[1]["tissue"])


def test_tissue_is_what_marker_and_border_leave(drawn):
    masks = drawn[0][1]
    assert not (masks["tissue"] & (masks["pen"] | masks["border"] | masks["coverslip"])).any()
    for name in ("fat", "mucin", "fold", "blur"):
        assert masks[name].any()
        assert not (masks[name] & ~masks["tissue"]).any()


def test_names_and_size_are_checked():
    with pytest.raises(ValueError, match="unknown flaw 'penn'; did you mean 'pen'"):
        draw_flawed(512, 0, flaws=["penn"])
    with pytest.raises(ValueError, match="unknown pen 'pink'"):
        draw_flawed(512, 0, pens=["pink"])
    with pytest.raises(ValueError, match="at least 512 px"):
        draw_flawed(256, 0)


def test_small_is_the_majority():
    mask = np.zeros((4, 8), bool)
    mask[:2, :2] = mask[0, 4:6] = mask[2, 4] = True
    np.testing.assert_array_equal(small(mask, 2), [[True, False, True, False], [False, False, False, False]])
