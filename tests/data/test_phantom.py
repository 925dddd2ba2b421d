from __future__ import annotations

import inspect
import json
import subprocess
import sys

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest

from wsol.data.sources import phantom
from wsol.data.sources.phantom import Slide, draw_missing, listing
from wsol.data.sources.phantom_draw import LOOKS, draw_phantom
from wsol.data.sources.phantom_tiff import write_pyramid

SMALL = {"slides": 6, "size": 512, "patients": 3}


def one(**change):
    return Slide(**({"sample": "s", "positive": True, "size": 512, "seed": 3, "patient_seed": 1} | DETAILS | change))


DETAILS = {"difficulty": "easy", "prevalence": 0.2}


@pytest.mark.parametrize("difficulty", LOOKS)
def test_same_seed_same_bits(difficulty):
    draws = [draw_phantom(768, 5, positive=True, difficulty=difficulty, patient_seed=s) for s in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    np.testing.assert_array_equal(draws[0][1], draws[1][1])
    assert draws[0][2] == draws[1][2]
    np.testing.assert_array_equal(draws[0][1], draws[2][1])  # another patient: other colors, same anatomy
    assert np.abs(draws[0][0].astype(int) - draws[2][0]).mean() > 1
    assert not np.array_equal(draws[0][1], draw_phantom(768, 6, positive=True, difficulty=difficulty)[1])


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.4])
def test_prevalence(prevalence):
    shares = [draw_phantom(512, s, positive=True, prevalence=prevalence)[1].mean() for s in range(6)]
    assert all(0.6 * prevalence < s < 1.35 * prevalence for s in shares)


def test_negative_slides_have_no_tumor():
    rgb, mask, facts = draw_phantom(512, 0, positive=False)
    assert rgb.shape == (512, 512, 3)
    assert rgb.dtype == np.uint8
    assert mask.dtype == bool
    assert not mask.any()
    assert facts["prevalence"] == 0


def test_tumor_lies_in_the_tissue_and_differs_from_it():
    rgb, mask, facts = draw_phantom(1024, 2, positive=True)
    glass = rgb.min(axis=-1) > 225
    assert 0.55 < facts["tissue"] < 0.8
    assert glass[~mask].mean() > 0.2
    assert glass[mask].mean() < 0.15  # lumens
    hue = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 0][~glass]
    assert 128 < np.median(hue) < 175  # purple to pink, OpenCV's half degrees


def test_options_are_checked():
    with pytest.raises(ValueError, match="did you mean 'hard'"):
        draw_phantom(512, 0, positive=True, difficulty="hrad")
    with pytest.raises(ValueError, match="at least 256"):
        draw_phantom(100, 0, positive=True)
    with pytest.raises(ValueError, match="patients <= slides"):
        listing("x", slides=2, patients=3)
    with pytest.raises(ValueError, match="three roles"):
        listing("x", slides=4, patients=2)
    with pytest.raises(ValueError, match="1 to 4 folds"):
        listing("x", folds=5)
    with pytest.raises(ValueError, match="lacks a class"):
        listing("x", slides=3, patients=3)
    assert set(phantom.DIFFICULTIES) == set(LOOKS)


def test_default_demo():
    rows = pd.DataFrame(listing("out"))
    assert list(rows.columns) == ["sample", "slide", "patient", "path", "mpp", "label", "labels", "fold", "role"]
    assert rows.groupby("role").size().to_dict() == {"train": 8, "valcl": 4, "valpx": 4, "test": 4}
    assert rows.groupby("role").label.mean().eq(0.5).all()
    assert rows.patient.nunique() == 8
    assert set(rows.path) == {f"out/phantom-{i:03d}.tiff" for i in range(16)}


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize(("slides", "patients", "folds"), [(16, 8, 1), (24, 8, 4), (40, 20, 3), (18, 6, 2)])
def test_splits(mixed, slides, patients, folds):
    rows = pd.DataFrame(listing("out", slides=slides, patients=patients, mixed_patients=mixed, folds=folds))
    assert rows.fold.nunique() == folds
    for _, fold in rows.groupby("fold"):
        sets = [set(fold.patient[fold.role == role]) for role in ("train", "valcl", "test")]
        assert sum(map(len, sets)) == len(set.union(*sets)) == patients
        assert (fold.groupby("role").label.nunique() == 2).all()
        assert set(fold["sample"][fold.role == "valpx"]) == set(fold["sample"][fold.role == "valcl"])
    tested = rows[rows.role == "test"].groupby("fold").patient.agg(set)
    assert sum(map(len, tested)) == len(set.union(*tested))
    classes = rows.groupby("patient").label.nunique()
    assert (classes == (2 if mixed else 1)).all()


