from __future__ import annotations

import json
import re

import pytest

from wsol.evaluation import Badges
from wsol.evaluation.protocol import _SAID, ALLOWED

GOOD = {
    "supervision": "image label",
    "checkpoint": "validation labels (B-CL)",
    "threshold": "validation masks (6)",
    "map_class": "declared positive",
    "scale": "fitted on validation",
    "split_unit": "patient",
    "drawn": "whole image",
    "code": "0.1.0",
}


@pytest.mark.parametrize(("badge", "value"), [(b, v) for b, values in ALLOWED.items() for v in values])
def test_every_allowed_value_is_taken_and_read_aloud(badge, value):
    value = re.sub(r"\bn\b", "12", value)
    badges = Badges(**{**GOOD, badge: value})
    assert Badges.from_dict(json.loads(json.dumps(badges.to_dict()))) == badges
    sentence = badges.sentence()
    assert "{" not in sentence
    assert "\n" not in sentence
    assert ";;" not in sentence
    assert "; ;" not in sentence
    assert "12" in sentence or "12" not in value
    assert "unknown" in sentence or value != "unknown"


def test_the_sentence_says_each_choice():
    assert Badges(**GOOD).sentence() == (
        "Trained on image labels; checkpoint chosen on validation labels (B-CL); threshold from 6 validation masks;"
        " map of the declared positive class; scores scaled by a range fitted on validation maps; split by patient;"
        " drawn on whole images; code 0.1.0."
    )
    assert set(_SAID) == set(ALLOWED)


@pytest.mark.parametrize(
    ("badge", "value", "message"),
    [
        ("supervision", "slide labels", "unknown supervision badge 'slide labels'; did you mean 'slide label'"),
        ("supervision", "masks (n)", "unknown supervision badge"),
        ("supervision", "masks (0)", "unknown supervision badge"),
        ("checkpoint", "masks-", "unknown checkpoint badge"),
        ("threshold", "validation masks", r"did you mean 'validation masks \(n\)'"),
        ("threshold", "prevalence-matched (n masks)", "unknown threshold badge"),
        ("threshold", "conformal (0 negative patients)", "unknown threshold badge"),
        ("threshold", "unknown", "unknown threshold badge 'unknown'"),
        ("supervision", "shuffled label", "did you mean 'shuffled slide label'"),
        ("threshold", "oracle", "did you mean 'test oracle'"),
        ("map_class", "groundtruth", "did you mean 'ground truth'"),
        ("scale", "min-max", "unknown scale badge"),
        ("split_unit", "patients", "did you mean 'patient'"),
        ("drawn", "tile", "did you mean 'per tile'"),
        ("code", "", "must name a version"),
    ],
)
def test_an_unknown_value_is_refused_and_the_nearest_named(badge, value, message):
    with pytest.raises(ValueError, match=message):
        Badges(**{**GOOD, badge: value})


def test_the_sentences_of_values_that_warn():
    foreign = {badge: "unknown" for badge, values in ALLOWED.items() if "unknown" in values}
    assert Badges(**{**GOOD, **foreign, "scale": "none", "threshold": "conformal (59 negative patients)"}).sentence() == (
        "Trained in an unknown way; checkpoint chosen in an unknown way; threshold that bounds the flagged area of negative"
        " patients, from 59 of them; map of an unknown class; maps taken as scores as they are; split by an unknown unit;"
        " drawn in an unknown way; code 0.1.0."
    )
    assert "Trained on shuffled image labels;" in Badges(**{**GOOD, "supervision": "shuffled image label"}).sentence()


def test_missing_and_unknown_badges():
    with pytest.raises(ValueError, match="badges missing: code"):
        Badges.from_dict({k: v for k, v in GOOD.items() if k != "code"})
    with pytest.raises(ValueError, match="did you mean 'scale'"):
        Badges.from_dict({**GOOD, "scales": "raw"})
