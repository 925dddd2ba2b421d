"""Audits of a study on disk: clean, and with one file after another spoiled."""

from __future__ import annotations

import csv
import re
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from wsol.cli.audit import audit, render
from wsol.cli.config import Evaluate, Prepare
from wsol.cli.evaluate import evaluate
from wsol.cli.files import read_json, write_json
from wsol.cli.floors import draw_floors, fit_floors
from wsol.cli.plan import FLOORS, MAPS, RUN
from wsol.cli.prepare import prepare
from wsol.data import MapWriter, read_manifest
from wsol.evaluation import CHECKS, Finding
from wsol.tracking import file_hash

SIDE = 48
METHODS = [{"id": m, "method": m, "options": {}} for m in ("cam", "grad-cam")]
BASE = {"dataset": "tiny", "fold": 0, "seed": 0}
GAP = BASE | {"model": "gap", "checkpoint": "last", "set": "fast"}


def drawn(root, split, *, target=lambda label: 1, values=None, folder=False, methods=("cam", "grad-cam"), same=False, bare=""):
    """Writes maps that half know the mask; the model mistakes the first sample of the split."""
    rows = read_manifest(root / "m.parquet").rows(0, split)
    base = root / "results/localize" / MAPS.format(**GAP)
    (base / f"{split}.h5").unlink(missing_ok=True)
    groups = [[r] for r in rows.itertuples()] if folder else [list(rows.itertuples())]
    for group in groups:
        path = base / split / f"{group[0].sample}.h5" if folder else base / f"{split}.h5"
        with MapWriter(path, {"map_class": "positive", "methods": METHODS}) as writer:
            for row in group:
                cover = np.full((SIDE // 4, SIDE // 4), row.sample != bare) if bare else None
                for method in methods:
                    generator = np.random.default_rng([*row.sample.encode(), *(b"" if same else method.encode())])
                    noise = generator.normal(size=(SIDE // 4, SIDE // 4))
                    array = (noise + 2 * np.pad(np.ones((4, 4)), 4) * row.label).astype(np.float32)
                    array = array if values is None else values(array).astype(np.float32)
                    writer.add(method, row.sample, array, target=target(row.label), size=(SIDE, SIDE), coverage=cover)
                right = row.label if row.sample != rows["sample"][0] else 1 - row.label
                writer.predict(row.sample, np.eye(2)[right])


def scored(root, run, split="test"):
    base = root / "results/localize" / MAPS.format(**run)
    scores = root / "results/evaluate" / MAPS.format(**run) / split / "scores.json"
    record = root / "results/train" / RUN.format(**run) / ("none.json" if run["model"] == "floors" else "run.json")
    settings = Evaluate(bootstrap=10, regions=False, boxes_px=0, compare_scales=[], ledger=str(root / "ledger.csv"))
    evaluate(
        settings, manifest=root / "m.parquet", masks=root / "k.parquet", maps=base / f"{split}.h5", validation=base / "valcl.h5",
        record=record, key={**run, "split": split}, scores=scores, curves=scores.with_name("curves.parquet"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Twelve images of six patients, drawn and scored as the workflow does it, floors included."""
    root = tmp_path_factory.mktemp("audited")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(12):
        label = "tumor" if i % 2 else "normal"
        Image.fromarray(generator.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(root / f"i{i}.bmp")
        if label == "tumor":
            Image.fromarray(np.pad(np.full((16, 16), 255, np.uint8), 16)).save(root / f"m{i}.png")
        split = "train" if i < 4 else "val" if i < 8 else "test"
        rows.append([f"i{i}", f"i{i}.bmp", label, f"p{i // 2}", f"m{i}.png" if label == "tumor" else "", split])
    with open(root / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split"], *rows])
    options = {"sheet": str(root / "sheet.csv"), "classes": ["normal", "tumor"]}
    prepare(Prepare(name="tiny", source="images", options=options), manifest=root / "m.parquet", masks=root / "k.parquet")
    train, floors = root / "results/train", BASE | FLOORS
    origin = {"inputs": {"manifest": file_hash(root / "m.parquet")}}
    write_json(
        train / RUN.format(**GAP) / "run.json", {"supervision": "image label", "masks": 0, "settings": {}, "provenance": origin}
    )
    fitted = train / RUN.format(**floors) / "none.json"
    fit_floors(manifest=root / "m.parquet", masks=root / "k.parquet", out=fitted, fold=0, mpp=1.0)
    for split in ("valcl", "test"):
        drawn(root, split)
        out = root / "results/localize" / MAPS.format(**floors) / f"{split}.h5"
        draw_floors(model=fitted, manifest=root / "m.parquet", out=out, split=split, fold=0, slide=None, seed=0, mpp=1.0)
    for run in (GAP, floors):
        scored(root, run)
    return root


@pytest.fixture
def study(clean, tmp_path):
    """A copy to spoil. Masks and images stay where the manifest says."""
    for name in ("results", "m.parquet", "k.parquet", "ledger.csv"):
        copy = shutil.copytree if (clean / name).is_dir() else shutil.copy
        copy(clean / name, tmp_path / name)
    return tmp_path


def found(root, **changes):
    given = {
        "scores": sorted((root / "results/evaluate").rglob("scores.json")), "manifest": root / "m.parquet",
        "masks": root / "k.parquet", "results": root / "results", "ledger": root / "ledger.csv", "out": root / "audit.json",
    }  # fmt: skip
    return audit(**given | changes)


def loud(findings):
    return {(f.severity, f.check) for f in findings if f.severity != "note"}


def rewritten(root, run=GAP, **changes):
    """Facts of every method in one score file replaced."""
    path = root / "results/evaluate" / MAPS.format(**run) / "test/scores.json"
    scores = read_json(path)
    for facts in scores["methods"].values():
        for name, value in changes.items():
            facts[name] = facts[name] | value
    write_json(path, scores)


def test_a_clean_study_passes_every_check_and_writes_what_it_found(study):
    findings = found(study)
    assert loud(findings) == set(), render(findings)
    assert list(findings.checked) == list(CHECKS)
    written = read_json(study / "audit.json")
    assert written["dataset"] == "tiny"
    assert (written["errors"], written["warnings"]) == (0, 0)
    assert written["checked"] == list(CHECKS)
    assert [f["check"] for f in written["findings"]] == [f.check for f in findings]
    assert set(written["findings"][0]) == {"check", "severity", "text", "remedy", "where"}
    said = {f.check: f.text for f in findings}
    assert "of samples that are in valcl too" in said["validation-masks"]
    assert "2 looks at the test set on 1 day, 1 trained model" in said["ledger"]
    assert "fitted on the masks that chose its threshold too: pixel-regression" in said["supervision"]


def test_the_last_line_counts_and_errors_come_first(study):
    (study / "ledger.csv").unlink()
    rewritten(study, threshold={"source": "test oracle"})
    rewritten(study, run=BASE | FLOORS, badges={"code": "0.2.0"})
    lines = render(found(study)).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["error", "error", "warning"]
    assert "threshold-source: threshold chosen on the masks that are scored (test oracle): cam (gap, last" in lines[0]
    assert "To do: take it from validation masks" in lines[0]
    assert lines[-1].startswith("2 errors, 1 warning, ")
    assert lines[-1].endswith(f"; {len(CHECKS) - 3 - 2} checks passed, 2 not made")  # oracles have nothing to be compared with
    assert render([]) == "0 errors, 0 warnings"
    assert render([Finding("x", "warning", "text", "remedy", "fold 1")]).splitlines()[0] == (
        "warning  x: text [fold 1]. To do: remedy."
    )


MAP_SINS = [
    (
        "map-class",
        "error",
        "decides otherwise in 1 of 4 samples; the badge claims 'declared positive'",
        {"target": lambda label: label},
    ),
    ("normal-class-maps", "error", "cam on test .*: 2 of 2 negatives", {"target": lambda label: label}),
    ("constant-maps", "error", "all maps are constant: cam on test", {"values": np.zeros_like}),
    ("per-image-range", "warning", "4 maps, 2 negatives among them", {"values": lambda a: (a - a.min()) / np.ptp(a)}),
    ("identical-maps", "error", "one and the same map for all samples", {"values": lambda a: np.eye(4)}),
    ("identical-maps", "warning", "under 2 names: cam on test .*, grad-cam on test", {"same": True}),
    ("broken-maps", "error", "4 maps cannot be scored: grad-cam, i8: no map in the file", {"methods": ["cam"]}),
]


@pytest.mark.parametrize("folder", [False, True], ids=["one-file", "per-sample"])
@pytest.mark.parametrize(("check", "severity", "words", "how"), MAP_SINS, ids=[f"{s[0]}-{i}" for i, s in enumerate(MAP_SINS)])
def test_spoiled_maps_are_found(study, check, severity, words, how, folder):
    drawn(study, "test", folder=folder, **how)
    findings = found(study)
    assert (severity, check) in loud(findings), render(findings)
    assert any(re.search(words, f.text) for f in findings if f.check == check), render(findings)


def test_maps_of_the_true_class_are_found_though_all_maps_but_one_agree_with_the_prediction(study):
    # The model mistakes a single sample of the split, and not all maps are read: the telling one is.
    drawn(study, "test", target=lambda label: label)
    rewritten(study, badges={"map_class": "predicted"})
    (finding,) = [f for f in found(study, samples=3) if f.check == "map-class"]
    assert finding.severity == "error"
    assert "although the model decides otherwise in 1 of 3 samples; the badge claims 'predicted'" in finding.text


def test_not_a_number_and_a_damaged_file_are_found(study):
    path = study / "results/localize" / MAPS.format(**GAP) / "test.h5"
    with h5py.File(path, "r+") as file:
        file["cam/i9"][0, :3] = np.nan
    (finding,) = [f for f in found(study) if f.check == "broken-maps"]
    assert finding.text == "1 map cannot be scored: cam, i9: 3 of 144 values are NaN or infinite"
    path.write_bytes(path.read_bytes()[:100])
    assert any("cannot be read" in f.text for f in found(study) if f.check == "broken-maps")


def test_a_sample_of_which_nothing_was_drawn_is_no_constant_map(study):
    drawn(study, "test", folder=True, values=np.zeros_like, bare="i8")
    (finding,) = [f for f in found(study) if f.check == "constant-maps"]
    assert "cam on test (gap, last, fast, fold 0, seed 0): 3 of 3 (i10, i9, i11)" in finding.text


def edited(root, name, edit):
    """The tables of the manifest and the masks, changed and written as `prepare` would not."""
    from wsol.data.manifest import MANIFEST, read_table, write_table
    from wsol.data.manifest import MASKS as COLUMNS

    path = root / name
    table, meta = read_table(path, MANIFEST if name == "m.parquet" else COLUMNS, "test")
    write_table(path, edit(table), meta)


def test_a_leaking_manifest_is_found_with_its_names(study):
    def leak(table):
        table.loc[table["sample"] == "i8", "patient"] = "p0"
        table.loc[table["sample"] == "i9", "slide"] = table.loc[table["sample"] == "i1", "slide"].iloc[0]
        return table

    edited(study, "m.parquet", leak)
    findings = found(study)
    texts = {f.check: f.text for f in findings}
    assert texts["shared-patients"].startswith("1 patient (p0) is in training and in test: 1 of 4 test samples")
    assert "its sides share some patient" in texts["split-unit"]
    assert "the file of manifest here is not the one" in texts["mixed-inputs"]


def test_a_copied_image_is_found_by_its_content(study):
    copy = study / "i8.bmp"

    def twin(table):
        shutil.copy(table.loc[table["sample"] == "i0", "path"].iloc[0], copy)
        table.loc[table["sample"] == "i8", "path"] = str(copy)
        return table

    edited(study, "m.parquet", twin)
    (finding,) = [f for f in found(study) if f.check == "shared-files"]
    assert finding.severity == "error"
    assert "same content), on different sides of a split: i0 = i8" in finding.text


@pytest.mark.parametrize(
    ("ids", "values", "check", "severity", "words"),
    [
        (None, "[]", "mask-files", "error", "1 mask cannot be read: i9 (no file"),
        ([0], "[]", "empty-masks", "error", "1 sample with something to find but an empty mask: i9"),
        ([0, 1], "[255]", "mask-ids", "error", "1 mask read as empty: i9; ids 0, 1"),
        ([1, 2], "[]", "full-masks", "error", "1 mask of several ids and no background: i9"),
        ([255], "[]", "full-masks", "warning", "1 of 4 masks are foreground everywhere: i9"),
        ([0, 1], "[]", "mask-ids", "warning", "1 mask with ids 0 and 1 (i9) beside 3 with 0 and 255"),
    ],
)
def test_a_spoiled_mask_is_found(study, ids, values, check, severity, words):
    path = study / "m9.png"
    if ids is not None:
        Image.fromarray(np.resize(np.array(ids, np.uint8), (SIDE, SIDE))).save(path)

    def swap(table):
        table.loc[table["sample"] == "i9", ["mask", "values"]] = [str(path), values]
        return table

    edited(study, "k.parquet", swap)
    assert any(f.severity == severity and words in f.text for f in found(study) if f.check == check), render(found(study))


def test_a_positive_declared_empty_and_a_scored_sample_without_a_mask_are_found(study):
    def swap(table):
        table.loc[table["sample"] == "i9", ["kind", "mask"]] = ["empty", ""]
        return table[table["sample"] != "i11"]

    edited(study, "k.parquet", swap)
    texts = {f.check: f.text for f in found(study) if f.severity == "error"}
    assert "empty mask: i9 (1 of them without any file, declared empty)" in texts["empty-masks"]
    assert "1 sample scored without a mask: i11" in texts["mask-files"]


def test_what_is_not_given_is_not_passed(study):
    bare = found(study, scores=[], masks=None, results=None, ledger=None, out=None)
    assert bare.unchecked["map-class"] == "no maps are given"
    assert bare.unchecked["threshold-source"] == "no scores are given"
    assert "not made" in render(bare).splitlines()[-1]
    shutil.rmtree(study / "results/localize")
    assert found(study).unchecked["broken-maps"] == "no maps are given"


def test_records_are_compared(study):
    path = study / "results/train" / RUN.format(**GAP) / "run.json"
    write_json(path, {"supervision": "image label", "masks": 4, "provenance": {"inputs": {"manifest": "0" * 16}}})
    (study / "ledger.csv").write_text("date,code,dataset,model,checkpoint,fold,seed,set,split,methods\n")
    texts = {f.check: f.text for f in found(study) if f.severity == "error"}
    assert "trained on 4 masks by its record, but the badge says 'image label'" in texts["supervision"]
    assert "trained from another manifest than the one scored" in texts["mixed-inputs"]
    assert "2 evaluations of the test split not in the ledger" in texts["ledger"]


def test_scores_of_another_dataset_are_refused(study):
    path = study / "results/evaluate" / MAPS.format(**GAP) / "test/scores.json"
    scores = read_json(path)
    write_json(path, scores | {"key": scores["key"] | {"dataset": "other"}})
    with pytest.raises(ValueError, match=r"scores of dataset 'other', but .* is of 'tiny'"):
        found(study)
