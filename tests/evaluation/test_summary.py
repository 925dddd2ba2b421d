from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wsol.evaluation import PixelCounts, PixelCurve, Threshold, count_pixels, summarize, summarize_classification

GOLDEN = Path(__file__).parent / "golden.json"


def wave(index, size=60):
    """A map and a mask from plain trigonometry: the same on every machine and with every version of every generator."""
    y, x = np.mgrid[0:size, 0:size] / size
    field = np.sin(3 * x + index) * np.cos(2 * y - index) + 0.3 * np.sin(40 * x * y + index)
    score = np.round((field + 1.3) / 2.6, 4).astype(np.float32)
    return score, np.sin(3 * x + index + 0.3) * np.cos(2 * y - index) > 0.2


def cohort():
    """Six samples of three patients: four of class `tumor`, two of class `normal` without a positive pixel."""
    pairs = [wave(i) for i in range(6)]
    pairs[4:] = [(score, np.zeros_like(mask)) for score, mask in pairs[4:]]
    return pairs, {
        "samples": [f"s{i}" for i in range(6)],
        "labels": ["tumor"] * 4 + ["normal"] * 2,
        "patients": ["p0", "p0", "p1", "p2", "p0", "p2"],
    }


def summary(**changes):
    pairs, who = cohort()
    options = {
        **who,
        "threshold": Threshold(0.6, "validation masks", masks=2),
        "generator": np.random.default_rng(0),
        "replicates": 100,
    }
    return summarize([count_pixels(*p) for p in pairs], **{**options, **changes})


def golden_part():
    """What does not hang on a random stream."""
    result = summary()
    groups = {name: {k: v for k, v in g.items() if not k.endswith("interval")} for name, g in result["groups"].items()}
    return {
        "threshold": result["threshold"],
        "oracle": result["oracle"],
        "groups": groups,
        "negatives": {k: v for k, v in result["negatives"].items() if k != "interval"},
        "macro": result["macro"],
        "transfer": result["transfer"],
        "activation": result["activation"],
        "curve": {k: v[::10] for k, v in result["curve"].items()},
        "samples": result["samples"],
    }


def same(left, right):
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            same(left[key], right[key])
    elif isinstance(left, list | float):
        assert left == pytest.approx(right, abs=1e-12)
    else:
        assert left == right


def test_golden():
    """Rewritten on purpose only: python tests/evaluation/test_summary.py."""
    same(golden_part(), json.loads(GOLDEN.read_text()))


def test_it_is_plain_json():
    assert json.loads(json.dumps(summary(), allow_nan=False)) == summary()


def test_groups_are_those_of_their_pixels():
    pairs, who = cohort()
    result = summary()
    assert list(result["groups"]) == ["all", "normal", "tumor"]
    for name, group in result["groups"].items():
        curve = PixelCurve()
        for pair, label in zip(pairs, who["labels"], strict=True):
            if name in ("all", label):
                curve.add(*pair)
        if name == "normal":
            continue
        assert group["pxap"] == curve.result().pxap
        assert group["dice"] == curve.counts.at(0.6).dice
        assert group["prevalence"] == curve.result().prevalence
    assert (result["groups"]["all"]["samples"], result["groups"]["all"]["patients"]) == (6, 3)
    assert (result["groups"]["tumor"]["samples"], result["groups"]["tumor"]["patients"]) == (4, 3)
    assert (result["groups"]["normal"]["samples"], result["groups"]["normal"]["patients"]) == (2, 2)


def test_a_class_without_positives_has_nulls_and_a_prevalence_of_zero():
    normal = summary()["groups"]["normal"]
    assert normal["prevalence"] == 0.0
    for name in ("pxap", "dice", "iou", "precision", "recall", "oracle_dice", "oracle_iou", "ap"):
        assert normal[name] is None
    assert normal["pxap_interval"] == [None, None]


