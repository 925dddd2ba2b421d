from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.evaluation import (
    PixelCounts,
    Threshold,
    best_threshold,
    count_pixels,
    oracle_spread,
    plateau,
    ranking_over_thresholds,
    transfer,
)
from wsol.evaluation.counts import edges


def levels(low, high, n=100):
    """Half the pixels at `low`, half at `high`; the high ones are the mask: perfect for every edge in (low, high]."""
    score = np.repeat(np.array([low, high], np.float32), n)[None]
    return count_pixels(score, score > (low + high) / 2)


NOTHING = count_pixels(np.full((1, 9), 0.5, np.float32), np.zeros((1, 9), bool))


def test_transfer_of_a_known_case():
    counts = levels(0.25, 0.75)
    lost = transfer(counts, Threshold(0.8, "validation masks", masks=6))  # nothing is flagged any more
    assert (lost.value, lost.best, lost.gap) == (0.0, 1.0, 1.0)
    assert lost.oracle == Threshold(best_threshold(counts).value, "test oracle")
    assert lost.plateau == plateau(counts)
    assert transfer(counts, 0.1).value == 2 / 3  # everything is flagged
    assert transfer(counts, 0.1, "iou")[:3] == (0.5, 1.0, 0.5)
    assert transfer(counts, Threshold(0.50004, "fixed")).gap == 0.0
    assert transfer({"a": counts}, 0.1)[:3] == transfer(counts, 0.1)[:3]


def test_a_threshold_per_sample_may_beat_the_best_common_one():
    counts = {"dark": levels(0.1, 0.3), "bright": levels(0.6, 0.9)}
    each = Threshold.per_sample({"dark": 0.2, "bright": 0.7}, "per-image otsu")
    found = transfer(counts, each)
    assert found.value == 1.0
    assert found.best == 0.8  # at 0.3 or below: TP 200, FP 100; above: TP 100, FN 100, Dice 2/3
    assert found.gap == pytest.approx(-0.2)
    with pytest.raises(ValueError, match="needs the names"):
        transfer(PixelCounts.total(counts.values()), each)


TABLES = st.tuples(*[st.integers(0, 4)] * 22)  # positives and negatives of 10 bins


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 4)] * 22), min_size=1, max_size=4), st.integers(0, 10), st.sampled_from(["dice", "iou"])
)
def test_no_common_threshold_beats_the_oracle_nor_the_oracles_of_the_samples(tables, i, metric):
    counts = {str(k): PixelCounts(np.array(t[:11]), np.array(t[11:])) for k, t in enumerate(tables)}
    threshold = i / 10
    found, spread = transfer(counts, threshold, metric), oracle_spread(counts, metric, threshold)
    with_positives = {s: c for s, c in counts.items() if c.positives.any()}
    assert set(spread.values) == set(with_positives)
    if not with_positives:
        assert all(math.isnan(v) for v in (*found[:3], *spread[2:]))
        return
    assert found.gap >= 0
    assert found.gap == pytest.approx(max(getattr(found_at(counts, e), metric) for e in edges(10)) - found.value)
    best = {s: max(getattr(c.at(float(e)), metric) for e in edges(10)) for s, c in with_positives.items()}
    assert spread.best == best
    reached = [getattr(c.at(threshold), metric) for c in with_positives.values()]
    assert spread.lost == pytest.approx(np.mean(list(best.values())) - np.mean(reached), abs=1e-14)
    assert spread.lost >= -1e-15


def found_at(counts, edge):
    return PixelCounts.total(counts.values()).at(float(edge))


def test_without_positives_nothing_transfers():
    value, best, gap, oracle, flat = transfer(NOTHING, 0.5)
    assert all(math.isnan(v) for v in (value, best, gap))
    assert (oracle, flat) == (None, None)
    assert oracle_spread({"a": NOTHING}).values == {}


def test_the_spread_of_known_oracles():
    counts = {f"{i}": levels(0.1 * i, 0.1 * i + 0.1) for i in range(1, 6)} | {"normal": NOTHING}
    spread = oracle_spread(counts)
    own = [best_threshold(counts[str(i)]).value for i in range(1, 6)]  # the middle of (0.1 i, 0.1 i + 0.1]
    assert own == pytest.approx([0.15, 0.25, 0.35, 0.45, 0.55], abs=0.001)
    assert list(spread.values.values()) == own
    assert (spread.low_quartile, spread.median, spread.high_quartile) == (own[1], own[2], own[3])
    assert spread.iqr == own[3] - own[1]
    assert spread.best == {str(i): 1.0 for i in range(1, 6)}
    common = best_threshold(PixelCounts.total(counts.values())).value
    reached = [counts[str(i)].at(common).dice for i in range(1, 6)]
    assert spread.lost == pytest.approx(1 - np.mean(reached))
    one = oracle_spread({"1": counts["1"]})
    assert (one.iqr, one.lost) == (0.0, 0.0)
    each = Threshold.per_sample(spread.values, "test oracle")
    assert oracle_spread(counts, threshold=each).lost == 0.0


