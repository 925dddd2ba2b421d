from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapely.geometry import box, mapping

from wsol.cli.compare import compare
from wsol.cli.report import report, table
from wsol.data import MapWriter
from wsol.evaluation import PixelCounts, count_pixels, paired_difference, pixel_average_precision
from wsol.slides import Box

SIZE = (48, 64)
QUICK = {"bootstrap": 50, "with_floors": False}


def rectangle(i):
    mask = np.zeros(SIZE, bool)
    if i % 2:
        mask[8 : 24 + 2 * i, 12:40] = True
    return mask


@pytest.fixture
def study(tmp_path):
    """A sheet of four validation and eight test images, two per patient, masks of a rectangle on the odd ones; its masks."""
    generator = np.random.default_rng(0)
    rows = []
    masks = {f"s{i}": rectangle(i) for i in range(12)}
    for i, (name, mask) in enumerate(masks.items()):
        image = generator.integers(180, 255, (*SIZE, 3), dtype=np.uint8)
        image[mask] = generator.integers(60, 120, (int(mask.sum()), 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{name}_mask.png")
        label = "tumor" if i % 2 else "normal"
        rows.append(
            {"sample": name, "patient": f"p{i // 2}", "label": label, "mask": f"{name}_mask.png", "path": f"{name}.png",
             "split": "val" if i < 4 else "test"}
        )  # fmt: skip

    def write(change=lambda row: row):
        table = pd.DataFrame([change(dict(row)) for row in rows])
        table.to_csv(tmp_path / "sheet.csv", index=False)
        return tmp_path / "sheet.csv"

    return write, masks


def folder(root, name, masks, values, suffix=".npy"):
    (root / name).mkdir()
    for sample, mask in masks.items():
        np.save(root / name / f"{sample}{suffix}", values(sample, mask).astype(np.float32))
    return root / name


def scores(out):
    return json.loads((out / "scores.json").read_text())


def test_maps_equal_to_the_mask_score_one_from_any_tool_beside_ours(study, tmp_path):
    write, masks = study
    exact = folder(tmp_path, "exact", masks, lambda s, m: m)
    png = tmp_path / "png"
    qupath = tmp_path / "qupath"
    png.mkdir()
    qupath.mkdir()
    for i, (sample, mask) in enumerate(masks.items()):
        Image.fromarray((mask * 65535).astype(np.uint16)).save(png / f"{sample}.png")
        shape = box(12, 8, 40, 24 + 2 * i)
        region = {"type": "Feature", "geometry": mapping(shape), "properties": {"classification": {"name": "Tumor"}}}
        content = {"type": "FeatureCollection", "features": [region] if mask.any() else []}
        (qupath / f"{sample}.geojson").write_text(json.dumps(content))
    made = {"model": "run/b-cl.safetensors", "map_class": "positive", "methods": [{"id": "mine", "method": "cam", "options": {}}]}
    for split in ("val", "test"):
        (tmp_path / "ours").mkdir(exist_ok=True)
        with MapWriter(tmp_path / "ours" / f"{split}.h5", made) as writer:
            for i, (sample, mask) in enumerate(masks.items()):
                if (i < 4) == (split == "val"):  # 16 px padded below, as `localize` pads to whole cells
                    padded = np.pad(mask * 5.0 - 1.0, ((0, 16), (0, 0)), constant_values=-1)
                    writer.add("mine", sample, padded, target=1, size=SIZE, frame=Box(0, 0, 64, 64))
    maps = {"exact": exact, "png": png, "qupath": qupath, "ours": tmp_path / "ours"}
    found = compare(sheet=write(), maps=maps, out=tmp_path / "out", **QUICK)
    assert found["methods"].keys() == maps.keys()
    for method in found["methods"].values():
        assert method["groups"]["all"]["pxap"] == method["groups"]["all"]["dice"] == method["groups"]["tumor"]["pxap"] == 1.0
        assert method["negatives"]["flagged_area"] == 0.0
        assert method["badges"]["threshold"] == "validation masks (4)"
        assert method["badges"]["scale"] == "fitted on validation"
        assert method["badges"]["split_unit"] == "unknown"
    unknown = {k: found["methods"]["png"]["badges"][k] for k in ("supervision", "checkpoint", "map_class", "drawn")}
    assert set(unknown.values()) == {"unknown"}
    ours = found["methods"]["ours"]["badges"]
    assert (ours["checkpoint"], ours["map_class"], ours["drawn"]) == (
        "validation labels (B-CL)",
        "declared positive",
        "whole image",
    )
    assert found["masks_opened"] == {"validation": 4, "scored": 8}


def test_numbers_are_those_of_the_maps(study, tmp_path):
    """PxAP and Dice against counts made here by hand; the threshold is that of validation, not of test."""
    write, masks = study
    generator = np.random.default_rng(1)
    noise = {s: generator.random(SIZE) * 0.4 + m * 0.3 for s, m in masks.items()}
    # On test everything is 0.2 lower than on validation: the carried threshold finds less.
    maps = folder(tmp_path, "noisy", masks, lambda s, m: noise[s] + (0.2 if int(s[1:]) < 4 else 0.0))
    found = compare(sheet=write(), maps={"noisy": maps}, out=tmp_path / "out", scale="none", **QUICK)["methods"]["noisy"]
    test = [s for s in masks if int(s[1:]) >= 4]
    scored = [noise[s].astype(np.float32) for s in test]
    assert found["groups"]["all"]["ap"] == pytest.approx(pixel_average_precision(scored, [masks[s] for s in test]), abs=1e-5)
    at = found["threshold"]["value"]
    hit = np.concatenate([(v >= at).ravel() for v in scored])
    true = np.concatenate([masks[s].ravel() for s in test])
    assert found["groups"]["all"]["dice"] == pytest.approx(2 * (hit & true).sum() / (hit.sum() + true.sum()), abs=1e-6)
    assert found["groups"]["all"]["dice"] < found["groups"]["all"]["oracle_dice"] - 0.2
    assert found["badges"]["scale"] == "raw"
    assert (found["groups"]["all"]["samples"], found["groups"]["all"]["patients"]) == (8, 4)
    saved = pd.read_parquet(tmp_path / "out" / "curves.parquet").set_index("sample")
    expected = count_pixels(scored[1], masks[test[1]])
    np.testing.assert_array_equal(saved.loc[test[1], "positives"], expected.positives)
    assert saved.loc[test[1], ["patient", "label"]].tolist() == ["p2", 1]


def test_differences_are_paired_by_patient(study, tmp_path):
    write, masks = study
    generator = np.random.default_rng(2)
    noise = {s: generator.random(SIZE) for s in masks}
    good = folder(tmp_path, "good", masks, lambda s, m: 0.6 * noise[s] + 0.4 * m)
    bad = folder(tmp_path, "bad", masks, lambda s, m: 0.9 * noise[s] + 0.1 * m)
    compare(sheet=write(), maps={"bad": bad, "good": good}, out=tmp_path / "out", scale="none", **QUICK)
    tables = {t["metric"]: t for t in json.loads((tmp_path / "out" / "differences.json").read_text())}
    (row,) = tables["pxap"]["rows"]
    assert (tables["pxap"]["reference"], row["name"]) == ("good of compared (unknown)", "bad of compared (unknown)")
    test = [s for s in sorted(masks) if int(s[1:]) >= 4]
    counts = [[count_pixels((a * noise[s] + b * masks[s]).astype(np.float32), masks[s]) for s in test]
              for a, b in ((0.9, 0.1), (0.6, 0.4))]  # fmt: skip
    total = [PixelCounts.total(c).pxap for c in counts]
    assert row["mean"] == pytest.approx(total[0] - total[1])
    alone = paired_difference(*counts, [f"p{int(s[1:]) // 2}" for s in test], generator=np.random.default_rng(0), replicates=50)
    assert (row["p"], row["clusters"]) == (alone.p, 4)
    assert row["wins"] == 0
    with open(tmp_path / "out" / "differences.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["metric"] for line in lines} == {"pxap", "dice"}
    assert float(lines[0]["mean"]) == pytest.approx(row["mean"])


def test_without_validation_rows_nothing_is_fitted_on_masks(study, tmp_path):
    write, masks = study
    maps = folder(tmp_path, "maps", masks, lambda s, m: 0.2 + 0.5 * m)
    sheet = write(lambda row: {**row, "split": "test"})
    found = compare(sheet=sheet, maps={"a": maps}, out=tmp_path / "out", **QUICK)
    method = found["methods"]["a"]
    assert (method["badges"]["threshold"], method["badges"]["scale"]) == ("label-free (otsu)", "raw")
    assert method["threshold"]["value"] == pytest.approx(0.45, abs=0.01)  # the middle between 0.2 and 0.7
    assert found["masks_opened"]["validation"] == 0
    assert "No validation rows" in found["note"]
    assert "refused" in method["thresholds"]["validation masks"]
    assert "refused" in method["thresholds"]["conformal"]
    fixed = compare(sheet=sheet, maps={"a": maps}, out=tmp_path / "out", threshold="fixed", fixed=0.3, **QUICK)
    assert fixed["methods"]["a"]["badges"]["threshold"] == "fixed"
    with pytest.raises(ValueError, match="fitted needs maps of the validation split"):
        compare(sheet=sheet, maps={"a": maps}, out=tmp_path / "out", scale="fitted", **QUICK)


def test_floors_stand_under_the_table_and_the_report_takes_both(study, tmp_path):
    write, masks = study
    maps = folder(tmp_path, "maps", masks, lambda s, m: m)
    out = tmp_path / "out"
    compare(sheet=write(), maps={"theirs": maps}, out=out, bootstrap=20)
    floors = scores(out / "floors")
    assert list(floors["methods"]) == ["all-ones", "random", "hematoxylin", "blue-minus-red"]
    prevalence = np.mean([masks[s] for s in masks if int(s[1:]) >= 4])
    assert floors["methods"]["all-ones"]["groups"]["all"]["pxap"] == pytest.approx(prevalence)
    assert floors["methods"]["random"]["groups"]["all"]["pxap"] == pytest.approx(prevalence, abs=0.02)
    assert floors["methods"]["hematoxylin"]["groups"]["all"]["pxap"] > 0.9  # the squares are dark
    both = [out / "scores.json", out / "floors" / "scores.json"]
    lines = table(both, "test").splitlines()
    assert next(i for i, x in enumerate(lines) if "theirs" in x) < next(i for i, x in enumerate(lines) if "hematoxylin" in x)
    report(both, out=tmp_path / "page" / "index.html", results=tmp_path, title="foreign")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "theirs" in page
    assert "hematoxylin" in page
    names = [r["name"] for t in json.loads((out / "differences.json").read_text()) for r in t["rows"]]
    assert "hematoxylin" in names


def test_without_images_only_flat_floors(study, tmp_path):
    write, masks = study
    maps = folder(tmp_path, "maps", masks, lambda s, m: m)
    sheet = write(lambda row: {k: v for k, v in row.items() if k not in ("path", "label")})
    found = compare(sheet=sheet, maps={"a": maps}, out=tmp_path / "out", bootstrap=5)
    assert found["classes"] == ["with foreground", "without foreground"]
    assert list(scores(tmp_path / "out" / "floors")["methods"]) == ["all-ones", "random"]


def test_a_column_names_the_files_and_a_frame_says_where_they_lie(study, tmp_path):
    write, masks = study
    part = np.s_[8:40, 4:44]  # the maps cover this part only, at half resolution
    (tmp_path / "m").mkdir()
    for sample, mask in masks.items():
        np.savez(tmp_path / "m" / f"map of {sample}.npz", other=np.zeros(2), prob=mask[part][::2, ::2].astype(np.float32))
    sheet = write(
        lambda row: {**row, "map:tool": f"m/map of {row['sample']}.npz#prob", "x": 4, "y": 8, "width": 40, "height": 32}
    )
    found = compare(sheet=sheet, maps={"tool": ""}, out=tmp_path / "out", threshold="fixed", fixed=0.5, **QUICK)
    true = np.concatenate([masks[s].ravel() for s in masks if int(s[1:]) >= 4])
    covered = np.zeros(SIZE, bool)
    covered[part] = True
    hit = np.concatenate([(masks[s] & covered).ravel() for s in masks if int(s[1:]) >= 4])
    assert found["methods"]["tool"]["groups"]["all"]["precision"] == 1.0
    assert found["methods"]["tool"]["groups"]["all"]["recall"] == pytest.approx(hit.sum() / true.sum())


def test_a_scale_of_each_image_belongs_to_the_survey(study, tmp_path):
    write, masks = study
    maps = folder(tmp_path, "maps", masks, lambda s, m: m * float(s[1:]) - 7.0)
    run = {"sheet": write(), "maps": {"a": maps}, "out": tmp_path / "out", **QUICK}
    with pytest.raises(ValueError, match="belongs to the published protocol only"):
        compare(**run, scale="per-image")
    survey = compare(**run, scale="per-image", protocol="survey")["methods"]["a"]
    assert (survey["groups"]["all"]["dice"], survey["badges"]["scale"]) == (1.0, "per-image min-max")
    with pytest.raises(ValueError, match=r"maps 'a', sample 's4': scale: none takes maps in \[0, 1\], got values from -7 to -7"):
        compare(**run, scale="none")
    sigmoid = compare(**run, scale="probability", threshold="fixed", fixed=0.5)["methods"]["a"]
    positive = [m for s, m in masks.items() if int(s[1:]) >= 4]
    found = [m for s, m in masks.items() if int(s[1:]) >= 7]  # sigmoid(i - 7) >= 0.5 from sample 7 on
    assert sigmoid["groups"]["all"]["recall"] == pytest.approx(np.sum(found) / np.sum(positive))


def test_blank_masks_are_unknown_unless_the_label_says_empty(study, tmp_path):
    write, masks = study
    maps = folder(tmp_path, "maps", masks, lambda s, m: 0.5 * m + 0.25)
    blank = write(lambda row: {**row, "mask": "" if row["label"] == "normal" else row["mask"]})
    run = {"sheet": blank, "maps": {"a": maps}, "out": tmp_path / "out", **QUICK}
    unknown = compare(**run)["methods"]["a"]
    assert (unknown["groups"]["all"]["samples"], unknown["negatives"]) == (4, None)
    known = compare(**run, negative=["normal"])["methods"]["a"]
    assert (known["groups"]["all"]["samples"], known["negatives"]["samples"]) == (8, 4)
    assert "got 2" in known["thresholds"]["conformal"]["refused"]  # two negative patients of validation, and none of test
    with pytest.raises(ValueError, match="unknown negative label 'nrmal'; did you mean 'normal'"):
        compare(**run, negative=["nrmal"])


def test_a_patient_on_both_sides_is_said(study, tmp_path):
    write, masks = study
    maps = folder(tmp_path, "maps", masks, lambda s, m: m)
    sheet = write(lambda row: {**row, "split": "val" if int(row["sample"][1:]) < 5 else "test"})
    with pytest.warns(UserWarning, match=r"1 patients stand in validation and in test \(p2\)"):
        found = compare(sheet=sheet, maps={"a": maps}, out=tmp_path / "out", **QUICK)
    assert "p2" in found["note"]


MISTAKES = {
    "column": (lambda r: {**r, "patinet": "x"}, "unknown column 'patinet'; did you mean 'patient'"),
    "frame": (lambda r: {**r, "x": 0}, "x, y, width and height go together; got only x"),
    "split": (lambda r: {**r, "split": "tset"}, "row 2: unknown split 'tset'; did you mean 'test'"),
    "mask": (lambda r: {**r, "mask": "none.png"}, "row 2: no file at mask .*none.png"),
    "twice": (lambda r: {**r, "sample": "s1"}, "row 3: sample 's1' stands in row 2 already"),
    "label": (lambda r: {**r, "label": "" if r["sample"] == "s3" else "a"}, "row 5: label is blank, and other rows have one"),
    "mpp": (lambda r: {**r, "mpp": 250}, "row 2: mpp '250': um per px expected"),
    "unmasked": (lambda r: {**r, "mask": ""}, "no row of split 'test' has a mask"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_the_sheet(study, tmp_path, mistake):
    write, masks = study
    change, message = MISTAKES[mistake]
    maps = folder(tmp_path, "maps", masks, lambda s, m: m)
    with pytest.raises(ValueError, match=message):
        compare(sheet=write(change), maps={"a": maps}, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out" / "scores.json").exists()


def test_mistakes_of_the_maps(study, tmp_path):
    write, masks = study
    sheet = write()
    run = {"sheet": sheet, "out": tmp_path / "out", **QUICK}
    maps = folder(tmp_path, "maps", masks, lambda s, m: m)
    with pytest.raises(ValueError, match="no maps to compare"):
        compare(**run, maps={})
    with pytest.raises(FileNotFoundError, match=r"maps 'a': nothing at .*nowhere"):
        compare(**run, maps={"a": tmp_path / "nowhere"})
    with pytest.raises(ValueError, match="the column 'map:a' is missing"):
        compare(**run, maps={"a": ""})
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(maps / "s7.png")
    with pytest.raises(ValueError, match=r"sample 's7' has s7\.npy and s7\.png"):
        compare(**run, maps={"a": maps})
    (maps / "s7.png").unlink()
    (maps / "s7.npy").unlink()
    with pytest.raises(FileNotFoundError, match="no map of sample 's7'"):
        compare(**run, maps={"a": maps})
    np.save(maps / "s7.npy", np.zeros((48, 48)))
    with pytest.raises(ValueError, match=r"s7\.npy: the map is 48 x 48 and the mask 48 x 64 .* x, y, width, height"):
        compare(**run, maps={"a": maps})
    made = {"model": "floors", "methods": ["one", "two"]}
    with MapWriter(tmp_path / "two.h5", made) as writer:
        for method in ("one", "two"):
            writer.add(method, "s4", np.ones((2, 2)), target=0, size=SIZE)
    with pytest.raises(ValueError, match=r"two\.h5 holds one, two; name one: .*two\.h5#one"):
        compare(**run, maps={"a": tmp_path / "two.h5"})
    with pytest.raises(FileNotFoundError, match="no map of sample 's5'"):
        compare(**run, maps={"a": f"{tmp_path}/two.h5#one"})
    with pytest.raises(ValueError, match="unknown scale of a comparison 'temperature'"):
        compare(**run, maps={"a": maps}, scale="temperature")
