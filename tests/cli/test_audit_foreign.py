"""Audits of another tool's results: a sheet with maps and masks, clean, and with one sin after another."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from PIL import Image

from wsol.cli.audit import audit_foreign, render
from wsol.cli.files import read_json
from wsol.data import read_foreign_map
from wsol.slides import FLOORS

SIDE = 40
NAMES = ["t0", "t1", "v0", "v1", "e0", "e1", "e2", "e3"]
SPLIT = {"t": "train", "v": "val", "e": "test"}
METHODS = ("made", *(name for name in FLOORS if name != "pixel-regression"))


def row(name, **changes):
    label = "tumor" if int(name[1]) % 2 else "normal"
    facts = {
        "sample": name, "split": SPLIT[name[0]], "label": label, "patient": f"p{name}", "slide": f"s{name}",
        "path": f"{name}.bmp", "prediction": "tumor", "target": "tumor", "threshold": "0.4", "threshold_source": "validation",
    }  # fmt: skip
    facts |= {f"map:{m}": f"{m}/{name}.npy" for m in METHODS if name[0] == "e"}
    return facts | {"mask": f"{name}.png" if label == "tumor" and name[0] != "t" else ""} | changes


def write_sheet(root, changes=None):
    """The sheet, with `changes` {sample: {column: cell}}, and a further row for each name with a +."""
    changes = changes or {}
    rows = [row(name, **changes.get(name, {})) for name in NAMES]
    rows += [row(name[1:], **cells) for name, cells in changes.items() if name.startswith("+")]
    with open(root / "sheet.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(c for r in rows for c in r)), restval="")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def results(tmp_path):
    """Maps in (0, 1) at half the size of their masks; those of tumors are above 0.52 inside and below 0.48 outside."""
    generator = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(generator.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / f"{name}.bmp")
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[10:30, 10:30] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        for method in METHODS:
            (tmp_path / method).mkdir(exist_ok=True)
            noise = generator.uniform(0.01, 0.48, (SIDE, SIDE))
            inside = 0.52 - noise.max() + 0.47 * (mask > 0) if int(name[1]) % 2 else 0
            np.save(tmp_path / method / f"{name}.npy", np.clip(noise + inside, 0, 1).astype(np.float32))
    write_sheet(tmp_path)
    return tmp_path


def found(root, **changes):
    given = {"sheet": root / "sheet.csv", "maps": None, "masks": None, "out": root / "audit.json"}
    return audit_foreign(**given | changes)


def loud(findings):
    return {(f.severity, f.check) for f in findings if f.severity != "note"}


def one(findings, check):
    (finding,) = [f for f in findings if f.check == check]
    return finding


def test_clean_results_pass_and_what_nobody_can_know_is_said(results):
    findings = found(results)
    assert loud(findings) == set(), render(findings)
    assert one(findings, "prevalence").text == "chance level of the pixel average precision (prevalence): 0.125 on test"
    assert set(findings.unchecked) == {
        "split-unit",
        "checkpoint-source",
        "supervision",
        "ledger",
        "code-versions",
        "mixed-inputs",
    }
    written = read_json(results / "audit.json")
    assert (written["dataset"], written["errors"]) == ("sheet", 0)
    assert written["checked"] == list(findings.checked)


SHEETS = [
    ("shared-samples", "error", "1 sample (t0) is in training and in test", {"+t0": {"split": "test", "mask": ""}}),
    ("shared-patients", "error", "1 patient (pt1) is in training and in test: 1 of 4 test samples", {"e1": {"patient": "pt1"}}),
    ("shared-slides", "error", "1 slide (st1) is in training and in test", {"e1": {"slide": "st1"}}),
    ("shared-files", "error", "same path), on different sides of a split: e1 = t1", {"e1": {"path": "t1.bmp"}}),
    ("known-patients", "warning", "1 of 8 samples have no patient (e1)", {"e1": {"patient": ""}}),
    ("training-masks", "error", "1 validation mask (valpx) of training samples: t1", {"+t1": {"split": "valpx"}}),
    ("mask-files", "error", "1 mask cannot be read: e1 (no file", {"e1": {"mask": "gone.png"}}),
    ("mask-files", "warning", "1 sample without a mask: e1; if scored", {"e1": {"mask": ""}}),
    ("negative-masks", "warning", "1 sample of a negative class with foreground in the mask: e0", {"e0": {"mask": "e0.png"}}),
    ("broken-maps", "error", "made, e1: no map at", {"e1": {"map:made": "gone.npy"}}),
    ("threshold-source", "error", "(test oracle): made", {n: {"threshold_source": "test masks"} for n in NAMES}),
    ("threshold-source", "warning", "threshold of unknown source: made", {n: {"threshold_source": ""} for n in NAMES}),
    ("threshold-source", "warning", "4 different thresholds from", {n: {"threshold": f"0.{n[1]}"} for n in NAMES}),
    ("map-class", "error", "in 2 of 4 samples", {n: {"target": row(n)["label"]} for n in NAMES}),
    ("normal-class-maps", "error", "2 of 2 negatives", {n: {"target": row(n)["label"]} for n in NAMES}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "severity", "words", "changes"), SHEETS, ids=[f"{s[0]}-{i}" for i, s in enumerate(SHEETS)])
def test_a_sin_in_the_sheet_is_found(results, check, severity, words, changes):
    write_sheet(results, changes)
    texts = [f.text for f in found(results) if (f.check, f.severity) == (check, severity)]
    assert any(words in text for text in texts), render(found(results))


def spoil(root, change, method="made"):
    for path in (root / method).glob("*.npy"):
        np.save(path, change(np.load(path), path.stem))


@pytest.mark.parametrize(
    ("check", "severity", "words", "change"),
    [
        ("broken-maps", "error", "made, e0: .* NaN", lambda a, n: a * np.nan if n == "e0" else a),
        ("constant-maps", "warning", r"made on test: 1 of 4 \(e0\)", lambda a, n: a * 0 if n == "e0" else a),
        ("constant-maps", "error", "all maps are constant: made on test", lambda a, n: a * 0),
        ("per-image-range", "warning", "4 maps, 2 negatives", lambda a, n: (a - a.min()) / np.ptp(a)),
        ("identical-maps", "error", "the same map for all samples: made", lambda a, n: np.eye(SIDE, dtype=np.float32) / 2),
    ],
)  # fmt: skip
def test_a_sin_in_the_maps_is_found(results, check, severity, words, change):
    spoil(results, change)
    texts = [f.text for f in found(results) if (f.check, f.severity) == (check, severity)]
    assert any(re.search(words, text) for text in texts), render(found(results))


def test_two_methods_with_the_same_maps_are_named(results):
    for path in (results / "made").glob("*.npy"):
        (results / "other").mkdir(exist_ok=True)
        np.save(results / "other" / path.name, np.load(path))
    write_sheet(results, {n: {"map:other": f"other/{n}.npy"} for n in NAMES if n[0] == "e"})
    assert "under 2 names: made on test, other on test" in one(found(results), "identical-maps").text


def slow_best(root):
    """The threshold of 0, 0.001, ... that gives the largest Dice on the test masks, counted pixel by pixel."""
    scores = np.concatenate([read_foreign_map(root / f"made/{n}.npy").ravel() for n in NAMES[4:]]).astype(np.float64)
    truth = np.concatenate([np.asarray(Image.open(root / f"{n}.png")).ravel() > 0 if n in ("e1", "e3") else
                            np.zeros(SIDE * SIDE, bool) for n in NAMES[4:]])  # fmt: skip
    grid = np.arange(1001) / 1000
    dice = [2 * (truth & (scores >= t)).sum() / (truth.sum() + (scores >= t).sum()) for t in grid]
    return float(grid[int(np.argmax(dice))])


def test_a_threshold_that_is_the_best_of_the_test_masks_or_its_mirror_is_found(results):
    generator = np.random.default_rng(1)  # maps that overlap: the best threshold is one, not a range
    spoil(results, lambda a, n: np.clip(0.6 * a + 0.4 * generator.random(a.shape) ** 2, 0, 1).astype(np.float32))
    best = slow_best(results)
    assert abs(best - 0.5) > 0.02
    for used, check in ((best, "oracle-threshold"), (1.001 - best, "mirrored-threshold")):
        write_sheet(results, {n: {"threshold": f"{used:.3f}"} for n in NAMES})
        finding = one(found(results), check)
        assert finding.severity == "warning"
        assert f"{used:.3f}" in finding.text
    write_sheet(results, {n: {"threshold": f"{best + 0.05:.3f}"} for n in NAMES})
    assert loud(found(results)) == set()


def test_raw_maps_are_maps_and_have_no_best_threshold_to_compare_with(results):
    spoil(results, lambda a, n: 5 * a - 2)
    findings = found(results)
    assert loud(findings) == set(), render(findings)
    assert "oracle-threshold" in findings.unchecked


def test_of_a_threshold_per_image_the_median_is_compared(results):
    generator = np.random.default_rng(1)
    spoil(results, lambda a, n: np.clip(0.6 * a + 0.4 * generator.random(a.shape) ** 2, 0, 1).astype(np.float32))
    best = f"{slow_best(results):.3f}"
    write_sheet(
        results, {"e0": {"threshold": "0.1"}, "e1": {"threshold": best}, "e2": {"threshold": best}, "e3": {"threshold": "0.9"}}
    )
    assert {("warning", "oracle-threshold"), ("warning", "threshold-source")} == loud(found(results))


def test_masks_of_one_bit_are_black_and_white(results):
    for name in ("v1", "e1", "e3"):
        Image.open(results / f"{name}.png").convert("1").save(results / f"{name}.png")
    assert loud(found(results)) == set()


def test_masks_of_zeros_and_ones_and_empty_ones_are_found(results):
    for name in ("v1", "e1", "e3"):
        Image.fromarray(np.array(Image.open(results / f"{name}.png")) // 255).save(results / f"{name}.png")
    assert "3 of 3 masks hold ids 0 and 1" in one(found(results), "gray-levels").text
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(results / "e1.png")
    assert one(found(results), "empty-masks").text.endswith("an empty mask: e1")


def test_floors_that_nobody_drew_are_missed(results):
    write_sheet(results, {n: {f"map:{m}": "" for m in METHODS[1:]} for n in NAMES})
    text = one(found(results), "trivial-baselines").text
    assert text == "not scored on test of fold 0: all-ones, random, a color filter (hematoxylin or blue-minus-red)"


def test_folders_are_read_by_name(results):
    with open(results / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["sample", "split", "label", "patient"], *([n + ".bmp", SPLIT[n[0]], row(n)["label"], n] for n in NAMES)]
        )
    (results / "masks").mkdir()
    for n in ("v1", "e1", "e3"):
        (results / f"{n}.png").rename(results / "masks" / f"{n}.png")
    for n in ("e0", "e2"):
        (results / "made" / f"{n}.npy").unlink()
    findings = found(results, maps=results / "made", masks=results / "masks")
    assert one(findings, "broken-maps").text == "2 maps cannot be scored: made, e0.bmp: no file, made, e2.bmp: no file"
    assert {"constant-maps", "full-masks"} <= set(findings.passed)
    np.savez(results / "made/e1.npz", np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"e1\.npy and e1\.npz are files of one sample"):
        found(results, maps=results / "made")
    with pytest.raises(FileNotFoundError, match="no folder"):
        found(results, maps=results / "nowhere")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("smple,split\na,test", "unknown column 'smple'; did you mean 'sample'"),
        ("split\ntest", "the column 'sample' is missing"),
        ("sample,split\n", "the sheet has no rows"),
        ("sample,split\na,tset", "row 2: unknown split 'tset'; did you mean 'test'"),
        ("sample,split\n,test", "row 2: sample is blank"),
        ("sample,threshold\na,half", "row 2: threshold 'half': a number expected"),
        ("sample,threshold_source\na,valdation", "row 2: unknown threshold source 'valdation'; did you mean 'validation'"),
    ],
)
def test_a_mistake_in_the_sheet_names_its_row(tmp_path, text, error):
    (tmp_path / "sheet.csv").write_text(text)
    with pytest.raises(ValueError, match=error):
        found(tmp_path)


def test_what_is_too_much_to_read_is_not_judged(results):
    findings = found(results, samples=2)
    assert loud(findings) == set()
    assert findings.unchecked["prevalence"].startswith("not all test maps and masks could be read")
    assert findings.unchecked["oracle-threshold"].startswith("no result has both a threshold and a best one")


def test_a_sheet_alone_is_audited(tmp_path):
    (tmp_path / "sheet.csv").write_text("sample,split,patient\na,train,p\nb,test,p\n")
    findings = found(tmp_path)
    assert ("error", "shared-patients") in loud(findings)
    assert findings.unchecked["broken-maps"] == "no maps are given"
    with pytest.raises(FileNotFoundError, match="no sheet"):
        found(tmp_path, sheet=tmp_path / "none.csv")
