"""Every map method on the same crops of GlaS, the costly ones too: maps, seconds and memory of each.

    python benchmarks/studies/glas_maps.py --model results/train/glas-patient/gap/fold0/seed0/b-cl.safetensors --out crops
    wsol compare --sheet crops/sheet.csv $(cat crops/maps.txt) --no-floors --reference cam --out crops/compared
    python benchmarks/studies/glas_maps.py --out crops --costs

A masked forward per channel costs 1,280 forwards of the default net: at the full size of a GlaS image that is minutes a map. So
the middle 224 x 224 pixels of a few images, at the resolution the net was trained at; classes and patients in turn. Maps are
those of the predicted class, rectified where the method says so. Each method runs in a process of its own at one thread: seconds
are CPU seconds per image, memory is what the process held at its peak beyond the loaded net. A method whose maps are there is
not drawn again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

SIDE = 224
SPLITS = {"valcl": "val", "test": "test"}
OPTIONS: dict[str, dict[str, Any]] = {  # what differs from the defaults, for the sake of time; the name says it
    "ss-cam-n3": {"method": "ss-cam", "n": 3},
    "is-cam-n2-int8": {"method": "is-cam", "n": 2, "int8": True},
    "rise-n1000": {"method": "rise", "n": 1000},
    "abs-cam-init": {"method": "abs-cam", "mode": "init"},
    "smooth": {"method": "smooth", "base": "grad-cam"},
    "tta": {"method": "tta", "base": "grad-cam"},
    "fused": {"method": "fused", "base": "layer-cam"},
    "sess": {"method": "sess", "base": "grad-cam"},
}


def entries() -> list[str]:
    """Names of what is drawn: the table's methods, those in `OPTIONS` under their own names."""
    from wsol.cams import METHODS

    special = {options["method"] for name, options in OPTIONS.items() if name != "abs-cam-init"}
    return [name for name in METHODS if name not in special and name != "masker"] + list(OPTIONS)


def crops(manifest: Path, out: Path, fold: int, per_split: int) -> None:
    """Images, masks and the sheet."""
    import pandas as pd
    from PIL import Image

    from wsol.data import read_image, read_manifest, read_masks

    listing, masks = read_manifest(manifest), read_masks(manifest.with_name("masks.parquet"))
    table = []
    for role, split in SPLITS.items():
        rows = listing.rows(fold, role)
        turn = rows.groupby(["label", "patient"]).cumcount()
        chosen = rows.assign(turn=turn).sort_values(["turn", "patient", "label"], kind="stable")
        half = [chosen[chosen["label"] == label].head(per_split // 2) for label in sorted(chosen["label"].unique())]
        for row in pd.concat(half).itertuples():
            image = read_image(row.path)
            top, left = ((side - SIDE) // 2 for side in image.shape[:2])
            middle = np.s_[top : top + SIDE, left : left + SIDE]
            mask = masks.open(row.sample, image.shape[:2])[middle]
            for folder, array in (("images", image[middle]), ("masks", np.where(mask, 255, 0).astype(np.uint8))):
                (out / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(out / folder / f"{row.sample}.png")
            table.append((row.sample, row.patient, listing.classes[row.label], split))
    sheet = pd.DataFrame(table, columns=["sample", "patient", "label", "split"])
    sheet["path"], sheet["mask"] = ("images/" + sheet["sample"] + ".png"), ("masks/" + sheet["sample"] + ".png")
    sheet.to_csv(out / "sheet.csv", index=False)


def draw(name: str, model: Path, out: Path) -> None:
    """All maps of one method, then its costs: the file of the costs says that the maps are complete."""
    import pandas as pd
    import torch

    from wsol.cams import cam, finish
    from wsol.data import read_image
    from wsol.models import load_checkpoint

    torch.set_num_threads(1)
    options = dict(OPTIONS.get(name, {}))
    method = options.pop("method", name)
    net = load_checkpoint(model).eval()
    samples = pd.read_csv(out / "sheet.csv")["sample"]
    images = {
        s: torch.from_numpy(read_image(out / "images" / f"{s}.png").copy()).permute(2, 0, 1)[None].float() / 255 for s in samples
    }
    folder = out / "maps" / name
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        net(next(iter(images.values())))
    held, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for sample, image in images.items():
        made = cam(method, net, image, generator=torch.Generator().manual_seed(0), **options)
        rectifying = options["base"] if method in ("smooth", "tta", "fused", "sess") else method
        np.save(folder / f"{sample}.npy", finish(made[0].numpy(), (SIDE, SIDE), relu=rectifying, normalize=None))
    costs = {
        "seconds": (time.process_time() - started) / len(images),
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024,
    }
    (folder / "costs.json").write_text(json.dumps(costs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint of `wsol train`, *.safetensors")
    parser.add_argument("--manifest", type=Path, default=Path("results/prepare/glas-patient/manifest.parquet"))
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--images", type=int, default=8, help="per split, half of each class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="comma-separated names")
    parser.add_argument("--costs", action="store_true", help="print what each method cost, and draw nothing")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else entries()
    done = {name: given.out / "maps" / name / "costs.json" for name in names}
    if given.costs:
        for name, file in done.items():
            if file.is_file():
                costs = json.loads(file.read_text())
                print(f"| `{name}` | {costs['seconds']:.2f} | {costs['megabytes']:.0f} |")
        return
    if not (given.out / "sheet.csv").is_file():
        crops(given.manifest, given.out, given.fold, given.images)
    for name, file in done.items():
        if not file.is_file():
            print(name, flush=True)
            process = get_context("spawn").Process(target=draw, args=(name, given.model, given.out))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{name} failed; run again to go on with the others")
    drawn = [name for name in entries() if (given.out / "maps" / name / "costs.json").is_file()]
    (given.out / "maps.txt").write_text("\n".join(f"--maps={name}={given.out}/maps/{name}" for name in drawn))


if __name__ == "__main__":
    main()
