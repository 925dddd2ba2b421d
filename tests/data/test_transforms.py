from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from wsol.data import eval_transform, to_tensor, train_transform
from wsol.slides import StainJitter


def image(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


def dihedral(square):
    """The eight flips and quarter turns."""
    turns = [np.rot90(square, k) for k in range(4)]
    return [t for turn in turns for t in (turn, turn[:, ::-1])]


def test_without_color_a_crop_is_a_turned_window():
    source = image()
    windows = {
        view.tobytes()
        for y in range(60 - 32 + 1)
        for x in range(80 - 32 + 1)
        for view in dihedral(source[y : y + 32, x : x + 32])
    }
    transform = train_transform(32, stain_jitter=0, color=0)
    crops = [transform(source, rng(i)) for i in range(30)]
    assert all(c.shape == (32, 32, 3) and c.dtype == np.uint8 and c.tobytes() in windows for c in crops)
    assert len({c.tobytes() for c in crops}) > 25


def test_all_eight_views_occur_and_no_other():
    source = image(16, 16)
    transform = train_transform(None, stain_jitter=0, color=0)
    seen = {transform(source, rng(i)).tobytes() for i in range(100)}
    assert seen == {v.tobytes() for v in dihedral(source)}


def test_small_images_are_padded_by_reflection():
    source = image(20, 50)
    transform = train_transform(40, stain_jitter=0, color=0)
    crop = transform(source, rng())
    assert crop.shape == (40, 40, 3)
    colors = {tuple(p) for p in source.reshape(-1, 3)}
    assert {tuple(p) for p in crop.reshape(-1, 3)} <= colors


def test_same_generator_same_pixels_whatever_came_before():
    transform = train_transform(32)
    first = transform(image(), rng(5))
    for i in range(7):
        transform(image(seed=i), rng(i))
    assert (transform(image(), rng(5)) == first).all()
    assert (train_transform(32)(image(), rng(5)) == first).all()
    assert (transform(image(), rng(6)) != first).any()


def test_one_generator_moves_on():
    transform, generator = train_transform(32), rng(0)
    assert (transform(image(), generator) != transform(image(), generator)).any()


def test_global_random_states_are_left_alone():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    train_transform(32)(image(), rng())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_color_and_stain_are_mild_and_can_be_left_out():
    flat = np.full((32, 32, 3), (180, 110, 160), np.uint8)
    still = train_transform(None, stain_jitter=0, color=0)
    assert (still(flat, rng()) == flat).all()
    assert (train_transform(None, stain_jitter=StainJitter(0.0, 0.0), color=0)(flat, rng()) == flat).all()
    for transform in (train_transform(None, stain_jitter=0, color=0.1), train_transform(None, stain_jitter=0.05, color=0)):
        moves = np.array([transform(flat, rng(i)).astype(int)[0, 0] - flat[0, 0] for i in range(50)])
        assert 2 < np.abs(moves).mean() < 25
        assert np.abs(moves.mean(0)).max() < 6


def test_stain_deviation_is_what_was_asked_for():
    from wsol.data.transforms import _stain

    jitter = _stain(0.1)
    gains = np.random.default_rng(0).uniform(1 - jitter.strength, 1 + jitter.strength, 20000)
    assert gains.std() == pytest.approx(0.1, rel=0.02)


def test_cached_pixels_stay_as_they_are():
    source = image()
    source.setflags(write=False)
    copy = source.copy()
    for transform in (train_transform(32), train_transform(None), eval_transform()):
        transform(source, rng())
    assert (source == copy).all()
    assert eval_transform()(source, rng()) is source


@pytest.mark.parametrize("crop", [32, 90, None])
def test_a_mask_moves_with_its_image(crop):
    """The mask marks the pixels of one color; where the image is cropped, padded and turned, it still does."""
    transform = train_transform(crop, stain_jitter=0, color=0)
    source = image()
    source[10:30, 20:60] = (7, 8, 9)
    mask = (source == (7, 8, 9)).all(2)
    for seed in range(12):
        changed, moved = transform.with_mask(source, mask, rng(seed))
        assert moved.dtype == np.bool_
        assert (moved == (changed == (7, 8, 9)).all(2)).all()


def test_a_mask_changes_nothing_in_the_image():
    transform, source = train_transform(32), image()
    changed, moved = transform.with_mask(source, np.ones((60, 80), bool), rng(3))
    assert (changed == transform(source, rng(3))).all()
    assert moved.all()
    with pytest.raises(ValueError, match=r"bool \(60, 80\), of the size of its image.*got bool \(60, 79\)"):
        transform.with_mask(source, np.ones((60, 79), bool), rng())
    with pytest.raises(ValueError, match="got uint8"):
        transform.with_mask(source, np.ones((60, 80), np.uint8), rng())


def test_wrong_input_is_refused():
    with pytest.raises(TypeError, match=r"uint8 \(H, W, 3\)"):
        train_transform(32)(image().astype(np.float32), rng())
    with pytest.raises(TypeError, match=r"uint8 \(H, W, 3\)"):
        eval_transform()(image()[..., 0], rng())
    with pytest.raises(ValueError, match="side in px"):
        train_transform(0)
    with pytest.raises(ValueError, match="strength in"):
        train_transform(32, color=2)
    with pytest.raises(ValueError, match="standard deviation"):
        train_transform(32, stain_jitter=0.7)


def test_to_tensor():
    source = image(2, 3)
    one = to_tensor(source)
    assert one.shape == (3, 2, 3)
    assert one.dtype == torch.float32
    assert torch.equal((one * 255).round().permute(1, 2, 0).to(torch.uint8), torch.from_numpy(source))
    assert to_tensor([source, source]).shape == (2, 3, 2, 3)
    assert float(to_tensor(np.full((1, 1, 3), 255, np.uint8)).max()) == 1.0
    with pytest.raises(ValueError, match="one size"):
        to_tensor([source, image(3, 2)])


def test_importing_the_room_file_loads_no_albumentations():
    import subprocess
    import sys

    code = "import sys, wsol.data.transforms; print('albumentations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
