"""`wsol report`: layers read from the files of a study, costs, commands."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from wsol.cli.files import write_json
from wsol.cli.layers import IMAGE_PX, SLIDE_PX, Looker
from wsol.cli.prepare import prepare
from wsol.cli.results import commands, jobs, read_scores
from wsol.cli.schema import Prepare
from wsol.data import MapWriter
from wsol.slides import Box
from wsol.tracking import provenance

SIZE = {"images": (1280, 1920), "slides": (1600, 3200)}
KEY = {"model": "gap", "checkpoint": "b-cl", "set": "fast", "split": "test", "fold": 0, "seed": 0}
MAPS = "gap/fold0/seed0/b-cl/fast"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A study of images and one of slides: black on the left, white on the right, where the mask and the evidence are."""
    root = tmp_path_factory.mktemp("report")
    for kind, (height, width) in SIZE.items():
        rgb, rows = np.zeros((height, width, 3), np.uint8), []
        rgb[:, width // 2 :] = 255
        Image.fromarray(rgb[..., 0]).save(root / f"{kind}_mask.png")
        for i, split in enumerate(["train", "train", "val", "val", "test", "test"]):
            label, mask = ("tumor", f"{kind}_mask.png") if i % 2 else ("normal", "")
            Image.fromarray(rgb).save(root / f"{kind}{i}.png")
            rows.append([f"i{i}", f"{kind}{i}.png", label, f"p{i}", mask, split, 0.5])
        with open(root / f"{kind}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split", "mpp"], *rows])
        base = root / "results/prepare" / kind
        options = {"sheet": str(root / f"{kind}.csv"), "classes": ["normal", "tumor"]}
        prepare(
            Prepare(name=kind, source=kind, options=options), manifest=base / "manifest.parquet", masks=base / "masks.parquet"
        )
    cells = np.repeat(np.array([[-1.0] * 4 + [3.0] * 4], np.float32), 4, axis=0)
    maps = root / "results/localize"
    with MapWriter(maps / f"images/{MAPS}/test.h5", {}) as writer:
        writer.add("cam", "i5", cells, target=1, size=SIZE["images"])
    covered = np.ones((4, 8), bool)
    covered[0] = False
    with MapWriter(maps / f"slides/{MAPS}/test/i5.h5", {}) as writer:
        writer.add("cam", "i5", cells, target=1, size=SIZE["slides"], frame=Box(0, 0, 3200, 1600), coverage=covered)
    return root / "results"


def score_file(dataset):
    scale = {"kind": "fitted", "rectified": False, "low": -1.0, "high": 3.0, "temperature": 1.0, "ranges": {}}
    return {"key": {"dataset": dataset, **KEY}, "methods": {"cam": {"scale": scale, "samples": {"i5": {}, "i4": {}}}}}


