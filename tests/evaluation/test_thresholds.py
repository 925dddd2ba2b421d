from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol.evaluation import (
    Badges,
    PixelCounts,
    PixelCurve,
    Threshold,
    best_threshold,
    count_pixels,
    plateau,
)
from wsol.evaluation.counts import edges
from wsol.evaluation.protocol import ALLOWED
from wsol.evaluation.thresholds import SOURCES


def two_levels(low, high, n=100):
    """Half the pixels at `low`, half at `high`; the high ones are the mask."""
    score = np.repeat(np.array([low, high], np.float32), n)[None]
    return score, score > (low + high) / 2


def test_a_threshold_survives_a_file():
    for threshold in (
        Threshold(350 * 0.001, "validation masks", masks=6),
        Threshold(0.5, "fixed"),
        Threshold(0.1 + 0.2, "test oracle"),
    ):
        assert Threshold.from_dict(json.loads(json.dumps(threshold.to_dict()))) == threshold
    assert Threshold(0.5, "fixed").to_dict() == {"value": 0.5, "source": "fixed", "direction": ">="}


def test_a_threshold_says_where_it_comes_from():
    assert Threshold(0.5, "validation masks", masks=6).badge == "validation masks (6)"
    assert Threshold(0.5, "otsu").badge == "label-free (otsu)"
    assert Threshold(0.5, "test oracle").badge == "test oracle"
    with pytest.raises(ValueError, match="how many"):
        _ = Threshold(0.5, "validation masks").badge


shares = st.floats(0, 1)
FACTS = {
    "prevalence-matched": st.fixed_dictionaries({"prevalence": shares, "from": st.sampled_from(["given", "validation masks"])}),
    "conformal": st.fixed_dictionaries(
        {"bound": st.sampled_from(["marginal", "confident"]), "level": shares, "area": shares, "patients": st.integers(1, 10**6)},
        optional={"confidence": shares, "within": st.sampled_from(["pooled", "worst"])},
    ),
}


@st.composite
def thresholds(draw):
    source = draw(st.sampled_from(SOURCES))
    if source == "per-image otsu" or (source == "test oracle" and draw(st.booleans())):
        values = draw(st.dictionaries(st.text(min_size=1), shares, min_size=1, max_size=5))
        facts = draw(st.just({}) | st.just({"constant": 2})) if source == "per-image otsu" else {}
        return Threshold.per_sample(values, source, **facts)
    masks = draw(st.none() | st.integers(1, 100))
    return Threshold(draw(shares), source, masks=masks, facts=draw(FACTS.get(source, st.just({}))))


@settings(max_examples=200, deadline=None)
@given(thresholds())
def test_every_threshold_survives_text_to_the_last_bit(threshold):
    again = Threshold.from_dict(json.loads(json.dumps(threshold.to_dict())))
    assert again == threshold
    assert hash(again) == hash(threshold)
    assert {s: again.at(s) for s in threshold.values or {"": 0}} == (threshold.values or {"": threshold.value})


@settings(max_examples=100, deadline=None)
@given(thresholds().filter(lambda t: t.masks))
def test_every_badge_is_one_that_a_number_may_carry(threshold):
    others = {name: next(v for v in values if "n)" not in v) for name, values in ALLOWED.items()}
    assert Badges(**{**others, "threshold": threshold.badge, "code": "1"}).threshold == threshold.badge


def test_badges_of_all_sources():
    conformal = {"bound": "marginal", "level": 0.95, "area": 0.05, "patients": 59}
    assert Threshold(0.5, "conformal", facts=conformal).badge == "conformal (59 negative patients)"
    given, masks = {"prevalence": 0.2, "from": "given"}, {"prevalence": 0.2, "from": "validation masks"}
    assert Threshold(0.5, "prevalence-matched", facts=given).badge == "prevalence-matched (given)"
    assert Threshold(0.5, "prevalence-matched", masks=6, facts=masks).badge == "prevalence-matched (6 masks)"
    assert Threshold.per_sample({"a": 0.1}, "per-image otsu").badge == "label-free (per-image otsu)"
    with pytest.raises(ValueError, match="how many"):
        _ = Threshold(0.5, "prevalence-matched", facts=masks).badge


