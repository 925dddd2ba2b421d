from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.evaluation import METRICS, PixelCounts, Threshold, activation, count_pixels, summarize_activation
from wsol.evaluation.activations import Activation


def test_areas_are_those_of_the_masks(make_scene):
    """Each image at its own threshold, counted pixel by pixel."""
    scenes, thresholds = [make_scene(seed, prevalence=0.1 + 0.1 * seed) for seed in range(4)], [0.2, 0.4, 0.5, 0.7]
    rows = activation([count_pixels(*scene) for scene in scenes], thresholds, list("abcd"))
    for row, (score, mask), threshold in zip(rows, scenes, thresholds, strict=True):
        called = Threshold(threshold, "fixed").apply(score)
        assert row.threshold == threshold
        assert row.true_area == mask.mean()
        assert row.activated_area == called.mean()
        assert row.false_positive_area == (called & ~mask).mean()
        assert row.false_negative_area == (~called & mask).mean()
        assert row.error == pytest.approx(called.mean() - mask.mean())
        assert row.over == pytest.approx(called[~mask].mean())
        assert row.under == pytest.approx((~called)[mask].mean())
    assert [row.sample for row in rows] == list("abcd")
    assert [row.threshold for row in activation([count_pixels(*scene) for scene in scenes], 0.5, list("abcd"))] == [0.5] * 4


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=8, max_size=8), st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0]))
def test_areas_add_up(numbers, threshold):
    counts = PixelCounts(np.array(numbers[:4]), np.array(numbers[4:]))
    (row,) = activation([counts], threshold, ["a"])
    if not sum(numbers):
        assert math.isnan(row.activated_area)
        assert math.isnan(row.over)
        return
    assert row.activated_area - row.false_positive_area == pytest.approx(row.true_area - row.false_negative_area)
    assert row.error == pytest.approx(row.false_positive_area - row.false_negative_area)
    assert row.over == pytest.approx(counts.at(threshold).false_positive_rate, nan_ok=True)
    assert row.under == pytest.approx(counts.at(threshold).false_negative_rate, nan_ok=True)


def test_maps_that_say_everything_and_nothing():
    counts = PixelCounts(np.array([0, 30, 0]), np.array([0, 70, 0]))
    (everything,), (nothing,) = (activation([counts], t, ["a"]) for t in (0.5, 1.0))
    assert (everything.over, everything.under, everything.error) == (1.0, 0.0, 0.7)
    assert (nothing.over, nothing.under, nothing.error) == (0.0, 1.0, -0.3)
    assert everything.to_dict() == {
        "true_area": 0.3,
        "activated_area": 1.0,
        "false_positive_area": 0.7,
        "false_negative_area": 0.0,
    }


def test_the_summary_by_hand():
    """Over: 0.6 of background 0.8 (a) and 0.5 of 1 (c, exactly half is not more). Under: 0.15 of 0.2 (a). d has no pixels."""
    nan = float("nan")
    images = [
        Activation("a", 0.5, 0.2, 0.65, 0.6, 0.15),
        Activation("b", 0.5, 0.4, 0.3, 0.0, 0.1),
        Activation("c", 0.5, 0.0, 0.5, 0.5, 0.0),
        Activation("d", 0.5, nan, nan, nan, nan),
    ]
    found = summarize_activation(images)
    assert (found["true_area"], found["activated_area"], found["false_positive_area"], found["false_negative_area"]) == (
        0.2,
        0.5,
        0.5,
        0.1,
    )
    assert found["quartiles"]["true_area"] == pytest.approx([0.1, 0.3])
    assert found["error"] == pytest.approx(0.45)
    assert (found["over"], found["over_samples"]) == (pytest.approx(1 / 3), 3)
    assert (found["under"], found["under_samples"], found["samples"]) == (0.5, 2, 3)
    assert "more than 0.5 of the background" in found["rule"]
    strict = summarize_activation(images, 0.2)
    assert (strict["over"], strict["under"]) == (pytest.approx(2 / 3), 1.0)
    assert json.loads(json.dumps(summarize_activation(images[3:]), allow_nan=False))["over"] is None


def test_metrics_by_name(make_scene):
    from wsol._names import resolve

    counts = count_pixels(*make_scene(1))
    (row,) = activation([counts], 0.4, ["a"])
    for name in ("activated-area", "false-positive-area", "false-negative-area"):
        metric = resolve("metric", name, METRICS, "wsol.evaluation")
        assert metric(counts, 0.4) == getattr(row, name.replace("-", "_"))
        assert "MELBA" in metric.paper


def test_what_does_not_fit_is_refused():
    counts = PixelCounts.empty(10)
    with pytest.raises(ValueError, match="got 1 names and 2 thresholds for 1 images"):
        activation([counts], [0.5, 0.6], ["a"])
    with pytest.raises(ValueError, match="got 2 names and 1 thresholds"):
        activation([counts], 0.5, ["a", "b"])
    with pytest.raises(ValueError, match="is no edge of 10 bins"):
        activation([counts], 0.55, ["a"])
    with pytest.raises(ValueError, match="at least one"):
        summarize_activation([])
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.0"):
        summarize_activation(activation([counts], 0.5, ["a"]), 1.0)