@pytest.fixture
def methods():
    """Four methods on the same 2,000 pixels, of different quality and range."""
    generator = np.random.default_rng(3)
    mask = generator.random((40, 50)) < 0.3
    made = {}
    for name, signal, power in [("a", 0.9, 1.0), ("b", 0.5, 0.5), ("c", 0.3, 3.0), ("d", 0.0, 1.0)]:
        raw = (signal * mask + generator.random(mask.shape)) / (1 + signal)
        made[name] = count_pixels((raw**power).astype(np.float32), mask)
    return made


@pytest.mark.parametrize("metric", ["dice", "precision"])
def test_ranks_and_tau_are_those_of_scipy(methods, metric):
    from scipy.stats import kendalltau, rankdata

    found = ranking_over_thresholds(methods, metric)
    assert found.threshold == pytest.approx(np.linspace(0, 1, 101), abs=1e-12)
    pxap = np.array([c.pxap for c in methods.values()])
    for j, threshold in enumerate(found.threshold):
        values = np.array([getattr(c.at(float(threshold)), metric) for c in methods.values()])
        assert found.ranks[:, j] == pytest.approx(rankdata(-values, nan_policy="omit"), nan_ok=True)
        kept = ~np.isnan(values)
        theirs = kendalltau(values[kept], pxap[kept]).statistic if kept.sum() > 1 else math.nan
        assert found.tau[j] == pytest.approx(theirs, abs=1e-12, nan_ok=True)
        if kept.any():
            assert values[found.methods.index(found.best[j])] == np.nanmax(values)
        else:
            assert found.best[j] == ""
    assert np.isnan(found.ranks).any() == (metric == "precision")  # nothing reaches the top threshold


def test_overtaking_by_hand():
    def made(positives, negatives):
        return PixelCounts(np.array(positives), np.array(negatives))

    # recall at edges 0, 1/3, 2/3, 1:  a 1, .5, .5, 0   b 1, 1, 0, 0
    counts = {"a": made([2, 0, 2, 0], [4, 0, 0, 0]), "b": made([0, 4, 0, 0], [0, 4, 0, 0])}
    found = ranking_over_thresholds(counts, "recall", points=4)
    assert found.ranks.tolist() == [[1.5, 2, 1, 1.5], [1.5, 1, 2, 1.5]]
    assert found.best == ("a", "b", "a", "a")  # of equals the higher PxAP: a 0.5 + 0.25, b 0.5
    assert found.changes == 1
    assert found.tau.tolist() == pytest.approx([math.nan, -1, 1, math.nan], nan_ok=True)


def test_of_equal_methods_none_overtakes_and_a_lone_one_is_first(methods):
    twin = ranking_over_thresholds({"a": methods["a"], "again": methods["a"]})
    assert (twin.ranks == 1.5).all()
    assert (twin.changes, set(twin.best)) == (0, {"a"})
    assert np.isnan(twin.tau).all()
    lone = ranking_over_thresholds({"a": methods["a"]})
    assert (lone.ranks == 1).all()
    assert (set(lone.best), lone.changes) == ({"a"}, 0)


def test_the_order_of_the_methods_does_not_matter(methods):
    there, back = ranking_over_thresholds(methods), ranking_over_thresholds(dict(reversed(methods.items())))
    assert np.array_equal(there.ranks, back.ranks[::-1])
    assert there.tau == pytest.approx(back.tau, nan_ok=True)
    assert (there.best, there.changes) == (back.best, back.changes)


def test_without_positives_there_is_no_ranking():
    found = ranking_over_thresholds({"a": NOTHING, "b": NOTHING})
    assert np.isnan(found.ranks).all()
    assert np.isnan(found.tau).all()
    assert (set(found.best), found.changes) == ({""}, 0)


def test_nonsense_is_refused(methods):
    with pytest.raises(ValueError, match="same pixels"):
        ranking_over_thresholds({**methods, "e": NOTHING})
    with pytest.raises(ValueError, match="of no method"):
        ranking_over_thresholds({})
    with pytest.raises(ValueError, match="1001 edges, got 2000"):
        ranking_over_thresholds(methods, points=2000)
    for function in (transfer, oracle_spread):
        with pytest.raises(ValueError, match="did you mean 'dice'"):
            function({"a": NOTHING}, **({"threshold": 0.5} if function is transfer else {}), metric="dise")
    with pytest.raises(ValueError, match="did you mean 'precision'"):
        ranking_over_thresholds(methods, "precison")
    with pytest.raises(ValueError, match="no counts to add"):
        oracle_spread({})