def test_dataset_draws_what_is_missing_only(tmp_path):
    data = phantom.dataset(tmp_path, **SMALL)
    assert data.samples.to_dict("records") == listing(tmp_path, **SMALL)
    assert (data.classes, data.positive, data.split_unit, data.kind) == (["normal", "tumor"], ["tumor"], "patient", "slides")
    assert data.masks.kind.value_counts().to_dict() == {"file": 3, "empty": 3}
    drawn = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert sum(n.endswith("_mask.png") for n in drawn) == 3
    assert not any(n.endswith(".part") for n in drawn)
    (tmp_path / "phantom-001.json").unlink()  # as after a kill
    phantom.dataset(tmp_path, **SMALL)
    again = {p.name for p in tmp_path.iterdir() if p.stat().st_mtime_ns != drawn[p.name]}
    assert all(n.startswith("phantom-001") for n in again)
    assert again


def test_signatures_agree():
    ours, theirs = (inspect.signature(f).parameters for f in (phantom.dataset, listing))
    assert ours == theirs


def test_slide_on_disk(tmp_path):
    assert draw_missing([one()], tmp_path) == ["s"]
    rgb, mask, facts = draw_phantom(512, 3, positive=True, patient_seed=1)
    with openslide.OpenSlide(str(tmp_path / "s.tiff")) as slide:
        assert slide.dimensions == (512, 512)
        assert slide.level_dimensions == ((512, 512), (128, 128))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        seen = np.asarray(slide.read_region((0, 0), 0, (512, 512)))[..., :3]
        small = np.asarray(slide.read_region((0, 0), 1, (128, 128)))[..., :3]
    assert np.abs(seen.astype(int) - rgb).mean() < 5  # JPEG
    mean = rgb.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.mean(axis=-1) - mean.mean(axis=-1)).mean() < 3
    np.testing.assert_allclose(small.mean(axis=(0, 1)), mean.mean(axis=(0, 1)), atol=1)  # no color cast
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "s_mask.png"), cv2.IMREAD_UNCHANGED), mask * 255)
    assert json.loads((tmp_path / "s.json").read_text())["facts"] == facts


def test_changed_options_draw_anew(tmp_path):
    draw_missing([one()], tmp_path)
    before = (tmp_path / "s.tiff").read_bytes()
    assert draw_missing([one()], tmp_path) == []
    assert draw_missing([one(difficulty="hard")], tmp_path) == ["s"]
    assert (tmp_path / "s.tiff").read_bytes() != before
    assert draw_missing([one(positive=False)], tmp_path) == ["s"]
    assert not (tmp_path / "s_mask.png").exists()
    assert draw_missing([one()], tmp_path) == ["s"]
    assert (tmp_path / "s.tiff").read_bytes() == before
    (tmp_path / "s_mask.png").unlink()
    assert draw_missing([one()], tmp_path) == ["s"]


def test_processes_draw_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plan = [one(sample=name, seed=seed, size=256) for seed, name in enumerate("pq")]
    assert draw_missing(plan, tmp_path / "a", workers=2) == draw_missing(plan, tmp_path / "b") == ["p", "q"]
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["p.json", "p.tiff", "p_mask.png", "q.json", "q.tiff", "q_mask.png"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_pyramid_of_any_size(tmp_path):
    rgb = cv2.resize(np.random.default_rng(0).integers(100, 200, (30, 50, 3)).astype(np.uint8), (1300, 700))
    write_pyramid(rgb, tmp_path / "odd.tiff", 0.25)
    with openslide.OpenSlide(str(tmp_path / "odd.tiff")) as slide:
        assert slide.level_dimensions == ((1300, 700), (325, 175), (81, 44))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        seen = np.asarray(slide.read_region((0, 0), 0, (1300, 700)))[..., :3]
    assert np.abs(seen.astype(int) - rgb).mean() < 3


def test_listing_touches_no_pixels():
    code = """
import sys
from wsol.data.sources.phantom import listing
listing("nowhere")
print(sorted({"torch", "cv2", "tifffile", "pandas", "openslide"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
