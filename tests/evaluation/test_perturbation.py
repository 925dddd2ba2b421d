from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wsol.evaluation import deletion, insertion, masked_image
from wsol.evaluation.perturbation import filling, importance

SHAPE = (6, 8)
PIXELS = 48


def picture(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).random((3, *shape), dtype=np.float32)


def mean_red(images):
    """Class 1: the mean of red; linear in every pixel."""
    red = images[:, 0].astype(np.float64).mean(axis=(1, 2))
    return np.column_stack([1 - red, red])


def slow_curve(classify, start, end, score, target, counts):
    """One pixel after the other, in plain loops."""
    height, width = score.shape
    places = sorted(((y, x) for y in range(height) for x in range(width)), key=lambda p: (-score[p], p[0] * width + p[1]))
    current, curve = start.copy(), []
    for done in range(len(places) + 1):
        if done in counts:
            curve.append(classify(current[None])[0, target])
        if done < len(places):
            y, x = places[done]
            current[:, y, x] = end[:, y, x]
    return np.array(curve)


@pytest.mark.parametrize("steps", [1, 7, 48, 500])
@pytest.mark.parametrize("levels", [None, 3])
def test_curves_equal_a_slow_loop_over_pixels(steps, levels):
    image = picture()
    score = np.random.default_rng(1).random(SHAPE)
    score = np.round(score * levels) if levels else score
    counts = sorted({round(i * PIXELS / steps) for i in range(steps + 1)})
    blurred = ndimage.gaussian_filter(image, (0, 5, 5), mode="mirror", radius=(0, 5, 5))
    put = insertion(mean_red, image, score, 1, steps=steps, batch=5)
    np.testing.assert_allclose(put.probabilities, slow_curve(mean_red, blurred, image, score, 1, counts), atol=1e-6)
    gone = np.full_like(image, 0) + image.mean(axis=(1, 2), keepdims=True)
    taken = deletion(mean_red, image, score, 1, steps=steps)
    np.testing.assert_allclose(taken.probabilities, slow_curve(mean_red, image, gone, score, 1, counts), atol=1e-6)
    np.testing.assert_allclose(taken.fractions * PIXELS, counts)


def test_insertion_begins_at_the_filling_and_ends_at_the_image():
    image = picture()
    curve = insertion(mean_red, image, image[1], 1, fill="blur", steps=5)
    assert curve.probabilities[0] == mean_red(filling(image, "blur")[None])[0, 1]
    assert curve.probabilities[-1] == mean_red(image[None])[0, 1]
    assert (curve.fractions[0], curve.fractions[-1]) == (0, 1)


def test_deletion_is_insertion_backwards_with_the_map_turned_around():
    image, score = picture(), np.random.default_rng(2).permutation(PIXELS).reshape(SHAPE)
    put = insertion(mean_red, image, score, 1, fill="mean", steps=12)
    taken = deletion(mean_red, image, -score, 1, fill="mean", steps=12)
    np.testing.assert_array_equal(taken.probabilities[::-1], put.probabilities)
    assert taken.auc == pytest.approx(put.auc)


def test_area_of_a_mean_intensity_classifier_in_closed_form():
    # A white square of a quarter of the image, deleted to black: the probability falls from 1/4 to 0 over the first quarter of
    # the steps if it goes first, and over the last quarter if it goes last.
    image = np.zeros((3, 8, 8), np.float32)
    image[:, :4, :4] = 1
    square = image[0]
    assert deletion(mean_red, image, square, 1, fill=(0, 0, 0), steps=64).auc == pytest.approx(1 / 4 * 1 / 4 / 2)
    assert deletion(mean_red, image, -square, 1, fill=(0, 0, 0), steps=64).auc == pytest.approx(1 / 4 * (3 / 4 + 1 / 4 / 2))
    assert insertion(mean_red, image, square, 1, fill=(0, 0, 0), steps=64).auc == pytest.approx(1 / 4 * (1 - 1 / 4 / 2))