def test_a_threshold_per_sample():
    each = Threshold.per_sample({"a": 0.2, "b": 0.6, "c": 0.3, "d": 0.5004}, "per-image otsu")
    assert (each.value, each.at(), each.at("b")) == (0.3, 0.3, 0.6)  # the lower median, which is itself an edge
    assert Threshold(0.4, "per-image otsu", values=each.values).value == 0.4  # what numpy calls the median is one too
    score = np.array([[0.25, 0.55, 0.9]], np.float32)
    assert each.apply(score).tolist() == [[False, True, True]]
    assert each.apply(score, "a").tolist() == [[True, True, True]]
    assert each.apply(score, "b").tolist() == [[False, False, True]]
    assert each.on_edges(1000).values == {"a": 0.2, "b": 0.6, "c": 0.3, "d": 0.5}
    assert Threshold(0.35004, "fixed").on_edges(1000) == Threshold(0.35, "fixed")
    assert Threshold(0.5, "fixed").at("whichever") == 0.5
    with pytest.raises(ValueError, match="unknown sample of the threshold 'e'"):
        each.at("e")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("fixed", {"values": {"a": 0.5}}, "only 'per-image otsu' and 'test oracle'"),
        ("per-image otsu", {}, "one value per sample"),
        ("per-image otsu", {"values": {}}, "at least one sample"),
        ("per-image otsu", {"values": {"a": math.nan}}, "got nan for sample 'a'"),
        ("per-image otsu", {"values": {"a": 0.1, "b": 0.2}}, "is their median, 0.1; got 0.5"),
        ("fixed", {"facts": {"level": 0.9}}, "unknown fact of a threshold from 'fixed' 'level'"),
        ("conformal", {}, "must state bound, level, area, patients"),
        ("conformal", {"facts": {"bound": "marginl"}}, "did you mean 'marginal'"),
        ("conformal", {"facts": {"patients": 0}}, "whole number from 1 up, got 0"),
        ("conformal", {"facts": {"level": 95}}, r"level must be a share in \[0, 1\], got 95"),
        ("prevalence-matched", {"facts": {"prevalence": math.nan}}, "got nan"),
        ("prevalence-matched", {"facts": {"prevalenc": 0.1}}, "did you mean 'prevalence'"),
    ],
)
def test_facts_and_values_are_checked(source, options, message):
    with pytest.raises(ValueError, match=message):
        Threshold(0.5, source, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.2, "fixed"), r"in \[0, 1\], got 1.2"),
        ((math.nan, "fixed"), "got nan"),
        ((0.5, "validation mask"), "did you mean 'validation masks'"),
        ((0.5, "fixed", "<"), "got '<'"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Threshold(*arguments)
    with pytest.raises(ValueError, match="did you mean 'direction'"):
        Threshold.from_dict({"value": 0.5, "source": "fixed", "directions": ">="})
    with pytest.raises(ValueError, match="needs direction"):
        Threshold.from_dict({"value": 0.5, "source": "fixed"})


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(-2, 2))
def test_applying_flags_exactly_the_pixels_that_counts_flag(i, steps):
    """At an edge and its float32 neighbors: `score >= 0.35` alone would round 0.35 to float32 and differ."""
    value = float(edges(1000)[i])
    score = np.float32(value)
    for _ in range(abs(steps)):
        score = np.nextafter(score, np.float32(np.sign(steps) * 2))
    score = np.clip(np.array([[score]], np.float32), 0, 1)
    counts = count_pixels(score, np.ones((1, 1), bool))
    assert Threshold(value, "fixed").apply(score).sum() == counts.at(value).tp


def test_a_validation_threshold_does_on_test_what_it_says(make_scene):
    """The whole way: choose on validation counts, write, read, apply to test pixels; the counts of test say the same."""
    validation, (score, mask) = PixelCurve(), make_scene(9)
    for seed in range(3):
        validation.add(*make_scene(seed))
    chosen = Threshold.from_dict(json.loads(json.dumps(best_threshold(validation.counts, masks=3).to_dict())))
    flagged = chosen.apply(score)
    here = count_pixels(score, mask).at(chosen.value)
    assert here.dice == 2 * (flagged & mask).sum() / (flagged.sum() + mask.sum())
    assert chosen.direction == ">="
    assert here.dice > count_pixels(score, mask).at(round(1 - chosen.value, 3)).dice  # the mirrored one is another threshold


def test_best_threshold_is_the_best_of_all(make_scene):
    counts = count_pixels(*make_scene(0))
    for metric in ("dice", "iou"):
        chosen = best_threshold(counts, metric)
        assert getattr(counts.at(chosen.value), metric) == max(getattr(counts.at(float(e)), metric) for e in edges(1000))
    result = PixelCurve()
    result.add(*make_scene(0))
    assert result.result().threshold_at_best_dice == best_threshold(counts).value
    assert result.result().best_dice == counts.at(best_threshold(counts).value).dice


def test_of_equal_thresholds_the_middle_is_taken():
    counts = count_pixels(*two_levels(0.25, 0.75))  # perfect for every edge in (0.25, 0.75]
    assert best_threshold(counts).value == pytest.approx(0.5, abs=0.001)
    from wsol.evaluation.thresholds import middle_of_best

    assert middle_of_best(np.array([1.0, 0, 2, 2, 2, 0, 2])) == 3
    assert middle_of_best(np.array([2.0, 0, 2])) == 0  # runs of one length: the lowest
    assert middle_of_best(np.array([0.0, 2, 2, 1])) == 1  # an even run: the lower middle
    assert middle_of_best(np.array([np.nan, 1.0])) == 1
    assert middle_of_best(np.array([np.nan])) is None


def test_no_positive_pixel_no_best_threshold():
    with pytest.raises(ValueError, match=r"no positive pixel; use otsu\(\)"):
        best_threshold(PixelCounts.empty())
    with pytest.raises(ValueError, match="did you mean 'dice'"):
        best_threshold(PixelCounts.empty(), "dise")


def test_plateau_of_a_known_curve():
    wide = plateau(count_pixels(*two_levels(0.25, 0.75)))
    assert wide.low == pytest.approx(0.251)
    assert wide.high == pytest.approx(0.75)
    assert wide.width == pytest.approx(0.499)
    # recall falls linearly with the threshold, precision stays 1: dice = 2r / (1 + r) >= 0.95 iff r >= 0.95 / 1.05
    score = np.linspace(0, 1, 100_001, dtype=np.float32)[None]
    ramp = plateau(count_pixels(score, np.ones(score.shape, bool)))
    assert (ramp.low, ramp.high) == (0.0, pytest.approx(1 - 0.95 / 1.05, abs=0.001))
    assert plateau(count_pixels(*two_levels(0.25, 0.75)), share=1.0).width == pytest.approx(0.499)
    with pytest.raises(ValueError, match="share"):
        plateau(PixelCounts.empty(), share=0.0)
