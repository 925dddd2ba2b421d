from __future__ import annotations

import wsol.evaluation as room
from wsol._names import resolve


def test_every_name_of_the_face_resolves():
    for name in room.__all__:
        assert getattr(room, name) is not None
    assert set(dir(room)) >= set(room.__all__) - {"METRICS"}


def test_every_metric_is_there_and_says_what_it_is():
    for name in room.METRICS:
        metric = resolve("metric", name, room.METRICS, "wsol.evaluation")
        assert callable(metric)
        assert metric.__doc__


def test_metrics_are_those_of_the_counts(make_scene):
    counts = room.count_pixels(*make_scene(0))
    here = counts.at(0.4)
    for name in ("dice", "iou", "precision", "recall"):
        assert resolve("metric", name, room.METRICS, "wsol.evaluation")(counts, 0.4) == getattr(here, name)
    assert resolve("metric", "flagged-area", room.METRICS, "wsol.evaluation")(counts, 0.4) == here.area
    assert resolve("metric", "pxap", room.METRICS, "wsol.evaluation")(counts) == counts.pxap
    assert resolve("metric", "prevalence", room.METRICS, "wsol.evaluation")(counts) == counts.prevalence
    curve = room.PixelCurve(exact=True)
    curve.add(*make_scene(0))
    assert resolve("metric", "exact-ap", room.METRICS, "wsol.evaluation")(curve) == curve.exact_ap()