@pytest.mark.parametrize(("kind", "longest"), [("images", IMAGE_PX), ("slides", SLIDE_PX)])
def test_layers_lie_on_each_other_and_are_bounded(results, kind, longest):
    seen = Looker(results, results)([(score_file(kind), "cam")], "i5")
    height, width = SIZE[kind]
    assert max(seen.image.shape) == longest
    assert seen.image.shape[0] / seen.image.shape[1] == pytest.approx(height / width, rel=0.01)
    assert seen.mpp == pytest.approx(0.5 * width / longest)
    (heat,) = seen.heats
    assert heat.shape == seen.mask.shape == (seen.image.shape[0] // 2, seen.image.shape[1] // 2)
    quarter, middle, below = heat.shape[1] // 4, heat.shape[1] // 2, heat.shape[0] * 3 // 4
    assert seen.image[2 * below, quarter].tolist() == [0, 0, 0]
    assert seen.image[2 * below, 3 * quarter * 2 - 1].tolist() == [255, 255, 255]
    assert (heat[below, quarter], heat[below, 3 * quarter]) == (0.0, 1.0)
    assert not seen.mask[:, : middle - 1].any()
    assert seen.mask[:, middle + 1 :].all()


def test_what_was_not_drawn_of_a_slide_is_nan(results):
    (heat,) = Looker(results, results)([(score_file("slides"), "cam")], "i5").heats
    assert np.isnan(heat[: heat.shape[0] // 4]).all()
    assert np.isfinite(heat[heat.shape[0] // 4 :]).all()


def test_missing_maps_leave_heat_out_missing_pictures_the_sample(results, tmp_path):
    look = Looker(results, results)
    empty = look([(score_file("images"), "cam")], "i4")
    assert empty.heats == [None]
    assert not empty.mask.any()  # known by its label
    assert look([(score_file("images"), "cam")], "i99") is None
    assert look([(score_file("elsewhere"), "cam")], "i5") is None
    assert Looker(tmp_path, tmp_path)([(score_file("images"), "cam")], "i5") is None


def test_files_at_full_resolution_are_named_from_the_page(results, tmp_path):
    folder = results / f"heatmap/slides/{MAPS}/test/i5"
    write_json(folder / "index.json", {"i5": {"cam": {"overlay": "cam.png", "ome_tiff": "cam.ome.tiff"}}})
    write_json(tmp_path / "scores.json", score_file("slides"))
    (one,) = read_scores([tmp_path / "scores.json"], results)
    assert one["methods"]["cam"]["samples"]["i5"]["overlay"] == str(folder / "cam.png")
    assert one["methods"]["cam"]["samples"]["i4"] == {"files": {}, "overlay": None}
    seen = Looker(results, results / "report/slides")([(one, "cam")], "i5")
    assert list(seen.files) == [f"../../heatmap/slides/{MAPS}/test/i5/cam.ome.tiff"]


def test_jobs_are_those_of_the_dataset_with_what_was_measured(tmp_path):
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    files = {
        "prepare/d.tsv": "18.11\t0:00:18\t813.12\t1\t1\t1\t1\t1\t161\t29.89",
        "tile/d/a.b.tsv": "0.4\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\t0\tNA",
        "localize/d/floors/fold0/x.tsv": "2.0\t0:00:02\t-\t-\t-\t-\t-\t-\t-\t1.5",
        "localize/d/gap/test.done.tsv": "0.1\t0:00:00\t-\t-\t-\t-\t-\t-\t-\t0",
        "tile/other/a.tsv": "9\t0:00:09\t1\t1\t1\t1\t1\t1\t1\t1",
    }
    for name, line in files.items():
        path = tmp_path / "benchmark" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}{line}\n")
    found = {job["rule"]: job for job in jobs([{"key": {"dataset": "d"}}], tmp_path)}
    assert found == {
        "prepare": {"rule": "prepare", "job": "d", "seconds": 18.11, "cpu": 29.89, "memory": 813.12},
        "tile": {"rule": "tile", "job": "a.b", "seconds": 0.4, "cpu": None, "memory": None},
        "localize (floors)": {"rule": "localize (floors)", "job": "floors/fold0/x", "seconds": 2.0, "cpu": 1.5, "memory": None},
    }


def test_commands_are_those_of_the_first_fold_and_seed_as_the_records_say(tmp_path):
    scores = []
    for fold in (1, 0):
        key = {"dataset": "d", **KEY, "fold": fold}
        run = tmp_path / f"train/d/gap/fold{fold}/seed0/run.json"
        write_json(run, {"provenance": {"command": f"wsol train --fold {fold}"}})
        scores.append({"key": key, "provenance": {"command": f"wsol evaluate {fold}"}})
    scores.append({"key": {"dataset": "d", **KEY, "model": "floors"}, "provenance": {}})
    assert commands(scores, tmp_path) == [
        ("train gap", "wsol train --fold 0"),
        ("evaluate gap, b-cl, fast, test", "wsol evaluate 0"),
    ]


def test_a_record_says_how_wsol_was_called_and_a_library_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/wsol", "train", "--settings", '{"lr": 1}'])
    assert provenance({}, {})["command"] == "wsol train --settings '{\"lr\": 1}'"
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert "command" not in provenance({}, {})
