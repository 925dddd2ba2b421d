"""What `evaluate` tabulates beside the leaderboard: scales, sources of a threshold, regions, boxes, classification."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from wsol.cli.config import Evaluate, Prepare
from wsol.cli.evaluate import evaluate
from wsol.cli.files import read_json, write_json
from wsol.cli.prepare import prepare
from wsol.cli.scoring import fit_scale
from wsol.data import MapWriter, StoredMap, read_manifest, read_masks

SIDE = 64
KEY = {"dataset": "tiny", "model": "gap", "checkpoint": "last", "fold": 0, "seed": 0, "set": "fast", "split": "test"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve images, no network: a square of evidence on the positive ones."""
    root = tmp_path_factory.mktemp("numbers")
    rows = []
    for i in range(12):
        label = "tumor" if i % 2 else "normal"
        Image.fromarray(np.full((SIDE, SIDE, 3), 10 * i, np.uint8)).save(root / f"i{i}.png")
        if label == "tumor":
            Image.fromarray(square(i) * np.uint8(255)).save(root / f"m{i}.png")
        split = "train" if i < 4 else "val" if i < 8 else "test"
        rows.append([f"i{i}", f"i{i}.png", label, f"p{i // 2}", f"m{i}.png" if label == "tumor" else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    write_json(root / "run.json", {"supervision": "image label", "masks": 0})
    return root


def square(i):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8 : 24 + i, 16:40] = True
    return mask


def scored(root, value, **settings):
    """The scores of made-up maps: `value(sample, mask) -> map`; logits are right on tumors and wrong on the last normal."""
    listing, truth = read_manifest(root / "m.parquet"), read_masks(root / "k.parquet")
    for split in ("valcl", "test"):
        made = {"map_class": "positive", "methods": [{"id": "cam", "method": "cam", "options": {}}]}
        with MapWriter(root / f"{split}.h5", made) as writer:
            for row in listing.rows(0, split).itertuples(index=False):
                mask = truth.open(row.sample, shape=(SIDE, SIDE))
                writer.add("cam", row.sample, value(row.sample, mask).astype(np.float32), target=1, size=(SIDE, SIDE))
                writer.predict(row.sample, [-2.0, 2.0] if row.label or row.sample == "i10" else [2.0, -2.0])
    evaluate(
        Evaluate(bootstrap=20, **settings), manifest=root / "m.parquet", masks=root / "k.parquet", maps=root / "test.h5",
        validation=root / "valcl.h5", record=root / "run.json", key=KEY, scores=root / "scores.json",
        curves=root / "curves.parquet",
    )  # fmt: skip
    return read_json(root / "scores.json")


def test_a_map_that_is_the_mask_is_perfect_under_every_scale_and_every_source(root):
    result = scored(root, lambda sample, mask: np.where(mask, 3.0, -2.0))
    found = result["methods"]["cam"]
    for kind in ("fitted", "probability", "temperature", "per-slide"):
        row = found["scales"][kind]
        assert (row["pxap"], row["ap"], row["dice"], row["gap"]) == (1.0, 1.0, 1.0, 0.0), kind
    assert found["scales"]["per-image"]["badge"] == "per-image min-max"
    for source in ("validation masks", "fixed", "otsu", "prevalence-matched"):
        assert found["thresholds"][source]["dice"] == 1.0, source
        assert found["thresholds"][source]["flagged_area"] == 0.0, source
    assert "19" in found["thresholds"]["conformal"]["refused"]  # two negative patients are far from enough
    assert found["regions"]["hit"] == found["regions"]["predicted_right"] == 1.0
    assert found["regions"]["lesions"] == found["regions"]["predicted"] == 2
    assert found["samples"]["i9"]["lesions_hit"] == 1
    assert found["boxes"]["max_box_acc"] == found["boxes"]["max_box_acc_v2"] == 1.0
    assert found["boxes"]["gt_known_error"] == found["boxes"]["top1_error"] == 0.0
    assert found["activation"]["false_positive_area"] == found["activation"]["false_negative_area"] == 0.0
    assert result["masks_opened"] == {"validation": 2, "scored": 2}


def test_min_max_of_each_image_flags_negatives_that_one_scale_for_all_leaves_alone(root):
    # Negatives are nearly flat: their own min-max blows up a ripple that every common scale leaves at the bottom.
    def ripple(sample, mask):
        return np.where(mask, 3.0, -2.0 + 0.01 * (np.arange(SIDE) % 2))

    found = scored(root, ripple, protocol="survey", scale="per-image")["methods"]["cam"]
    assert found["negatives"]["flagged_area"] == 0.5
    assert found["badges"]["scale"] == "per-image min-max"
    assert found["scales"]["fitted"]["pxap"] == 1.0
    assert found["scales"]["per-image"]["pxap"] < 0.6
    assert scored(root, ripple)["methods"]["cam"]["negatives"]["flagged_area"] == 0.0


def test_per_image_otsu_has_one_threshold_per_sample_and_its_badge(root):
    level = {"i9": 1.0, "i11": 0.2}
    found = scored(root, lambda s, m: np.where(m, level.get(s, 0.6), 0.0) - 0.0, threshold="per-image-otsu")["methods"]["cam"]
    assert found["badges"]["threshold"] == "label-free (per-image otsu)"
    assert set(found["threshold"]["values"]) == {"i8", "i9", "i10", "i11"}
    assert found["threshold"]["values"]["i11"] < found["threshold"]["values"]["i9"]
    assert found["groups"]["tumor"]["dice"] == 1.0


def test_classification_stands_at_every_level_with_its_calibration(root):
    result = scored(root, lambda s, m: m * 1.0)["classification"]
    assert result["accuracy"] == 0.75
    sample, patient = result["levels"]["sample"], result["levels"]["patient"]
    assert sample["confusion"] == [[1, 1], [0, 2]]
    assert sample["samples"] == 4
    assert patient["samples"] == 2
    assert patient["confusion"] == [[0, 0], [0, 2]]  # each patient has a tumor, so each is positive
    sure = 1 / (1 + np.exp(-4.0))
    assert sample["ece"] == pytest.approx(abs(0.75 - sure))
    assert sample["brier"] == pytest.approx(2 * (3 * (1 - sure) ** 2 + sure**2) / 4)
    assert result["temperature"] > 0


def test_none_takes_maps_in_the_unit_range_only(root):
    assert scored(root, lambda s, m: m * 0.75 + 0.1, scale="none")["methods"]["cam"]["groups"]["all"]["pxap"] == 1.0
    with pytest.raises(ValueError, match=r"scale: none takes maps in \[0, 1\], got values from -2"):
        scored(root, lambda s, m: np.where(m, 3.0, -2.0), scale="none")


def test_min_max_of_each_image_belongs_to_the_survey():
    with pytest.raises(ValueError, match="protocol: survey"):
        Evaluate(scale="per-image")


def test_a_source_that_cannot_choose_says_why(root):
    with pytest.raises(ValueError, match=r"threshold: conformal, but .*19"):
        scored(root, lambda s, m: m * 1.0, threshold="conformal")


def test_the_range_of_a_slide_is_that_of_all_its_samples_in_whatever_order_they_come():
    rng = np.random.default_rng(0)
    where = {f"{slide}{i}": slide for slide in "abc" for i in range(4)}
    drawn = {
        name: StoredMap(rng.normal(size=(8, 9)).astype(np.float32), 0, None, (8, 9), None, "whole", 0.0)
        for name in rng.permutation(list(where))[:-1]  # one could not be drawn
    }
    scale = fit_scale("per-slide", [], rectified=True, scored=iter(drawn.items()), slides=where)
    assert set(scale.ranges) == set(drawn)
    for name in drawn:
        cells = [np.maximum(m.array, 0) for other, m in drawn.items() if where[other] == where[name]]
        assert scale.ranges[name] == pytest.approx(tuple(np.percentile(cells, [0.5, 99.5])))
