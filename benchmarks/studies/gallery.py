"""The gallery: every map method on the same regions of the demo's synthetic slides, one picture.

    snakemake --cores 2 && python benchmarks/studies/gallery.py --out gallery.png

Regions of 256 x 256 px at 1 um per px, half of them tumor, from the slides that the demo tests on; maps of the tumor class from
its `gap` localizer, rectified where the method says so, min-max of each image (here only: to see, not to compare). The contour
is the true outline. `--images` and `--masks` take files of your own instead.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np

SIDE = 256
COLUMNS = 3
REDUCED: dict[str, dict[str, Any]] = {  # fewer samples than by default, so that the picture takes minutes
    "ss-cam": {"n": 2},
    "is-cam": {"n": 2},
    "rise": {"n": 1000},
    "smooth": {"base": "grad-cam", "n": 8},
    "tta": {"base": "grad-cam"},
    "fused": {"base": "layer-cam", "layers": [-2, -1]},
    "sess": {"base": "grad-cam"},
}


def regions(results: Path, count: int) -> list[tuple[Any, Any]]:
    """(RGB, mask) of regions that are about half tumor, from as many test slides as there are."""
    from wsol.data import read_manifest, read_masks
    from wsol.slides import Box, open_slide

    folder = results / "prepare" / "demo"
    listing, masks = read_manifest(folder / "manifest.parquet"), read_masks(folder / "masks.parquet")
    rows = listing.rows(0, "test")
    found = []
    for row in rows[rows["label"] == 1].itertuples():
        with open_slide(row.path) as slide:
            mask = masks.open(row.sample, (slide.size[1], slide.size[0]))
            side = round(SIDE / slide.mpp)
            lines, columns = (s // side for s in mask.shape)
            shares = mask[: lines * side, : columns * side].reshape(lines, side, columns, side).mean((1, 3))
            for at in np.argsort(abs(shares - 0.5), axis=None)[: math.ceil(count / max(1, (rows["label"] == 1).sum()))]:
                line, column = divmod(int(at), columns)
                box = Box(column * side, line * side, side, side)
                step = np.linspace(0, side - 1, SIDE).round().astype(int)
                part = mask[box.y : box.y + side, box.x : box.x + side]
                found.append((slide.read(box, 1.0)[:SIDE, :SIDE], part[np.ix_(step, step)]))
    return found[:count]


def maps_of(net: Any, images: Any, target: int | None) -> dict[str, Any]:
    """Scaled maps (b, H, W) of each method that this net can be drawn with."""
    import torch

    from wsol.cams import METHODS, cam, finish

    drawn = {}
    targets = None if target is None else torch.full((len(images),), target)
    for name in METHODS:
        if name == "masker":  # a network of its own, trained beside
            continue
        options = REDUCED.get(name, {})
        print(name, flush=True)
        maps = cam(name, net, images, targets, generator=torch.Generator().manual_seed(0), **options)
        drawn[name] = finish(maps, tuple(images.shape[2:]), relu=options.get("base", name), normalize="minmax").numpy()
    return drawn


def picture(samples: list[tuple[Any, Any]], drawn: dict[str, Any], out: Path) -> None:
    """Blocks of rows, a method each, under the images."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    count, names = len(samples), list(drawn)
    rows = math.ceil(len(names) / COLUMNS)
    figure, axes = pyplot.subplots(rows + 1, COLUMNS * count, figsize=(COLUMNS * count * 1.0, (rows + 1) * 1.0), dpi=110)
    for axis in axes.flat:
        axis.set_axis_off()
    for block in range(COLUMNS):
        for i, (image, mask) in enumerate(samples):
            axes[0, block * count + i].imshow(image)
            axes[0, block * count + i].contour(mask, [0.5], colors="k", linewidths=0.8)
    for number, name in enumerate(names):
        block, row = divmod(number, rows)
        for i, (image, mask) in enumerate(samples):
            axis = axes[row + 1, block * count + i]
            axis.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            axis.imshow(drawn[name][i], cmap="inferno", alpha=0.75, vmin=0, vmax=1)
            axis.contour(mask, [0.5], colors="w", linewidths=0.6)
        axes[row + 1, block * count].set_zorder(1)  # a long name runs into the next region
        axes[row + 1, block * count].text(4, 4, name, fontsize=7, va="top", bbox={"color": "w", "alpha": 0.85, "pad": 1})
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="of the demo")
    parser.add_argument("--model", type=Path, help="checkpoint; by default the demo's gap localizer")
    parser.add_argument("--images", type=Path, nargs="*", help="RGB files of one size, instead of the demo's slides")
    parser.add_argument("--masks", type=Path, nargs="*", help="their masks")
    parser.add_argument("--target", type=int, help="class to draw; by default the predicted one of --images, tumor in the demo")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()

    from wsol.data import read_image, to_tensor
    from wsol.models import load_checkpoint

    if given.images:
        samples = [(read_image(i), read_image(m)[..., 0] > 0) for i, m in zip(given.images, given.masks, strict=True)]
    else:
        samples = regions(given.results, given.count)
    net = load_checkpoint(given.model or given.results / "train/demo/gap/fold0/seed0/b-cl.safetensors").eval()
    target = given.target if given.images or given.target is not None else 1
    drawn = maps_of(net, to_tensor([image for image, _ in samples]), target)
    picture(samples, drawn, given.out)


if __name__ == "__main__":
    main()
