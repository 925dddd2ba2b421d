"""Peak memory of every process over the number of slides: `python benchmarks/scale.py [--slides 100 1000]`.

Makes studies of so many tiny phantom slides (512 px, one file under many names, two out of fifty truncated) and runs each step of
the workflow on them as a process of its own: what works on one slide on one, what works on the study on all. Tile tables and maps
of the other slides, hundreds of processes of minutes in all, are written by the same functions within this one, the same for
every slide. Training keeps 16 MB of decoded tiles (`train.cache_mb`; by default 1,024) and takes the same number of steps in each
study: what an allocator holds rises over the first thousands of steps, whatever the number of slides. Printed is the peak
resident set in MB, and by how much it grows from the first to the last number of slides.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
import yaml

BIN = Path(sys.executable).parent
SNAKEFILE = Path(__file__).parents[1] / "Snakefile"
RUN = "scale/gap/fold0/seed0"
WATCH = (
    "import os, resource, sys; code = os.spawnvp(os.P_WAIT, sys.argv[1], sys.argv[1:]); "
    "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024); sys.exit(code)"
)


def peak(*words, folder, fails=False):
    """Peak memory in MB of a command, of its children if one of these has more."""
    command = [sys.executable, "-c", WATCH, *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        raise RuntimeError(f"{words[1]}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return int(done.stdout.rsplit("PEAK", 1)[1])


def study(folder, count, epochs):
    """The sheet, the slides and the configuration."""
    from wsol.data.sources.phantom import Slide, write_slide

    write_slide(Slide("whole", True, 512, 3, 0, "easy", 0.2), folder)
    whole = (folder / "whole.tiff").read_bytes()
    (folder / "cut.tiff").write_bytes(whole[: len(whole) // 2])
    rows = []
    for i in range(count):
        bad, tumor = i % 50 in (7, 24), i % 2 == 1
        path = folder / "slides" / f"s{i:05d}.tiff"
        path.parent.mkdir(exist_ok=True)
        os.link(folder / ("cut.tiff" if bad else "whole.tiff"), path)
        split = ("train", "train", "val", "test")[i // 2 % 4]
        mask = folder / "masks" / f"m{i:05d}.png"
        mask.parent.mkdir(exist_ok=True)
        if tumor:
            os.link(folder / "whole_mask.png", mask)
        rows.append([f"s{i:05d}", path, ["normal", "tumor"][tumor], f"p{i}", split, mask if tumor else ""])
    with open(folder / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "split", "mask"], *rows])
    options = {"sheet": "sheet.csv", "classes": ["normal", "tumor"]}
    config = {
        "prepare": {"name": "scale", "source": "slides", "options": options},
        "tile": {"mpp": 1.0, "tile_px": 64, "min_tissue": 0.05},
        "models": {"gap": {"output_stride": 32, "weights": None}},
        "maps": {"fast": ["cam"]},
        "train": {"epochs": epochs, "batch_size": 4, "tiles_per_bag": 4, "cache_mb": 16},
        "evaluate": {"bootstrap": 100},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    return config


def fill(folder):
    """Maps of all slides, from those that were really drawn, with other noise; of the truncated ones their records."""
    from wsol.data import MapReader, MapWriter, read_manifest

    listing = read_manifest(folder / "m.parquet")
    maps = {}
    for split in ("valcl", "test"):
        for kind in ("gap/fold0/seed0/b-cl/fast", "floors/fold0/seed0/none/floors"):
            maps[split, kind] = folder / "results/localize/scale" / kind / split
    rng = np.random.default_rng(0)
    for (split, kind), base in maps.items():
        (first,) = base.glob("*.h5")
        with MapReader(first) as reader:
            made = reader.provenance
            stored = {m: reader.read(m, first.stem) for m in reader.methods}
        for sample in listing.rows(0, split)["sample"]:
            bad = int(sample[1:]) % 50 in (7, 24)
            record = {"slide": sample, "status": "failed", "reason": "truncated", "verb": "tile", "file": sample}
            with MapWriter(base / f"{sample}.h5", {**made, **({"failure": record} if bad else {})}) as writer:
                for method, one in stored.items() if not bad else ():
                    noise = one.array + rng.normal(0, 0.1, one.array.shape).astype(np.float32)
                    values = np.clip(noise, 0, 1) if kind.startswith("floors") else noise
                    facts = {"target": one.target, "frame": one.frame, "size": one.size, "coverage": one.coverage}
                    writer.add(method, sample, values, **facts)
                if not bad and kind.startswith("gap"):
                    writer.predict(sample, rng.normal(size=2))


def steps(folder, config):
    """(step, peak in MB), in the order of the workflow."""
    from wsol.cli.config import load_config
    from wsol.cli.plan import model_settings

    wsol, results = BIN / "wsol", folder / "results"
    where = {"folder": folder}
    read = load_config(dict(config))
    listed = ["--manifest", "m.parquet"]
    yield (
        "plan (snakemake --dry-run)",
        peak(BIN / "snakemake", "--snakefile", SNAKEFILE, "--configfile", "study.yaml", "--dry-run", "--quiet", **where),
    )
    yield "prepare", peak(wsol, "prepare", "--settings", json.dumps(config["prepare"]), *listed, "--masks", "k.parquet", **where)
    for slide, name in (("s00000", "tile"), ("s00007", "tile, a bad slide")):
        out = results / f"tile/scale/{slide}.parquet"
        yield name, peak(wsol, "tile", *listed, "--slide", slide, "--settings", json.dumps(config["tile"]), "--out", out, **where)
    train = results / "train" / RUN
    settings = json.dumps({**model_settings(read, "gap"), "name": "gap"})
    tiles = results / "tile/scale"
    for sample in sorted(p.stem for p in (folder / "slides").iterdir()):
        like = "s00007" if int(sample[1:]) % 50 in (7, 24) else "s00000"
        if sample != like:
            shutil.copy(tiles / f"{like}.parquet", tiles / f"{sample}.parquet")
            said = json.loads((tiles / f"{like}.json").read_text())
            (tiles / f"{sample}.json").write_text(json.dumps({**said, "slide": sample}))
    yield (
        "train",
        peak(wsol, "train", *listed, "--tiles", results / "tile/scale", "--settings", settings, "--out", train, **where),
    )
    floors = results / "train/scale/floors/fold0/seed0/none.json"
    yield (
        "fit-floors",
        peak(wsol, "fit-floors", *listed, "--masks", "k.parquet", "--tiles", results / "tile/scale", "--out", floors, **where),
    )
    methods = json.dumps({"methods": read.methods("fast"), **read.localize.model_dump()})
    for split, slide in (("valcl", "s00004"), ("test", "s00006")):
        one = [*listed, "--split", split, "--slide", slide, "--tiles", results / f"tile/scale/{slide}.parquet"]
        out = results / f"localize/scale/gap/fold0/seed0/b-cl/fast/{split}/{slide}.h5"
        yield (
            f"localize, {split}",
            peak(wsol, "localize", "--model", train / "b-cl.safetensors", *one, "--settings", methods, "--out", out, **where),
        )
        out = results / f"localize/scale/floors/fold0/seed0/none/floors/{split}/{slide}.h5"
        yield f"draw-floors, {split}", peak(wsol, "draw-floors", "--model", floors, *one, "--out", out, **where)
    fill(folder)
    scores = []
    for name, record, kind in (("gap", train / "run.json", "b-cl/fast"), ("floors", floors, "none/floors")):
        checkpoint, chosen = kind.split("/")
        base = results / f"localize/scale/{name}/fold0/seed0/{kind}"
        out = results / f"evaluate/scale/{name}/fold0/seed0/{kind}/test"
        key = {"dataset": "scale", "model": name, "checkpoint": checkpoint, "set": chosen, "split": "test", "fold": 0, "seed": 0}
        scores += ["--scores", out / "scores.json"]
        yield f"evaluate, {name}", peak(
            wsol, "evaluate", *listed, "--masks", "k.parquet", "--maps", base / "test", "--validation", base / "valcl",
            "--record", record, "--key", json.dumps(key), "--settings", json.dumps(read.evaluate.model_dump()),
            "--scores", out / "scores.json", "--curves", out / "curves.parquet", **where,
        )  # fmt: skip
    maps = results / "localize/scale/gap/fold0/seed0/b-cl/fast/test/s00006.h5"
    out = results / "heatmap/scale/gap/fold0/seed0/b-cl/fast/test/s00006/index.json"
    yield (
        "heatmap",
        peak(wsol, "heatmap", *listed, "--masks", "k.parquet", "--maps", maps, "--scores", scores[1], "--out", out, **where),
    )
    audit = results / "audit/scale/audit.json"
    yield "audit", peak(wsol, "audit", *listed, "--masks", "k.parquet", *scores, "--out", audit, **where)
    page = results / "report/scale/index.html"
    yield "report", peak(wsol, "report", *scores, "--audit", audit, "--out", page, **where)
    track = ["--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--experiment", "scale", "--out", "log.json"]
    yield "log --init", peak(wsol, "log", "--init", *track, **where)
    yield "log", peak(wsol, "log", *track, *scores, **where)
    yield "faults", peak(wsol, "faults", "--tiles", results / "tile/scale", *scores, fails=True, **where)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, nargs="+", default=[100, 1000])
    counts = parser.parse_args().slides
    found: dict[str, list[int]] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            for step, memory in steps(Path(folder), study(Path(folder), count, max(counts) // count)):
                found.setdefault(step, []).append(memory)
                print(f"{count} slides, {step}: {memory} MB", file=sys.stderr, flush=True)
    print(f"| process | {' | '.join(f'{c} slides' for c in counts)} | growth |\n|---|{'---|' * (len(counts) + 1)}")
    for step, memory in found.items():
        print(f"| {step} | {' | '.join(map(str, memory))} | {memory[-1] - memory[0]:+d} |")


if __name__ == "__main__":
    main()
