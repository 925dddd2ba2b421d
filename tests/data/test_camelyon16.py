"""CAMELYON16 as it is released: both layouts, official roles, and every known exception."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from wsol.data import SOURCES, check_splits, read_manifest, read_masks, write_manifest
from wsol.data.sources import camelyon16
from wsol.data.sources.phantom_tiff import write_pyramid
from wsol.slides import open_slide

XML = (
    '<ASAP_Annotations><Annotations><Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="Tumor"><Coordinates>'
    + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate([(10, 20), (50, 20), (50, 60), (10, 60)]))
    + "</Coordinates></Annotation></Annotations></ASAP_Annotations>"
)
TRAIN = [*(f"normal_{n:03d}" for n in range(1, 7)), *(f"tumor_{n:03d}" for n in (1, 2, 3, 10, 110))]
TEST = ["test_001", "test_002", "test_114"]
TUMOR_TESTS = {"test_001", "test_114"}


def release(root, layout, names=(*TRAIN, *TEST), reference=True, bare=("test_114",)):
    """Empty slides and square annotations where the release has them; GigaScience writes names with a capital."""
    for name in names:
        kind = name.split("_")[0]
        if layout == "aws":
            image, drawn = root / "images" / f"{name}.tif", root / "annotations" / f"{name}.xml"
        else:
            part = "testing/images" if kind == "test" else f"training/{kind}"
            image = root / part / f"{name.capitalize()}.tif"
            drawn = root / part.split("/")[0] / "lesion_annotations" / f"{name.capitalize()}.xml"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
        if (kind == "tumor" or name in TUMOR_TESTS) and name not in bare:
            drawn.parent.mkdir(parents=True, exist_ok=True)
            drawn.write_text(XML)
    if layout == "gigascience" and reference:
        rows = [f"{name},{'Tumor' if name in TUMOR_TESTS else 'Normal'},None,None" for name in names if name.startswith("test")]
        (root / "testing" / "reference.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize(("layout", "reference"), [("aws", False), ("gigascience", True), ("gigascience", False)])
def test_both_layouts_give_the_same_samples(tmp_path, layout, reference):
    found = camelyon16.dataset(release(tmp_path, layout, reference=reference), folds=3, valpx=1, strict_counts=False)
    found.check()
    labels = dict(zip(found.samples["sample"], found.samples["label"], strict=True))
    assert labels == {n: int(n.startswith("tumor") or n in TUMOR_TESTS) for n in (*TRAIN, *TEST)}
    for fold in range(3):
        rows = found.samples[found.samples["fold"] == fold]
        assert sorted(rows[rows["role"] == "test"]["sample"]) == sorted(TEST)
        assert sorted(rows[rows["role"].isin(["train", "valcl"])]["sample"]) == sorted(TRAIN)
    check_splits(found.samples, "slide")
    held = found.samples[found.samples["role"] == "valcl"]["sample"]
    assert sorted(held) == sorted(TRAIN)  # each validates in one fold
    assert camelyon16.listing(tmp_path, folds=3, valpx=1, strict_counts=False) == [
        {**row, "mpp": pytest.approx(float("nan"), nan_ok=True)} for row in found.samples.to_dict("records")
    ]


def test_masks_of_what_is_wholly_known_only(tmp_path):
    root = release(tmp_path, "gigascience")
    masks = camelyon16.dataset(root, folds=3, valpx=2, strict_counts=False).masks.set_index("sample")
    assert set(masks.index[masks["kind"] == "empty"]) == {*(n for n in TRAIN if n.startswith("normal")), "test_002"}
    assert set(masks.index[masks["kind"] == "file"]) == {"tumor_001", "tumor_002", "tumor_003", "test_001"}
    chosen = camelyon16.dataset(root, folds=3, valpx=2, strict_counts=False).samples.query("role == 'valpx'")["sample"]
    assert not set(chosen) & {"tumor_010", "tumor_110"}
    all_drawn = camelyon16.dataset(root, folds=3, partly=True, strict_counts=False).masks
    assert {"tumor_010", "tumor_110"} < set(all_drawn["sample"])
    assert "test_114" not in set(all_drawn["sample"])  # it has no annotation at all
    assert len(camelyon16.PARTLY) == 21


@pytest.mark.parametrize("both", [False, True])
def test_a_renamed_slide_is_taken_once_and_a_duplicate_never(tmp_path, both):
    names = [*TRAIN, *TEST, "normal_086", "test_049", *(["tumor_111"] if both else [])]
    root = release(tmp_path, "aws", names)
    (root / "annotations" / "tumor_111.xml").write_text(XML)
    slides = {s.sample: s for s in camelyon16.read_slides(root, strict_counts=False)}
    assert set(slides) == {*TRAIN, *TEST, "tumor_111"}
    assert slides["tumor_111"].label == 1
    assert slides["tumor_111"].path.stem == ("tumor_111" if both else "normal_086")
    assert slides["tumor_111"].annotation is not None


def test_the_whole_set_has_its_counts(tmp_path):
    names = [f"normal_{n:03d}" for n in range(1, 161) if n != 86] + [f"tumor_{n:03d}" for n in range(1, 112)]
    tests = [f"test_{n:03d}" for n in range(1, 131) if n != 49]
    root = release(tmp_path, "aws", [*names, *tests])
    found = camelyon16.dataset(root, valpx=3)
    first = found.samples[found.samples["fold"] == 0]
    counts = first["role"].value_counts()
    assert (counts["train"] + counts["valcl"], counts["test"], counts["valpx"]) == (270, 129, 6)
    for fold in range(5):
        part = found.samples[(found.samples["fold"] == fold) & (found.samples["role"] == "valcl")]
        assert len(part) == 54
        assert part["label"].sum() in (22, 23)
    (root / "images" / "tumor_050.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"'tumor': 110.*strict_counts: false"):
        camelyon16.dataset(root)
    (root / "images" / "tumor_050.tif").touch()
    (root / "annotations" / "tumor_007.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no annotations of 1 with tumor \(tumor_007\)"):
        camelyon16.listing(root)


def test_contradictions_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no slides \(\*\.tif\)"):
        camelyon16.dataset(tmp_path)
    root = release(tmp_path, "gigascience")
    (root / "testing" / "lesion_annotations" / "Test_002.xml").write_text(XML)
    with pytest.raises(ValueError, match=r"Test_002\.tif: labeled normal, but .*Test_002\.xml annotates tumor on it"):
        camelyon16.dataset(root, strict_counts=False)
    (root / "testing" / "reference.csv").write_text("test_001,Tumor\ntest_002,Macro\n")
    with pytest.raises(ValueError, match=r"no label normal or tumor for test_002, test_114 \(2 slides\)"):
        camelyon16.dataset(root, strict_counts=False)


def test_two_releases_in_one_folder_are_refused(tmp_path):
    root = release(release(tmp_path, "aws"), "gigascience")
    with pytest.raises(
        ValueError, match=r"normal_001 is there twice: .*images/normal_001\.tif and .*training/normal/Normal_001\.tif"
    ):
        camelyon16.dataset(root, strict_counts=False)
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"tumor_001 is there twice: .*annotations/tumor_001\.xml and .*Tumor_001\.xml"):
        camelyon16.listing(root, strict_counts=False)


def test_annotations_lie_on_the_slides(tmp_path):
    """A slide as the ASAP converter writes it, tiled JPEG at 0.25 um: the square is dark, and its annotation covers it."""
    root = release(tmp_path / "in", "aws")
    rgb = np.full((256, 256, 3), 240, np.uint8)
    cv2.rectangle(rgb, (10, 20), (49, 59), (90, 40, 120), -1)
    write_pyramid(rgb, root / "images" / "tumor_001.tif", 0.25)
    found = camelyon16.dataset(root, folds=3, strict_counts=False)
    write_manifest(found, tmp_path / "m.parquet", tmp_path / "k.parquet")
    row, truth = read_manifest(tmp_path / "m.parquet").sample("tumor_001"), read_masks(tmp_path / "k.parquet")
    with open_slide(row.path) as slide:
        mask = truth.open("tumor_001", shape=slide.size[::-1])
        seen = slide.thumbnail(slide.mpp)
    assert mask.sum() == 40 * 40
    assert seen[mask].mean() < 120 < 200 < seen[~mask].mean()


def test_planning_loads_no_pandas(tmp_path):
    root = release(tmp_path, "aws")
    script = (
        "import sys\nfrom wsol._names import resolve\nfrom wsol.data import SOURCES\n"
        f"rows = resolve('source', 'camelyon16', SOURCES, 'wsol.data').listing({str(root)!r}, folds=3, strict_counts=False)\n"
        "import json; print(json.dumps([len(rows), 'pandas' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[1] is False
    assert "camelyon16" in SOURCES
