"""The page of a study of many images: `python benchmarks/report.py [--images 1000] [--keep FOLDER]`.

Images, masks and maps are made up (20 pictures under many names; maps are blurred masks with noise), all else is what the
workflow writes: manifest and masks by `prepare`, map files by `MapWriter`, scores by `evaluate`, the page by `report`. Printed
are the time and memory of the report and the size of the page, and of that the pictures.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

NAME, SHAPE, KINDS = "many", (261, 388), 20
MODELS = {"gap": 0.5, "lse": 0.9}
METHODS = {"cam": 1.0, "grad-cam": 0.9, "hirescam": 0.8, "layer-cam": 0.5}


def pictures(folder):
    """Tissue-like pictures and masks of some glands; every fourth has none."""
    masks = []
    for i in range(KINDS):
        rng = np.random.default_rng(i)
        mask = np.zeros(SHAPE, np.uint8)
        for x, y, r in rng.integers((40, 40, 15), (348, 221, 60), (0 if i % 4 == 0 else 4, 3)).tolist():
            cv2.circle(mask, (x, y), r, 255, -1)
        texture = cv2.GaussianBlur(rng.normal(0, 60, (*SHAPE, 3)).astype(np.float32), (0, 0), 1.5)
        ground = np.where(mask[..., None] > 0, (150, 90, 170), (225, 165, 205)) + texture
        cv2.imwrite(str(folder / f"kind{i}.png"), np.clip(ground, 0, 255).astype(np.uint8)[..., ::-1])
        cv2.imwrite(str(folder / f"mask{i}.png"), mask)
        masks.append(mask > 0)
    return masks


def listed(folder, count):
    """Manifest and masks of `count` images to be scored and forty to choose a threshold with."""
    from wsol.cli.prepare import prepare
    from wsol.cli.schema import Prepare

    rows = []
    for i in range(count + 80):
        split = "test" if i < count else "val" if i < count + 40 else "train"
        image, mask, positive = folder / f"images/i{i:05d}.png", folder / f"masks/m{i:05d}.png", i % KINDS % 4 != 0
        for path, source in ((image, f"kind{i % KINDS}.png"), (mask, f"mask{i % KINDS}.png")):
            path.parent.mkdir(exist_ok=True)
            os.link(folder / source, path)
        rows.append([image.stem, image, ["normal", "tumor"][positive], f"p{i // 4}", mask if positive else "", split, 0.5])
    with open(folder / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sample", "path", "label", "patient", "mask", "split", "mpp"], *rows])
    options = {"sheet": str(folder / "sheet.csv"), "classes": ["normal", "tumor"]}
    base = folder / "results/prepare" / NAME
    prepare(
        Prepare(name=NAME, source="images", options=options), manifest=base / "manifest.parquet", masks=base / "masks.parquet"
    )
    return base


def scored(folder, base, masks, model, power):
    """Maps of one model at the resolution of features, and their scores; the path of these."""
    from wsol.cli.evaluate import evaluate
    from wsol.cli.files import write_json
    from wsol.cli.plan import MAPS, RUN
    from wsol.cli.schema import Evaluate
    from wsol.data import MapWriter, read_manifest

    key = {"dataset": NAME, "model": model, "checkpoint": "b-cl", "set": "fast", "split": "test", "fold": 0, "seed": 0}
    where, listing = MAPS.format(**key), read_manifest(base / "manifest.parquet")
    record = folder / "results/train" / RUN.format(**key) / "run.json"
    write_json(
        record, {"supervision": "image label", "masks": 0, "checkpoints": {"b-cl": "validation labels (B-CL)"}, "settings": {}}
    )
    made = {"map_class": "positive", "methods": [{"id": m, "method": m, "options": {}} for m in METHODS]}
    small = [cv2.resize(cv2.GaussianBlur(m.astype(np.float32), (0, 0), 12), (49, 33)) for m in masks]
    rng = np.random.default_rng(7)
    for split in ("valcl", "test"):
        with MapWriter(folder / f"results/localize/{where}/{split}.h5", made) as writer:
            for row in listing.rows(0, split).itertuples(index=False):
                for method, share in METHODS.items():
                    noise = cv2.GaussianBlur(rng.normal(size=(33, 49)).astype(np.float32), (0, 0), 2) * 2
                    writer.add(
                        method, row.sample, power * share * 3 * small[int(row.sample[1:]) % KINDS] + noise, target=1, size=SHAPE
                    )
                writer.predict(row.sample, rng.normal(row.label, 0.7) * np.array([-1.0, 1.0]))
    out, maps = folder / f"results/evaluate/{where}/test", folder / f"results/localize/{where}"
    evaluate(
        Evaluate(bootstrap=50, regions=False, boxes_px=0, compare_scales=[]),
        manifest=base / "manifest.parquet", masks=base / "masks.parquet",
        maps=maps / "test.h5", validation=maps / "valcl.h5", record=record, key=key,
        scores=out / "scores.json", curves=out / "curves.parquet",
    )  # fmt: skip
    return out / "scores.json"


def study(folder, count):
    """A folder of results; the paths of its scores."""
    masks = pictures(folder)
    base = listed(folder, count)
    return [scored(folder, base, masks, model, power) for model, power in MODELS.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="folder that the study is kept in")
    how = parser.parse_args()
    from wsol.cli.report import report

    with tempfile.TemporaryDirectory() as temporary:
        folder = how.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        started = time.process_time()
        scores = study(folder, how.images)
        print(f"study made in {time.process_time() - started:.0f} s", file=sys.stderr)
        started, out = time.process_time(), folder / "results/report/index.html"
        report(scores, out=out, results=folder / "results", title=f"{how.images} images")
        spent, page = time.process_time() - started, out.read_text()
        drawn = sum(map(len, re.findall(r"data:image/[^\"&]*", page)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cards = page.count('<figure class="card"')
        print(
            f"{how.images} images, {len(scores)} models x {len(METHODS)} maps: {spent:.0f} s of processor time, at most "
            f"{peak:.0f} MB (the study was made in the same process); page {len(page) / 1e6:.1f} MB, "
            f"pictures {drawn / 1e6:.1f} MB of it, "
            f"{cards} samples"
        )


if __name__ == "__main__":
    main()
