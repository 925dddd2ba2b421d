from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from wsol.evaluation import conformal_threshold, patients_needed, score_histogram
from wsol.evaluation.conformal import required_edges

BINS = 50


def at_edge(i, bins=100):
    """A patient of 100 pixels whose flagged area is exactly 5 % from edge i / bins on, and more below."""
    histogram = np.zeros(bins + 1, np.int64)
    np.add.at(histogram, [i - 1, bins, 0], [10, 5, 85])
    return histogram


def test_how_many_patients_are_needed():
    assert patients_needed(0.95) == 19
    assert patients_needed(0.9) == 9
    assert patients_needed(0.5) == 1
    # Wilks' sample sizes for 95 % / 95 %, as in the tables of tolerance limits
    assert [patients_needed(0.95, "confident", 0.95, m) for m in range(5)] == [59, 93, 124, 153, 181]
    assert patients_needed(0.99, "confident", 0.95) == 299
    assert [patients_needed(0.95, exceedances=m) for m in range(3)] == [19, 39, 59]
    with pytest.raises(ValueError, match="0 or more, got -1"):
        patients_needed(exceedances=-1)


@settings(max_examples=50, deadline=None)
@given(st.integers(50, 99), st.integers(50, 99), st.integers(0, 4))
def test_one_patient_less_would_not_do(level, confidence, m):
    level, confidence = level / 100, confidence / 100
    n = patients_needed(level, "confident", confidence, m)
    promise = [1 - sum(math.comb(n, j) * (1 - level) ** j * level ** (n - j) for j in range(m + 1)) for n in (n, n - 1)]
    assert promise[0] >= confidence - 1e-12
    assert promise[1] < confidence or n - 1 == m
    marginal = patients_needed(level, exceedances=m)
    assert (marginal - m) / (marginal + 1) >= level - 1e-12
    assert (marginal - 1 - m) / marginal < level


@pytest.mark.parametrize(
    ("n", "bound", "k"), [(19, "marginal", 19), (39, "marginal", 38), (59, "confident", 59), (93, "confident", 92)]
)
def test_the_threshold_is_the_order_statistic(n, bound, k):
    ordered = np.arange(1, n + 1)
    shuffled = np.random.default_rng(0).permutation(ordered)
    chosen = conformal_threshold([at_edge(i) for i in shuffled], [f"p{i}" for i in shuffled], bound=bound)
    assert chosen.value == ordered[k - 1] / 100
    facts = {"bound": bound, "level": 0.95, "area": 0.05, "patients": n, "within": "pooled"}
    assert chosen.facts == (facts | {"confidence": 0.95} if bound == "confident" else facts)
    assert chosen.badge == f"conformal ({n} negative patients)"


def test_one_patient_too_few_is_refused_and_both_numbers_named():
    def ask(n, **options):
        return conformal_threshold([at_edge(20)] * n, [str(i) for i in range(n)], **options)

    assert ask(59, bound="confident").value == 0.2
    with pytest.raises(ValueError, match=r"level 0.95, confidence 0.95 needs at least 59 negative patients, got 58"):
        ask(58, bound="confident")
    with pytest.raises(ValueError, match=r"marginal threshold at level 0.95 needs at least 19 negative patients, got 18"):
        ask(18)
    with pytest.raises(ValueError, match="needs at least 59 negative patients, got 20"):  # 100 images, but 20 patients
        conformal_threshold([at_edge(20)] * 100, [str(i % 20) for i in range(100)], bound="confident")