def test_a_constant_map_depends_on_the_order_of_ties_only():
    image = picture()
    raster = -np.arange(PIXELS).reshape(SHAPE)
    flat = deletion(mean_red, image, np.full(SHAPE, 0.5), 1, steps=9)
    np.testing.assert_array_equal(flat.probabilities, deletion(mean_red, image, raster, 1, steps=9).probabilities)
    np.testing.assert_array_equal(flat.probabilities, deletion(mean_red, image, np.zeros(SHAPE), 1, steps=9).probabilities)
    drawn = [deletion(mean_red, image, np.zeros(SHAPE), 1, steps=9, generator=np.random.default_rng(s)).auc for s in range(400)]
    straight = mean_red(image[None])[0, 1]  # to the mean color of the image itself: the mean of red never changes in the mean
    assert np.std(drawn) > 0
    assert np.mean(drawn) == pytest.approx(straight, abs=4 * np.std(drawn) / 20)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=12, max_size=12), st.booleans())
def test_ranks_are_a_permutation_that_never_puts_a_lower_score_first(values, at_random):
    score = np.array(values, float).reshape(3, 4)
    rank = importance(score, (3, 4), np.random.default_rng(0) if at_random else None)
    assert sorted(rank.ravel()) == list(range(12))
    assert (np.diff(score.ravel()[np.argsort(rank.ravel())]) <= 0).all()
    if not at_random:
        same = [rank.ravel()[score.ravel() == v] for v in np.unique(score)]
        assert all((np.diff(r) > 0).all() for r in same)


def test_a_mask_blends_image_and_filling():
    image = picture()
    np.testing.assert_allclose(masked_image(image, np.ones(SHAPE)), image)
    np.testing.assert_allclose(masked_image(image, np.zeros(SHAPE), "blur"), filling(image, "blur"), atol=1e-7)
    color, spread = np.array([0.485, 0.456, 0.406])[:, None, None], np.array([0.229, 0.224, 0.225])[:, None, None]
    score = np.random.default_rng(3).random(SHAPE)
    kept = masked_image(image, score, color.ravel())
    np.testing.assert_allclose((kept - color) / spread, score * (image - color) / spread, atol=1e-5)  # Grad-CAM++'s product


def test_the_classifier_never_sees_more_images_than_the_batch():
    seen = []

    def watched(images):
        seen.append(images.shape)
        assert images.dtype == np.float32
        return mean_red(images)

    deletion(watched, picture(), picture(1)[0], 0, steps=10, batch=4)
    assert [s[0] for s in seen] == [4, 4, 3]


def test_wrong_inputs_say_what_is_wrong():
    image, score = picture(), picture()[0]
    broken = score.copy()
    broken[0, 0] = np.nan
    cases = [
        ({"image": image * 255}, r"an image must lie in \[0, 1\], got 0\.\d+ \.\.\. 25"),
        ({"image": image[:2]}, r"must be \(3, H, W\), got \(2, 6, 8\)"),
        ({"score": score[:3]}, r"its image's size \(6, 8\), got \(3, 8\)"),
        ({"score": broken}, "1 of 48 scores are NaN"),
        ({"target": 2}, r"a class in 0 \.\.\. 1, got 2"),
        ({"steps": 0}, "at least one step, got steps=0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"fill": "blurr"}, "did you mean 'blur'"),
        ({"fill": (0, 128, 0)}, r"fill must lie in \[0, 1\]"),
        ({"fill": (0, 1)}, r"a color \(3,\) or an image \(3, 6, 8\), got \(2,\)"),
        ({"classify": lambda x: mean_red(x) * 5 - 2}, "apply softmax"),
        ({"classify": lambda x: mean_red(x)[:, 0]}, r"must return \(10, k\) for 10 images, it returned \(10,\)"),
    ]
    for change, message in cases:
        given_ = {"classify": mean_red, "image": image, "score": score, "target": 1, "steps": 9, **change}
        with pytest.raises(ValueError, match=message):
            deletion(**given_)
    with pytest.raises(ValueError, match=r"scores must lie in \[0, 1\]"):
        masked_image(image, score * 2)
