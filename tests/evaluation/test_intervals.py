from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from wsol.evaluation import PixelCounts, bootstrap, bootstrap_accuracy, count_pixels, pixel_intervals, ratio
from wsol.evaluation.intervals import cluster_sums, percentile_interval, student_interval


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
    whole = PixelCounts.total(counts)
    for name, values, here in (("dice", dice, whole.at(0.4).dice), ("pxap", pxap, whole.pxap)):
        half = stats.t.ppf(0.975, 4) * np.std(values) * np.sqrt(5 / 4)  # five patients
        assert fast[name].bounds == pytest.approx((max(0.0, here - half), min(1.0, here + half)), abs=1e-12)
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


def test_t_interval_of_a_mean_is_that_of_student():
    """One sample per cluster: standard error s / sqrt(n), n - 1 degrees of freedom, but for the noise of the draws."""
    values = rng(4).normal(0.5, 0.1, 6)
    table, names = np.column_stack([values, np.ones(6)]), list("abcdef")
    found = bootstrap(table, names, ratio, generator=rng(), replicates=100_000, kind="t")
    oracle = stats.ttest_1samp(values, 0).confidence_interval()
    assert found.bounds == pytest.approx(tuple(oracle), abs=0.01 * (oracle.high - oracle.low))
    ninety = bootstrap(table, names, ratio, generator=rng(), replicates=100_000, kind="t", level=0.9)
    assert ninety.bounds == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval(0.9)), abs=0.005)
    cut = bootstrap(table, names, ratio, generator=rng(), kind="t", within=(0.49, 0.51))
    assert cut.bounds == (0.49, 0.51)
    middle = bootstrap(table, names, ratio, generator=rng(), kind="t").bounds
    assert np.mean(middle) == pytest.approx(values.mean())


def test_t_interval_of_few_patients_covers_where_the_percentile_interval_does_not():
    """Pooled Dice of six patients with one to three images; 95 percent asked."""

    def draw(generator, patients):
        names = np.repeat(np.arange(patients), generator.integers(1, 4, patients))
        recall = np.clip(generator.normal(0.75, 0.15, patients), 0.05, 1)[names]
        false = np.abs(generator.normal(0.15, 0.12, patients))[names]
        every = np.exp(generator.normal(5, 0.8, names.size)).round()
        return np.column_stack([(recall * every).round(), (1000 * false).round(), every]), names.astype(str)

    def dice(sums):
        return 2 * sums[:, 0] / sums.sum(axis=1)

    truth = dice(draw(rng(99), 100_000)[0].sum(axis=0)[None])[0]
    covered = {"percentile": 0, "t": 0}
    for seed in range(200):
        table, names = draw(rng(seed), 6)
        for kind in covered:
            found = bootstrap(table, names, dice, generator=rng(seed), replicates=300, kind=kind, within=(0, 1))
            covered[kind] += found.low <= truth <= found.high
    assert covered["percentile"] / 200 < 0.87
    assert 0.89 <= covered["t"] / 200 <= 0.98


def test_t_interval_where_there_is_none():
    values = rng().random(100)
    assert math.isnan(student_interval(values, 0.5, 1).low)
    assert math.isnan(student_interval(values, math.nan, 5).low)
    assert math.isnan(student_interval(np.full(100, np.nan), 0.5, 5).low)
    assert student_interval(np.ones(100), 1.0, 5).bounds == (1.0, 1.0)


def test_accuracy_interval_by_slide_and_by_kind():
    labels, hit = [0] * 12, [0] * 9 + [1] * 3
    slides = [str(i // 2) for i in range(12)]
    found = bootstrap_accuracy(labels, hit, slides, generator=rng(), kind="t")
    assert found.clusters == 6
    assert found.high == 1.0  # cut
    assert found.ends == [found.low, 1.0]
    assert found.low < bootstrap_accuracy(labels, hit, slides, generator=rng()).low


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
    with pytest.raises(ValueError, match="did you mean 'percentile'"):
        bootstrap(np.ones((2, 2)), ["a", "b"], ratio, generator=rng(), kind="percentil")
    with pytest.raises(ValueError, match="level"):
        percentile_interval(np.ones(3), 3, level=95)


def test_a_thousand_replicates_of_a_thousand_images_are_quick():
    table = rng().integers(0, 400, (1000, 2, 1001))
    counts = [PixelCounts(*row) for row in table]
    start = time.process_time()
    pixel_intervals(counts, [str(i) for i in range(1000)], 0.5, generator=rng(), replicates=1000)
    assert time.process_time() - start < 4.0  # 0.2 s on an idle core; the bound is 2 s, doubled for a busy machine


def test_all_right_is_no_certainty():
    """Clopper and Pearson: with n of n right the lower bound is (alpha / 2) ** (1 / n); patients are what is counted."""
    labels = np.array([0, 1, 1, 0, 1])
    found = bootstrap_accuracy(labels, labels, ["a", "b", "b", "c", "d"], generator=rng(), kind="t")
    exact = stats.binomtest(4, 4).proportion_ci(0.95, method="exact")
    assert found.bounds == pytest.approx((exact.low, exact.high))
    wrong = bootstrap_accuracy(labels, 1 - labels, ["a", "b", "b", "c", "d"], generator=rng(), kind="t")
    assert wrong.bounds == pytest.approx((0.0, 1 - exact.low))