def test_negatives_are_scored_by_area_each_sample_once():
    pairs, _ = cohort()
    negatives = summary()["negatives"]
    areas = [float((score >= np.float32(0.6)).mean()) for score, _ in pairs[4:]]
    assert negatives["flagged_area"] == pytest.approx(np.mean(areas))
    assert (negatives["samples"], negatives["patients"]) == (2, 2)
    assert negatives["interval"] == [0.0, 1.0]  # two patients that differ say nothing: t of one degree of freedom is 12.7
    only = [count_pixels(*p) for p in pairs[:4]]
    who = {"samples": list("abcd"), "labels": ["t"] * 4, "patients": list("abcd")}
    generator = np.random.default_rng(0)
    assert summarize(only, **who, threshold=Threshold(0.6, "fixed"), generator=generator, replicates=10)["negatives"] is None


def test_the_oracle_is_named_and_never_worse():
    result = summary()
    assert result["oracle"]["source"] == "test oracle"
    assert result["threshold"] == {"value": pytest.approx(0.6), "source": "validation masks", "direction": ">=", "masks": 2}
    for value in (0.1, 0.5, 0.9):
        assert summary(threshold=Threshold(value, "fixed"))["groups"]["all"]["dice"] <= result["groups"]["all"]["oracle_dice"]


def test_a_set_without_any_positive_has_no_oracle():
    blank = [count_pixels(wave(0)[0], np.zeros((60, 60), bool))]
    result = summarize(
        blank,
        samples=["s"],
        labels=["normal"],
        patients=["p"],
        threshold=Threshold(0.5, "otsu"),
        generator=np.random.default_rng(0),
    )
    assert result["oracle"] is None
    assert result["groups"]["all"]["oracle_dice"] is None
    assert result["negatives"]["interval"] == [None, None]
    assert result["curve"]["dice"] == [None] * 101


def test_a_threshold_between_edges_is_rounded_and_said():
    result = summary(threshold=Threshold(0.60042, "fixed"))
    assert result["threshold"]["value"] == pytest.approx(0.6, abs=1e-12)


def test_the_curve_has_a_hundred_and_one_ascending_thresholds():
    curve = summary()["curve"]
    assert curve["threshold"] == pytest.approx(np.linspace(0, 1, 101))
    assert {len(v) for v in curve.values()} == {101}
    assert curve["recall"][0] == 1.0
    assert curve["recall"] == sorted(curve["recall"], reverse=True)


def test_intervals_hold_the_value_and_count_patients_not_images():
    group = summary()["groups"]["all"]
    for name in ("pxap", "dice"):
        low, high = group[f"{name}_interval"]
        assert low <= group[name] <= high
    assert summary(patients=["p"] * 6)["groups"]["all"]["pxap_interval"] == [None, None]
    unknown = summary(patients=["p0", "", "p1", "p2", "p0", "p2"])["groups"]["all"]
    assert unknown["pxap_interval"] == [None, None]
    assert unknown["patients"] == 3


def test_exact_average_precision_is_passed_on_per_group():
    groups = summary(exact={"all": 0.5, "tumor": float("nan")})["groups"]
    assert (groups["all"]["ap"], groups["tumor"]["ap"], groups["normal"]["ap"]) == (0.5, None, None)


