from __future__ import annotations

import math
import time

import numpy as np
import pytest

from wsol.evaluation import PixelCounts, bootstrap, bootstrap_accuracy, count_pixels, pixel_intervals, ratio
from wsol.evaluation.intervals import cluster_sums, percentile_interval


def rng(seed=0):
    return np.random.default_rng(seed)


def test_replicates_equal_a_slow_loop(make_scene):
    """Draw patients, add up the counts of all their images, recompute: the vectorized one gives the same interval."""
    counts = [count_pixels(*make_scene(seed, prevalence=0.1 + 0.05 * seed)) for seed in range(8)]
    patients = ["a", "a", "b", "c", "c", "c", "d", "e"]
    fast = pixel_intervals(counts, patients, 0.4, generator=rng(), replicates=50)
    draws = rng().multinomial(5, np.full(5, 1 / 5), size=50)
    dice, pxap = [], []
    for draw in draws:
        chosen = [
            c
            for times, name in zip(draw, "abcde", strict=True)
            for c, p in zip(counts, patients, strict=True)
            if p == name
            for _ in range(times)
        ]
        total = PixelCounts.total(chosen)
        dice.append(total.at(0.4).dice)
        pxap.append(total.pxap)
    assert fast["dice"].bounds == pytest.approx(tuple(np.percentile(dice, [2.5, 97.5])), abs=1e-13)
    assert fast["pxap"].bounds == pytest.approx(tuple(np.percentile(pxap, [2.5, 97.5])), abs=1e-13)
    assert fast["dice"].clusters == 5


def test_interval_of_a_mean_has_the_textbook_width():
    values = rng(3).normal(10.0, 2.0, 400)
    table = np.column_stack([values, np.ones(400)])
    interval = bootstrap(table, [str(i) for i in range(400)], ratio, generator=rng(), replicates=4000)
    error = values.std() / np.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)


def test_clustered_intervals_cover_where_intervals_by_image_do_not():
    """Six images of a patient share most of their value: 95 percent by patient, far less if images pass for independent."""
    generator, covered, naive, trials = rng(5), 0, 0, 120
    patients = [str(p) for p in range(30) for _ in range(6)]
    for _ in range(trials):
        values = np.repeat(generator.normal(size=30), 6) + 0.3 * generator.normal(size=180)
        table = np.column_stack([values, np.ones(180)])
        for names in (patients, [str(i) for i in range(180)]):
            interval = bootstrap(table, names, ratio, generator=generator, replicates=300)
            hit = interval.low <= 0.0 <= interval.high
            covered, naive = covered + (hit and names is patients), naive + (hit and names is not patients)
    assert 0.88 <= covered / trials <= 0.99
    assert naive / trials < 0.7


def test_one_patient_or_unknown_ones_have_no_interval():
    table = np.ones((3, 2))
    single = bootstrap(table, ["a", "a", "a"], ratio, generator=rng())
    assert single.clusters == 1
    assert math.isnan(single.low)
    assert math.isnan(single.high)
    unknown = bootstrap(table, ["a", "b", ""], ratio, generator=rng())
    assert unknown.clusters == 0
    assert math.isnan(unknown.low)


def test_images_of_one_patient_move_together():
    values = np.array([0.0, 0.0, 1.0, 1.0])
    table = np.column_stack([values, np.ones(4)])
    by_patient = bootstrap(table, ["a", "a", "b", "b"], ratio, generator=rng())
    assert by_patient.bounds == (0.0, 1.0)  # only 0, 1/2 and 1 can be drawn, each end with chance 1/4


def test_same_generator_same_interval_and_order_does_not_matter():
    table, names = np.column_stack([rng(1).random(20), np.ones(20)]), [str(i // 2) for i in range(20)]
    first = bootstrap(table, names, ratio, generator=rng(7))
    assert first == bootstrap(table, names, ratio, generator=rng(7))
    assert first != bootstrap(table, names, ratio, generator=rng(8))
    turned = bootstrap(table[::-1], names[::-1], ratio, generator=rng(7))
    assert first.bounds == pytest.approx(turned.bounds, abs=1e-12)


def test_undefined_replicates_are_left_out_unless_most_are():
    assert percentile_interval(np.array([np.nan, 1.0, 1.0, 1.0]), 4).bounds == (1.0, 1.0)
    assert math.isnan(percentile_interval(np.array([np.nan, np.nan, np.nan, 1.0]), 4).low)


def test_accuracy_interval_unpacks_into_bounds_and_patients():
    bounds, patients = bootstrap_accuracy([0, 1] * 20, [0, 1] * 19 + [1, 0], [str(i) for i in range(40)], generator=rng())
    assert patients == 40
    assert bounds[0] < 38 / 40 < bounds[1] <= 1.0


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match=r"table \(3, 1\) and 2 clusters"):
        cluster_sums(np.ones(3), ["a", "b"])
    with pytest.raises(ValueError, match="1 of 2 rows hold NaN"):
        bootstrap(np.array([[1.0, 1], [np.nan, 1]]), ["a", "b"], ratio, generator=rng())
    with pytest.raises(ValueError, match=r"\(1,\) for \(2,\)"):
        bootstrap_accuracy([0, 1], [0], ["a", "b"], generator=rng())
    with pytest.raises(ValueError, match="level"):
        percentile_interval(np.ones(3), 3, level=95)


def test_a_thousand_replicates_of_a_thousand_images_are_quick():
    table = rng().integers(0, 400, (1000, 2, 1001))
    counts = [PixelCounts(*row) for row in table]
    start = time.process_time()
    pixel_intervals(counts, [str(i) for i in range(1000)], 0.5, generator=rng(), replicates=1000)
    assert time.process_time() - start < 4.0  # 0.2 s on an idle core; the bound is 2 s, doubled for a busy machine
