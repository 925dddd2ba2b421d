"""A bad slide becomes a record with its reason; strict stops; a killed job leaves nothing half; everything after goes on."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from wsol.cli.config import Heatmap, Prepare, Tile
from wsol.cli.faults import faults
from wsol.cli.floors import draw_floors, fit_floors
from wsol.cli.heatmap import heatmap
from wsol.cli.localize import localize
from wsol.cli.main import app
from wsol.cli.prepare import prepare
from wsol.cli.scoring import Maps
from wsol.cli.tile import tile
from wsol.data import MapReader, read_image
from wsol.data.sources.phantom import Slide, write_slide
from wsol.models import build_localizer, save_checkpoint

SETTINGS = Tile(mpp=0.5, tile_px=64, min_tissue=0.05)
CAM = [{"id": "cam", "method": "cam", "options": {}}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a phantom slide of 512 x 512 px, tiles of 256 px, two levels."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_slide(Slide("tumor", True, 512, 3, 0, "easy", 0.2), folder)
    return (folder / "tumor.tiff").read_bytes()


def listed(folder, data, name="s.tiff", **more):
    """A manifest of one slide per role and label with these bytes, and the file."""
    rows = [f"{role}{i},{role}{i}-{name},{label},p{role}{i},{role}" for role in ("train", "val", "test")
            for i, label in enumerate(["normal", "tumor"])]  # fmt: skip
    (folder / "sheet.csv").write_text("\n".join(["sample,path,label,patient,split", *rows]))
    for row in rows:
        (folder / row.split(",")[1]).write_bytes(data)
    options = {"sheet": str(folder / "sheet.csv"), "classes": ["normal", "tumor"], **more}
    prepare(Prepare(name="tiny", source="slides", options=options), manifest=folder / "m.parquet", masks=folder / "k.parquet")
    return folder / "m.parquet", folder / f"test0-{name}"


def without_tissue(path):
    glass = np.full((512, 512, 3), 243, np.uint8)
    tifffile.imwrite(path, glass, tile=(64, 64), photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")


def without_mpp(path):
    noise = np.random.default_rng(0).integers(60, 200, (512, 512, 3), np.uint8)
    tifffile.imwrite(path, noise, tile=(64, 64), photometric="rgb")


def level0_zeroed(path):
    """All but the first bytes of the tiles of level 0: the directories are whole, and the thumbnail still reads."""
    with tifffile.TiffFile(path) as tiff:
        spans = list(zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))
    data = bytearray(path.read_bytes())
    for offset, count in spans:
        data[offset + 2 : offset + count] = bytes(count - 2)
    path.write_bytes(data)


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


BAD = {
    "truncated": (cut, "failed", "truncated|cut off"),
    "zero bytes": (lambda path: path.write_bytes(b""), "failed", "copy may be incomplete|cannot be read"),
    "text": (lambda path: path.write_text("404 not found"), "failed", "copy may be incomplete|cannot be read"),
    "gone": (lambda path: path.unlink(), "failed", "no slide at"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "failed", "copy may be incomplete|cannot be read|directory"),
    "unreadable level": (level0_zeroed, "failed", "cannot be read"),
    "no mpp": (without_mpp, "failed", "set the `mpp` column"),
    "no tissue": (without_tissue, "empty", "no tissue found"),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_bad_slide_becomes_a_record(whole, tmp_path, damage):
    manifest, path = listed(tmp_path, whole)
    spoil, status, says = BAD[damage]
    spoil(path)
    out = tmp_path / "tiles" / "test0.parquet"
    found = tile(SETTINGS, manifest=manifest, slide="test0", out=out)
    assert (found["slide"], found["status"]) == ("test0", status)
    assert re.search(says, found["reason"])
    assert json.loads(out.with_suffix(".json").read_text()) == found
    table = pd.read_parquet(out)
    assert table.empty
    assert list(table.columns[:4]) == ["x", "y", "width", "height"]
    assert table.attrs.get("failure") == (found if status == "failed" else None)
    if status == "failed":
        assert (found["verb"], found["file"]) == ("tile", str(path))
    assert read_image(out.with_suffix(".png")).std() > 0  # a picture, of the slide or of words
    strict = tmp_path / "strict" / "test0.parquet"
    for settings, flag in ((SETTINGS, True), (SETTINGS.model_copy(update={"strict": True}), False)):
        with pytest.raises(RuntimeError, match=r"slide 'test0'.*the study stops here"):
            tile(settings, manifest=manifest, slide="test0", out=strict, strict=flag)
    assert not strict.parent.exists() or not list(strict.parent.iterdir())


def test_a_good_slide_among_them_is_tiled_as_ever(whole, tmp_path):
    manifest, path = listed(tmp_path, whole)
    path.write_bytes(b"")
    good = tile(SETTINGS, manifest=manifest, slide="test1", out=tmp_path / "a.parquet")
    alone = tile(SETTINGS, manifest=manifest, slide="test1", out=tmp_path / "b.parquet", strict=True)
    assert good == alone
    assert good["status"] == "ok"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), pd.read_parquet(tmp_path / "b.parquet"))


def test_every_tile_is_read_at_its_own_level(whole, tmp_path):
    """Blur is measured on level 1, tiles are of level 0, and one of its four stored tiles is damaged."""
    manifest, path = listed(tmp_path, whole)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[3], tiff.pages[0].databytecounts[3]
    data = bytearray(whole)
    data[offset : offset + count] = bytes(count)
    path.write_bytes(data)
    coarse = SETTINGS.model_copy(update={"qc": SETTINGS.qc.model_copy(update={"sharpness_mpp": 2.0}), "min_tissue": 0.0})
    assert tile(coarse, manifest=manifest, slide="test1", out=tmp_path / "1.parquet")["status"] == "ok"
    found = tile(coarse, manifest=manifest, slide="test0", out=tmp_path / "0.parquet")
    assert found["status"] == "failed"
    only = SETTINGS.model_copy(update={"mpp": 2.0, "tile_px": 32, "qc": coarse.qc, "min_tissue": 0.0})
    assert tile(only, manifest=manifest, slide="test0", out=tmp_path / "2.parquet")["status"] == "ok"


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_killed_tiling_leaves_no_half_file(whole, tmp_path, nth):
    """Killed when the nth file is to take its name: those before are whole, the others absent, and a second run is right."""
    manifest, _ = listed(tmp_path, whole)
    out = tmp_path / "tiles" / "test0.parquet"
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom wsol.cli.config import Tile\nfrom wsol.cli.tile import tile\n"
        "real, left = os.replace, iter(range(1, 9))\n"
        f"os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if next(left) == {nth} else real(*a)\n"
        f"where = {{'manifest': Path({str(manifest)!r}), 'out': Path({str(out)!r})}}\n"
        "tile(Tile(mpp=0.5, tile_px=64, min_tissue=0.05), slide='test0', **where)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True).returncode == -9
    there = {path.suffix for path in out.parent.glob("test0.*")}
    assert there == set([".png", ".json", ".parquet"][: nth - 1])
    if ".json" in there:
        assert json.loads(out.with_suffix(".json").read_text())["status"] == "ok"
    tile(SETTINGS, manifest=manifest, slide="test0", out=out)
    tile(SETTINGS, manifest=manifest, slide="test0", out=tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(tmp_path / "again.parquet"))


@pytest.fixture
def drawn(whole, tmp_path):
    """Two test slides, of which one was truncated before it was tiled (`test0`) or after (`test1`), drawn by net and floors."""
    manifest, path = listed(tmp_path, whole)
    cut(path)
    tiles = tmp_path / "tiles"
    for slide in ("test0", "test1", "val0", "val1"):
        tile(SETTINGS, manifest=manifest, slide=slide, out=tiles / f"{slide}.parquet")
    cut(tmp_path / "test1-s.tiff")
    net = build_localizer(
        "efficientnet_lite0", "gap", 2, weights=None, output_stride=32, generator=torch.Generator().manual_seed(0)
    )
    save_checkpoint(net, tmp_path / "net.safetensors", {})
    fit_floors(manifest=manifest, masks=tmp_path / "k.parquet", out=tmp_path / "floors.json", fold=0, mpp=2.0, tiles=tiles)
    for split, slide in (("test", "test0"), ("test", "test1"), ("valcl", "val0")):
        one = {"manifest": manifest, "split": split, "fold": 0, "slide": slide, "tiles": tiles / f"{slide}.parquet"}
        localize({"methods": CAM}, model=tmp_path / "net.safetensors", out=tmp_path / f"{split}/{slide}.h5", threads=1, **one)
        draw_floors(model=tmp_path / "floors.json", out=tmp_path / f"floors/{split}/{slide}.h5", seed=0, mpp=2.0, **one)
    return tmp_path


def test_maps_of_a_bad_slide_are_its_record(drawn):
    for base, verb in ((drawn, "localize"), (drawn / "floors", "draw-floors")):
        maps = Maps(base / "test", ["test0", "test1"])
        before, after = maps.failures()
        assert (before["slide"], before["verb"]) == ("test0", "tile")
        assert (after["slide"], after["verb"], after["status"]) == ("test1", verb, "failed")
        assert list(maps.readers()) == []
        with pytest.raises(ValueError, match="none of 2 slides could be drawn, the first: "):
            maps.first()
        good = Maps(base / "valcl", ["val0"])
        assert good.failures() == []
        assert [sample for sample, _ in good.readers()] == ["val0"]
        with MapReader(base / "test" / "test0.h5") as reader:
            assert reader.methods == []


def test_a_bad_slide_has_no_heat_map(drawn):
    (drawn / "scores.json").write_text('{"methods": {"cam": {}}}')
    where = {"manifest": drawn / "m.parquet", "masks": None, "maps": drawn / "test/test0.h5", "out": drawn / "index.json"}
    heatmap(Heatmap(), scores=drawn / "scores.json", **where)
    assert json.loads((drawn / "index.json").read_text()) == {}


def test_faults_are_gathered_once_per_slide():
    statuses = [{"slide": "b", "status": "ok"}, {"slide": "c", "status": "empty", "reason": "no tissue found"}]
    late = {"slide": "b", "status": "failed", "reason": "bad tile", "verb": "localize", "file": "b.tiff"}
    scores = [{"failures": [late]}, {"failures": [{**late, "verb": "draw-floors"}]}, {}]
    assert faults(statuses, scores) == [late, statuses[1]]
    assert faults(statuses[:1], [{}]) == []


def test_the_verb_ends_with_1_until_all_are_accepted(tmp_path):
    for slide, status in (("a", "ok"), ("b", "failed"), ("c", "empty")):
        (tmp_path / f"{slide}.json").write_text(json.dumps({"slide": slide, "status": status, "reason": f"why {slide}"}))
    words, out = ["faults", "--tiles", str(tmp_path), "--out", str(tmp_path / "out" / "stamp.json")], tmp_path / "out/stamp.json"
    run = CliRunner().invoke(app, [*words, "--accept", "b"])
    assert run.exit_code == 1
    assert "b: failed: why b" in run.output
    assert "c: empty: why c" in run.output
    assert str(run.exception).startswith("1 of 3 slides gave nothing and are left out: c;")
    assert not out.exists()
    unknown = CliRunner().invoke(app, [*words, "--accept", "b", "--accept", "cc"])
    assert "--accept: unknown slide 'cc'; did you mean 'c'?" in str(unknown.exception)
    assert CliRunner().invoke(app, [*words, "--accept", "b", "--accept", "c"]).exit_code == 0
    assert [one["slide"] for one in json.loads(out.read_text())] == ["b", "c"]
