from __future__ import annotations

import math

import numpy as np
import pytest

from wsol.evaluation import PixelCounts, average_precision, count_pixels, flagged_area
from wsol.evaluation.counts import edges


def test_edges_are_the_fields_thresholds_and_print_as_they_are_said():
    assert edges(1000)[:-1] == pytest.approx(np.arange(0, 1, 0.001), rel=1e-15)
    assert edges(1000)[-1] == 1.0
    assert [float(e) for e in edges(1000)] == [float(f"{i / 1000:.3f}") for i in range(1001)]


@pytest.mark.parametrize("bins", [1, 7, 49, 98, 333, 1000, 4096])
def test_a_score_is_in_the_bin_whose_edges_hold_it(bins):
    on = edges(bins).astype(np.float32)
    score = np.clip(np.concatenate([on, np.nextafter(on, np.float32(2)), np.nextafter(on, np.float32(-1))]), 0, 1)[None]
    counts = count_pixels(score, np.ones(score.shape, bool), bins=bins)
    for edge in edges(bins):
        assert counts.at(float(edge)).tp == (score.astype(np.float64) >= edge).sum()


def test_arrays_come_back_as_they_went(make_scene):
    counts = count_pixels(*make_scene(0))
    again = PixelCounts.from_arrays(*(list(a) for a in counts.to_arrays()))  # a table on disk gives lists
    assert again.positives.dtype == np.int64
    assert np.array_equal(again.positives, counts.positives)
    assert np.array_equal(again.negatives, counts.negatives)
    assert again.bins == 1000


def test_every_edge_is_told_exactly_after_a_trip_through_text():
    counts = PixelCounts.empty()
    for i, edge in enumerate(edges(1000)):
        assert counts.edge_index(float(repr(float(edge)))) == i
        assert counts.edge_index(i * 0.001) == i  # 350 * 0.001 is 0.35000000000000003
        assert counts.edge_index(float(f"{edge:.3f}")) == i


def test_a_threshold_between_edges_is_refused_and_the_nearest_named(make_scene):
    counts = count_pixels(*make_scene(0))
    with pytest.raises(ValueError, match="no edge"):
        counts.at(1e-13)  # float32 scores lie between this and 0
    with pytest.raises(ValueError, match=r"threshold 0\.3504 is no edge of 1000 bins.*nearest edge is 0\.35"):
        counts.at(0.3504)
    assert counts.at(counts.nearest_edge(0.3504)).threshold == pytest.approx(0.35)
    for outside in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            counts.at(outside)


def test_threshold_zero_flags_all_and_one_flags_only_ones():
    counts = count_pixels(np.array([[0.0, 0.5, 1.0, 1.0]], np.float32), np.array([[True, False, True, False]]))
    assert flagged_area(counts, 0.0) == 1.0
    assert flagged_area(counts, 1.0) == 0.5
    assert (counts.at(1.0).tp, counts.at(1.0).fp) == (1, 1)


def test_a_negative_sample_has_an_area_and_no_dice():
    counts = count_pixels(np.array([[0.1, 0.9, 0.9, 0.9]], np.float32), np.zeros((1, 4), bool))
    here = counts.at(0.5)
    assert here.area == 0.75
    assert all(math.isnan(v) for v in (here.dice, here.iou, here.precision, here.recall))


def test_counts_refuse_what_is_no_count():
    good = np.zeros(11, np.int64)
    with pytest.raises(ValueError, match=r"positives must be integer counts .* got float64"):
        PixelCounts(good.astype(float), good)
    with pytest.raises(ValueError, match="negatives must not be negative, got -1 in bin 3"):
        PixelCounts(good, np.where(np.arange(11) == 3, -1, 0))
    with pytest.raises(ValueError, match="11 bins, negatives 12"):
        PixelCounts(good, np.zeros(12, np.int64))
    with pytest.raises(ValueError, match="no counts to add"):
        PixelCounts.total([])


def test_average_precision_of_many_at_once_is_that_of_each(make_scene):
    every = [count_pixels(*make_scene(seed)) for seed in range(4)] + [
        PixelCounts(np.zeros(1001, np.int64), np.ones(1001, np.int64))
    ]
    together = average_precision(np.stack([c.positives for c in every]), np.stack([c.negatives for c in every]))
    assert together[:4] == pytest.approx([c.pxap for c in every[:4]], abs=1e-14)
    assert math.isnan(together[4])
