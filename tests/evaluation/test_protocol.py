from __future__ import annotations

import json

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
    value = value.replace("(n)", "(12)").replace("-n", "-12") if value.endswith(("(n)", "-n")) else value
    badges = Badges(**{**GOOD, badge: value})
    assert Badges.from_dict(json.loads(json.dumps(badges.to_dict()))) == badges
    sentence = badges.sentence()
    assert "{" not in sentence
    assert "\n" not in sentence
    assert ";;" not in sentence
    assert "; ;" not in sentence
    assert "12" in sentence or "12" not in value


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


def test_missing_and_unknown_badges():
    with pytest.raises(ValueError, match="badges missing: code"):
        Badges.from_dict({k: v for k, v in GOOD.items() if k != "code"})
    with pytest.raises(ValueError, match="did you mean 'scale'"):
        Badges.from_dict({**GOOD, "scales": "raw"})
