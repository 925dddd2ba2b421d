from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsol.evaluation import Confusion, PixelCounts, average_precision, count_pixels, flagged_area, roc_auc
from wsol.evaluation.counts import edges

laws = settings(max_examples=60, deadline=None)
bins_of = st.integers(1, 12).flatmap(lambda n: st.tuples(*[hnp.arrays(np.int64, n + 1, elements=st.integers(0, 4))] * 2))


def pixels_of(counts):
    """Every pixel of the counts as (score, label), for metrics that want lists; at least one of each kind."""
    assume(counts.positives.any() and counts.negatives.any())
    scores = np.concatenate([np.repeat(edges(counts.bins), counts.positives), np.repeat(edges(counts.bins), counts.negatives)])
    return scores, np.arange(scores.size) < counts.positives.sum()


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


def test_the_fractions_of_a_confusion_by_hand():
    here = Confusion(0.5, tp=3, fp=1, fn=2, tn=4)
    assert (here.dice, here.iou) == (6 / 9, 3 / 6)
    assert (here.dice_background, here.iou_background) == (8 / 11, 4 / 7)
    assert here.miou == (3 / 6 + 4 / 7) / 2
    assert (here.precision, here.recall, here.false_negative_rate) == (3 / 4, 3 / 5, 2 / 5)
    assert (here.specificity, here.false_positive_rate) == (4 / 5, 1 / 5)
    assert (here.accuracy, here.area) == (7 / 10, 4 / 10)


SPOKEN = ("dice", "iou", "precision", "recall", "dice_background", "iou_background", "miou", "accuracy", "false_negative_rate")


def test_which_fractions_a_sample_without_positives_or_negatives_has():
    normal = Confusion(0.5, tp=0, fp=1, fn=0, tn=3)
    assert (normal.area, normal.specificity, normal.false_positive_rate) == (0.25, 0.75, 0.25)
    assert all(math.isnan(getattr(normal, name)) for name in SPOKEN)
    full = Confusion(0.5, tp=3, fp=0, fn=1, tn=0)
    assert (full.dice, full.recall, full.accuracy, full.area) == (6 / 7, 0.75, 0.75, 0.75)
    assert all(math.isnan(getattr(full, n)) for n in ("dice_background", "miou", "specificity", "false_positive_rate"))
    nothing = Confusion(0.5, 0, 0, 0, 0)
    assert all(math.isnan(getattr(nothing, n)) for n in (*SPOKEN, "specificity", "false_positive_rate", "area"))


@laws
@given(st.tuples(*[st.integers(0, 30)] * 4))
def test_the_fractions_of_a_confusion_are_those_of_scikit_learn(cells):
    from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

    tp, fp, fn, tn = cells
    assume(tp + fn and tn + fp and tp + fp)
    truth, called = np.repeat([1, 0, 1, 0], cells), np.repeat([1, 1, 0, 0], cells)
    here = Confusion(0.5, *cells)
    theirs = {
        "dice": f1_score(truth, called),
        "iou": jaccard_score(truth, called),
        "dice_background": f1_score(truth, called, pos_label=0),
        "iou_background": jaccard_score(truth, called, pos_label=0),
        "miou": jaccard_score(truth, called, average="macro"),
        "precision": precision_score(truth, called),
        "recall": recall_score(truth, called),
        "specificity": recall_score(truth, called, pos_label=0),
        "accuracy": accuracy_score(truth, called),
    }
    assert {name: getattr(here, name) for name in theirs} == pytest.approx(theirs, abs=1e-14)
    assert here.false_positive_rate == pytest.approx(1 - here.specificity)
    assert here.false_negative_rate == pytest.approx(1 - here.recall)


def test_confusions_add_up_and_forget_a_threshold_that_differs(make_scene):
    first, second = (count_pixels(*make_scene(seed)) for seed in (0, 1))
    assert first.at(0.4) + second.at(0.4) == (first + second).at(0.4)
    both = first.at(0.3) + second.at(0.6)
    assert math.isnan(both.threshold)
    assert both.tp == first.at(0.3).tp + second.at(0.6).tp
    assert both.tp + both.fp + both.fn + both.tn == first.pixels + second.pixels


@laws
@given(bins_of)
def test_the_curve_says_at_every_edge_what_the_confusion_says_there(arrays):
    counts = PixelCounts(*arrays)
    curve = counts.curve()
    assert {getattr(curve, name).dtype for name in ("tp", "fp", "fn", "tn")} == {np.dtype(np.int64)}
    for i, edge in enumerate(edges(counts.bins)):
        here = counts.at(float(edge))
        for name in ("tp", "fp", "fn", "tn", "precision", "recall", "dice", "iou", "dice_background", "specificity"):
            assert getattr(curve, name)[i] == pytest.approx(getattr(here, name), abs=1e-15, nan_ok=True), name


@laws
@given(bins_of)
def test_roc_auc_and_ap_are_those_of_scikit_learn_on_bins(arrays):
    from sklearn.metrics import average_precision_score, roc_auc_score

    counts = PixelCounts(*arrays)
    scores, truth = pixels_of(counts)
    assert counts.roc_auc == pytest.approx(roc_auc_score(truth, scores), abs=1e-14)
    ap, chance = average_precision_score(truth, scores), truth.mean()
    assert counts.pxap == pytest.approx(ap, abs=1e-14)
    assert counts.normalized_ap == pytest.approx((ap - chance) / (1 - chance), abs=1e-13)


@laws
@given(bins_of)
def test_roc_auc_is_mann_whitney_and_turns_with_the_sides(arrays):
    from scipy.stats import mannwhitneyu

    counts = PixelCounts(*arrays)
    scores, truth = pixels_of(counts)
    u = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert counts.roc_auc == pytest.approx(u / (truth.sum() * (~truth).sum()), abs=1e-14)
    assert PixelCounts(counts.negatives, counts.positives).roc_auc == pytest.approx(1 - counts.roc_auc, abs=1e-14)


def test_where_chance_and_perfection_lie():
    constant = PixelCounts(np.array([0, 3, 0]), np.array([0, 5, 0]))
    assert (constant.roc_auc, constant.normalized_ap) == (0.5, 0.0)
    perfect = PixelCounts(np.array([0, 0, 3]), np.array([5, 0, 0]))
    assert (perfect.roc_auc, perfect.normalized_ap) == (1.0, 1.0)
    wrong = PixelCounts(np.array([1, 2, 0]), np.array([0, 0, 5]))
    assert wrong.roc_auc == 0.0
    assert wrong.normalized_ap == pytest.approx((2 / 3 * 2 / 7 + 1 / 3 * 3 / 8 - 3 / 8) / (1 - 3 / 8))  # below 0
    for one_kind in (PixelCounts(np.array([1, 1]), np.array([0, 0])), PixelCounts(np.array([0, 0]), np.array([1, 1]))):
        assert math.isnan(one_kind.normalized_ap)
        assert math.isnan(one_kind.roc_auc)
    assert math.isnan(PixelCounts.empty().roc_auc)


def test_roc_auc_of_many_at_once_is_that_of_each_and_of_whole_slides():
    every = np.random.default_rng(0).integers(0, 9, (3, 2, 1001))
    assert roc_auc(every[:, 0], every[:, 1]) == pytest.approx([PixelCounts(p, n).roc_auc for p, n in every], abs=1e-14)
    huge = 10**10  # pairs beyond int64
    assert PixelCounts(every[0, 0] * huge, every[0, 1] * huge).roc_auc == pytest.approx(PixelCounts(*every[0]).roc_auc, abs=1e-14)