def test_a_threshold_per_sample_is_pooled_over_its_own_decisions():
    pairs, who = cohort()
    each = {name: t for name, t in zip(who["samples"], (0.3, 0.4, 0.5, 0.6, 0.7, 0.8), strict=True)}
    result = summary(threshold=Threshold.per_sample(each, "per-image otsu"))
    tp = fp = fn = 0
    for name, (score, mask) in zip(who["samples"], pairs, strict=True):
        flagged = Threshold(each[name], "fixed").apply(score)
        tp, fp, fn = tp + (flagged & mask).sum(), fp + (flagged & ~mask).sum(), fn + (~flagged & mask).sum()
        assert result["samples"][name]["activated_area"] == pytest.approx(flagged.mean())
        assert result["samples"][name]["false_negative_area"] == pytest.approx((~flagged & mask).mean())
    assert result["groups"]["all"]["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert result["threshold"]["values"] == each


def test_every_source_says_what_it_would_give_or_why_not():
    sources = {"fixed": Threshold(0.5, "fixed"), "conformal": "needs 19 negative patients, 2 came"}
    table = summary(candidates=sources)["thresholds"]
    assert table["conformal"] == {"refused": "needs 19 negative patients, 2 came"}
    assert table["fixed"]["dice"] == summary(threshold=sources["fixed"])["groups"]["all"]["dice"]
    assert table["fixed"]["flagged_area"] == summary(threshold=sources["fixed"])["negatives"]["flagged_area"]
    assert table["test oracle"]["gap"] == 0.0
    assert table["fixed"]["gap"] == pytest.approx(table["test oracle"]["dice"] - table["fixed"]["dice"])


def test_macro_means_count_each_unit_once():
    pairs, _ = cohort()
    macro = summary(slides=["a", "a", "b", "b", "c", "c"])["macro"]
    per_image = [count_pixels(*p) for p in pairs[:4]]
    assert macro["image"]["pxap"] == pytest.approx(np.mean([c.pxap for c in per_image]))
    slides = [per_image[0] + per_image[1], per_image[2] + per_image[3]]
    assert macro["slide"]["dice"] == pytest.approx(np.mean([c.at(0.6).dice for c in slides]))
    assert macro["slide"]["units"] == 2  # slide c holds nothing to find
    assert (macro["patient"]["units"], macro["image"]["units"]) == (3, 4)


def test_what_the_threshold_loses_and_how_far_images_disagree():
    pairs, _ = cohort()
    result = summary()
    group, transfer = result["groups"]["all"], result["transfer"]
    assert transfer["gap"] == pytest.approx(group["oracle_dice"] - group["dice"])
    low, high = transfer["plateau"]
    assert low <= result["oracle"]["value"] <= high
    best = [max((2 * ((s >= t) & m).sum() / ((s >= t).sum() + m.sum())) for t in np.unique(s)) for s, m in pairs[:4]]
    assert transfer["oracle_spread"]["samples"] == 4
    assert np.mean(best) == pytest.approx(np.mean([result["samples"][f"s{i}"]["oracle_dice"] for i in range(4)]), abs=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patients": ["p"]}, "'patients': 1"),
        ({"samples": ["a", "a", "b", "c", "d", "e"]}, "got twice: a"),
        ({"labels": ["all"] * 6}, "called 'all'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        summary(**changes)


def test_no_samples_and_mixed_bins():
    options = {"threshold": Threshold(0.5, "fixed"), "generator": np.random.default_rng(0)}
    with pytest.raises(ValueError, match="no samples"):
        summarize([], samples=[], labels=[], patients=[], **options)
    with pytest.raises(ValueError, match="1000 bins and of 10"):
        summarize(
            [PixelCounts.empty(), PixelCounts.empty(10)], samples=["a", "b"], labels=["t", "t"], patients=["a", "b"], **options
        )


def test_classification_says_how_many_patients_stand_behind_it():
    labels, predicted = [0, 0, 0, 1] * 5, [0, 0, 1, 1] * 5
    result = summarize_classification(labels, predicted, [str(i // 2) for i in range(20)], generator=np.random.default_rng(0))
    assert (result["accuracy"], result["balanced_accuracy"]) == (0.75, pytest.approx((2 / 3 + 1) / 2))
    assert (result["samples"], result["patients"]) == (20, 10)
    assert result["interval"][0] < 0.75 < result["interval"][1]
    assert summarize_classification(labels, predicted, ["p"] * 20, generator=np.random.default_rng(0))["interval"] == [None, None]
    with pytest.raises(ValueError, match=r"\(3,\) for \(2,\)"):
        summarize_classification([0, 1], [0, 1, 1], ["a", "b"], generator=np.random.default_rng(0))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_part(), indent=1) + "\n")
