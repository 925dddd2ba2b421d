"""Two damaged slides among eight, run by the workflow: it ends with 1 until they are accepted; then three slides a job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import yaml

from wsol.data.sources.phantom import dataset

ROOT = Path(__file__).parents[2]
facts = run_path(str(Path(__file__).with_name("sameness.py")))["facts"]
SNAKEMAKE = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def snakemake(folder, **more):
    study = {
        "prepare": {"name": "tiny", "source": "slides", "options": {"sheet": "sheet.csv", "classes": ["normal", "tumor"]}},
        "tile": {"mpp": 1.0, "tile_px": 64, "min_tissue": 0.05},
        "models": {"gap": {"output_stride": 32}},
        "maps": {"fast": ["cam"]},
        "train": {"epochs": 1, "batch_size": 2, "tiles_per_bag": 2},
        **more,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [*SNAKEMAKE, "--directory", str(folder), "--configfile", str(folder / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, cwd=folder)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_two_bad_slides_among_eight(tmp_path):
    drawn = dataset(tmp_path, slides=8, patients=4, size=512)
    rows = drawn.samples.drop_duplicates("sample")
    masks = dict(zip(drawn.masks["sample"], drawn.masks["mask"], strict=True))
    lines = ["sample,path,label,patient,split,mask"]
    for row in rows.itertuples():
        split = {"valcl": "val"}.get(row.role, row.role)
        lines.append(f"{row.sample},{row.sample}.tiff,{['normal', 'tumor'][row.label]},{row.patient},{split},{masks[row.sample]}")
    (tmp_path / "sheet.csv").write_text("\n".join(lines))
    bad = [rows[(rows["role"] == role) & (rows["label"] == 0)]["sample"].iloc[0] for role in ("train", "test")]
    (tmp_path / f"{bad[0]}.tiff").write_bytes(b"")
    whole = (tmp_path / f"{bad[1]}.tiff").read_bytes()
    (tmp_path / f"{bad[1]}.tiff").write_bytes(whole[: len(whole) // 2])

    code, said = snakemake(tmp_path)
    logs = "\n".join(p.read_text() for p in tmp_path.glob("logs/**/*.log"))
    assert code == 1, said + logs
    assert f"2 of 8 slides gave nothing and are left out: {', '.join(sorted(bad))}" in said
    results = tmp_path / "results"
    for slide in rows["sample"]:
        assert json.loads((results / f"tile/tiny/{slide}.json").read_text())["status"] == ("failed" if slide in bad else "ok")
    page = (results / "report/tiny/index.html").read_text()
    assert "<b>Slides left out.</b> 2 gave nothing" in page
    assert all(f'<th scope="row">{slide}</th><td>failed</td>' in page for slide in bad)
    assert (results / "log/tiny/logged.json").is_file()
    for model in ("gap", "floors"):
        (path,) = results.glob(f"evaluate/tiny/{model}/**/test/scores.json")
        scores = json.loads(path.read_text())
        assert [one["slide"] for one in scores["failures"]] == [bad[1]]
        for method in scores["methods"].values():
            assert set(method["samples"]) == set(rows[rows["role"] == "test"]["sample"]) - set(bad)

    stamps = {p: p.stat().st_mtime_ns for p in results.glob("**/*.h5")}
    code, said = snakemake(tmp_path, report={"accepted": bad})
    assert code == 0, said
    assert {p: p.stat().st_mtime_ns for p in results.glob("**/*.h5")} == stamps
    assert sorted(one["slide"] for one in json.loads((results / "report/tiny/faults.json").read_text())) == sorted(bad)

    alone = facts(results)
    for name in ("tile", "localize", "evaluate", "heatmap"):
        shutil.rmtree(results / name)
    code, said = snakemake(tmp_path, report={"accepted": bad}, slides_per_job=3)
    assert code == 0, said
    together = facts(results)
    assert json.loads((results / "tile/tiny.lots/00001").read_text()) == sorted(rows["sample"])[3:6]
    assert {n: d for n, d in together.items() if not re.search(r"\.lots/|\.done", n)} == {
        n: d for n, d in alone.items() if ".done" not in n
    }