def test_the_area_of_a_patient_is_that_of_its_pixels_or_of_its_worst_image():
    large, small = np.array([960, 0, 0, 0, 40]), np.array([0, 0, 10, 0, 0])  # 4 % at score 1; all of it at 0.5
    assert required_edges(np.stack([large, small]), ["a", "a"], 0.05).tolist() == [0.25]  # at 0.25 and 0.5 50 of 1010, 4.95 %
    assert required_edges(np.stack([large, small]), ["a", "a"], 0.05, "worst").tolist() == [0.75]
    assert required_edges(np.stack([large, small]), ["a", "b"], 0.05).tolist() == [0.25, 0.75]
    chosen = conformal_threshold([large, small] * 19, [str(i // 2) for i in range(38)], within="worst")
    assert (chosen.value, chosen.facts["within"]) == (0.75, "worst")
    exactly = np.array([71, 0, 29])
    assert required_edges(exactly[None], ["a"], 0.29).tolist() == [0.5]  # 29 of 100 is no more than 0.29


def test_scores_that_saturate_are_refused_unless_the_level_leaves_them_out():
    ones = score_histogram(np.ones((2, 2), np.float32), bins=100)
    names = [str(i) for i in range(39)]
    assert conformal_threshold([ones] + [at_edge(20)] * 38, names).value == 0.2  # the one that may exceed
    with pytest.raises(ValueError, match=r"2 of 39 negative patients are flagged on more than 0.05 .* even at threshold 1"):
        conformal_threshold([ones] * 2 + [at_edge(20)] * 37, names)


@pytest.mark.parametrize(
    ("histograms", "patients", "options", "message"),
    [
        ([at_edge(3)] * 2, ["a", ""], {}, "patient of 1 of 2 images is unknown"),
        ([at_edge(3)], ["a", "b"], {}, "got 2 for 1"),
        ([], [], {}, "at least one"),
        ([at_edge(3), at_edge(3, 50)], ["a", "b"], {}, r"of one length; got int64 \(51,\) at 1 beside \(101,\)"),
        ([at_edge(3), at_edge(3) * 0], ["a", "b"], {}, "histogram 1 of patient 'b' has no pixel"),
        ([at_edge(3) * 0.5], ["a"], {}, "got float64"),
        ([at_edge(3)], ["a"], {"area": 1.0}, r"in \[0, 1\), got 1.0"),
        ([at_edge(3)], ["a"], {"area": math.nan}, "got nan"),
        ([at_edge(3)], ["a"], {"level": 95}, "level must lie between 0 and 1, got 95"),
        ([at_edge(3)], ["a"], {"confidence": 1.0}, "confidence must lie"),
        ([at_edge(3)], ["a"], {"bound": "confidant"}, "did you mean 'confident'"),
        ([at_edge(3)], ["a"], {"within": "pool"}, "did you mean 'pooled'"),
    ],
)
def test_nonsense_is_refused(histograms, patients, options, message):
    with pytest.raises(ValueError, match=message):
        conformal_threshold(histograms, patients, **options)


# Simulated patients: several images each, whose scores share a patient effect larger than that of the image.


def negatives(patients, images, generator, shift=0.0):
    """Histograms (patients, images, BINS + 1) of 200 pixels an image."""
    effect = 1.0 * generator.normal(size=(patients, 1, 1)) + 0.2 * generator.normal(size=(patients, images, 1))
    score = 1 / (1 + np.exp(2.5 - shift - effect - 0.5 * generator.normal(size=(patients, images, 200))))
    flat = (score * BINS).astype(np.int64).reshape(patients * images, -1) + np.arange(patients * images)[:, None] * (BINS + 1)
    return np.bincount(flat.ravel(), minlength=patients * images * (BINS + 1)).reshape(patients, images, BINS + 1)


IMAGES, POOL = 6, 1500


@pytest.fixture(scope="module")
def pool():
    """A population of patients: calibration sets are drawn from it, and coverage over it is exact."""
    return negatives(POOL, IMAGES, np.random.default_rng(0))


def names_of(n):
    return [f"p{i // IMAGES}" for i in range(n * IMAGES)]


def coverage_of_sets(pool, n, sets, names, future=None, **options):
    """Share of the population that keeps to the area at the threshold of each calibration set of n patients: (sets,)."""
    generator = np.random.default_rng(1)
    future = pool if future is None else future
    required = required_edges(future.reshape(-1, BINS + 1), names_of(len(future)), 0.05, options.get("within", "pooled"))
    found = []
    for _ in range(sets):
        drawn = pool[generator.integers(0, len(pool), n)].reshape(-1, BINS + 1)
        found.append((required <= conformal_threshold(drawn, names, area=0.05, **options).value).mean())
    return np.array(found)


@pytest.mark.parametrize("within", ["pooled", "worst"])
def test_marginal_coverage_holds_on_average(pool, within):
    covered = coverage_of_sets(pool, 30, 400, names_of(30), level=0.9, within=within)
    error = covered.std() / np.sqrt(covered.size)
    assert covered.mean() >= 0.9 - 3 * error
    assert covered.mean() < 0.97  # k / (n + 1) = 0.903 and what the ties of bins add: not merely cautious
    assert (covered < 0.9).mean() > 0.2  # and single sets do fall short: that is what "confident" is for


def test_the_confident_bound_fails_in_few_calibration_sets(pool):
    covered = coverage_of_sets(pool, 60, 400, names_of(60), bound="confident")
    failed = (covered < 0.95).mean()
    assert failed <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / covered.size)
    assert (coverage_of_sets(pool, 60, 400, names_of(60)) < 0.95).mean() > 0.15  # the marginal bound does not promise that


def test_images_taken_for_patients_break_the_promise(pool):
    """20 patients of 6 images are 120 "patients" to whoever forgets: enough to be accepted, and wrong far too often."""
    images = [f"image {i}" for i in range(20 * IMAGES)]
    with pytest.raises(ValueError, match="needs at least 59 negative patients, got 20"):
        coverage_of_sets(pool, 20, 1, names_of(20), bound="confident")
    failed = (coverage_of_sets(pool, 20, 300, images, bound="confident") < 0.95).mean()
    assert failed > 0.15  # of 5 % promised
    assert coverage_of_sets(pool, 20, 300, images).mean() < 0.945  # the marginal promise of 0.95 is broken too


def test_another_scanner_voids_the_promise(pool):
    """Scores of new patients shifted up: coverage falls far below the level, though nothing in the calibration could tell."""
    shifted = negatives(POOL, IMAGES, np.random.default_rng(2), shift=1.0)
    covered = coverage_of_sets(pool, 60, 100, names_of(60), future=shifted, bound="confident")
    assert covered.mean() < 0.93
    assert (covered < 0.95).mean() > 0.5
    unshifted = coverage_of_sets(pool, 60, 100, names_of(60), bound="confident")
    assert (unshifted < 0.95).mean() < 0.15


def test_the_rank_of_the_confident_bound_is_the_smallest_that_keeps_it():
    for n in (59, 92, 93, 150, 300):
        histograms = np.stack([at_edge(i + 1, 1000) for i in range(n)])
        k = round(conformal_threshold(list(histograms), [str(i) for i in range(n)], bound="confident").value * 1000)
        assert binom.cdf(k - 1, n, 0.95) >= 0.95 > binom.cdf(k - 2, n, 0.95)
