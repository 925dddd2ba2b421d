from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import wsol.evaluation as room
from wsol._names import resolve
from wsol.evaluation import PixelCounts, Threshold, count_pixels, macro
from wsol.evaluation.units import AT_THRESHOLD, OF_COUNTS, pooled_at


@pytest.fixture
def samples(make_scene):
    """Five samples of different size and prevalence; the last has no positive pixel."""
    shapes, shares = [(40, 50), (10, 10), (20, 30), (5, 40), (20, 20)], [0.3, 0.5, 0.1, 0.4, 0.0]
    return [make_scene(i, shape=s, prevalence=p) for i, (s, p) in enumerate(zip(shapes, shares, strict=True))]


@pytest.fixture
def counts(samples):
    return [count_pixels(*pair) for pair in samples]


def slow_dice(pairs, threshold):
    flagged = np.concatenate([np.ravel(score >= threshold) for score, _ in pairs])
    mask = np.concatenate([np.ravel(mask) for _, mask in pairs])
    return 2 * (flagged & mask).sum() / (flagged.sum() + mask.sum())


def test_macro_is_the_mean_over_pooled_units_each_counting_once(samples, counts):
    units = ["a", "b", "a", "c", "d"]
    expected = [slow_dice([samples[i] for i in mine], np.float32(0.5)) for mine in ([0, 2], [1], [3])]
    assert macro(counts, units, "dice", 0.5) == (pytest.approx(np.mean(expected), abs=1e-14), 4, 3)  # "d" has no positive
    assert macro(counts, ["x"] * 5, "dice", 0.5).mean == PixelCounts.total(counts).at(0.5).dice  # one unit: the pooled number
    assert macro(counts, units, "specificity", 0.5).defined == 4
    assert macro(counts[4:], ["d"], "dice", 0.5)[1:] == (1, 0)
    assert math.isnan(macro(counts[4:], ["d"], "dice", 0.5).mean)


def test_macro_pxap_per_image_is_scikit_learns(samples, counts):
    from sklearn.metrics import average_precision_score

    theirs = [average_precision_score(m.ravel(), np.floor(s.ravel().astype(np.float64) * 1000)) for s, m in samples[:4]]
    assert macro(counts, list("abcde"), "pxap") == (pytest.approx(np.mean(theirs), abs=1e-12), 5, 4)


@pytest.mark.parametrize("name", [*OF_COUNTS, *AT_THRESHOLD])
def test_a_name_and_the_metric_of_that_name_agree(counts, name):
    units, function = ["a", "b", "a", "b", "b"], resolve("metric", name, room.METRICS, "wsol.evaluation")
    threshold = 0.4 if name in AT_THRESHOLD else None
    assert macro(counts, units, name, threshold) == macro(counts, units, function, threshold)


def test_a_threshold_per_sample_flags_each_by_its_own(samples, counts):
    names = list("vwxyz")
    each = Threshold.per_sample(dict(zip(names, [0.3, 0.4, 0.5, 0.6, 0.7], strict=True)), "per-image otsu")
    flagged = [each.apply(score, name) for (score, _), name in zip(samples, names, strict=True)]
    masks = [mask for _, mask in samples]
    per_image = [2 * (f & m).sum() / (f.sum() + m.sum()) for f, m in zip(flagged[:4], masks[:4], strict=True)]
    assert macro(counts, names, "dice", each, samples=names) == (pytest.approx(np.mean(per_image)), 5, 4)
    f, m = np.concatenate([x.ravel() for x in flagged]), np.concatenate([x.ravel() for x in masks])
    assert macro(counts, ["one"] * 5, "dice", each, samples=names).mean == 2 * (f & m).sum() / (f.sum() + m.sum())
    with pytest.raises(ValueError, match="needs the names of the samples"):
        macro(counts, names, "dice", each)
    with pytest.raises(ValueError, match="needs a metric by name"):
        macro(counts, names, lambda c, t: c.at(t).dice, each, samples=names)
    with pytest.raises(ValueError, match="unknown sample of the threshold 'v2'"):
        macro(counts, names, "dice", each, samples=["v2", *names[1:]])


def test_a_threshold_between_edges_goes_to_the_nearest(counts):
    units = list("abcde")
    near = Threshold(0.40012, "fixed")
    assert macro(counts, units, "iou", near) == macro(counts, units, "iou", 0.4)
    assert macro(counts, units, lambda c, t: c.at(t).iou, near) == macro(counts, units, "iou", 0.4)
    assert pooled_at(counts, near) == PixelCounts.total(counts).at(0.4)
    with pytest.raises(ValueError, match="no edge"):
        macro(counts, units, "iou", 0.40012)


def test_unknown_units_give_no_mean(counts):
    mean, units, defined = macro(counts, ["a", "", "a", "b", "c"], "dice", 0.5)
    assert (math.isnan(mean), units, defined) == (True, 0, 0)


def test_nonsense_is_refused(counts):
    with pytest.raises(ValueError, match="got 2 for 5"):
        macro(counts, ["a", "b"], "pxap")
    with pytest.raises(ValueError, match="at least one sample"):
        macro([], [], "pxap")
    with pytest.raises(ValueError, match="did you mean 'dice'"):
        macro(counts, list("abcde"), "dise", 0.5)
    with pytest.raises(ValueError, match="dice needs a threshold"):
        macro(counts, list("abcde"), "dice")
    with pytest.raises(ValueError, match="one name per sample, got 1 for 5"):
        macro(counts, list("abcde"), "dice", 0.5, samples=["a"])


def test_no_name_of_the_face_is_also_a_file_of_the_room():
    """Importing `room/x.py` puts the module where the face's `x` is looked up first: the function `x` would be gone."""
    files = {p.stem for p in Path(room.__file__).parent.glob("*.py")}
    assert not files & set(room._WHERE)
