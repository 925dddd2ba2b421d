"""Blocks with a computed halo against tiles that overlap by half: `python benchmarks/slide_heatmap.py [--net resnet18]`.

One run, one net (random weights: neither its cost nor its seams depend on them), one field of smooth random color. The peer is
MONAI's `sliding_window_inference` as slides are commonly drawn, 512-px tiles with an overlap of 0.5 and Gaussian blending, on the
class maps of the same net. Both are compared with the map of the whole field in one encode. Printed are ratios of CPU seconds
(user + sys, one thread, best of the rounds, interleaved) and the largest difference as a share of the map's range. Ours has the
memory of the part of the field that `--share` says, so that it has to cut.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from peers import processor, timed
from torch import Tensor
from torch.nn import functional

from wsol.models import Localizer, build_localizer, bytes_per_pixel, reach
from wsol.slides import Block, fewest_px

TILE = 512


def field(side: int) -> Tensor:
    """Smooth color with grain, (1, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(1, 3, side // 64, side // 64, generator=generator)
    grain = torch.rand(1, 3, side, side, generator=generator)
    made = 0.8 * functional.interpolate(colors, (side, side), mode="bilinear", align_corners=False) + 0.2 * grain
    return made.contiguous(memory_format=torch.channels_last)


def maps(net: Localizer, images: Tensor) -> Tensor:
    """Class maps (b, k, h, w)."""
    with torch.no_grad():
        found = net(images).maps
    assert found is not None
    return found


class Blocks:
    """Ours: blocks of tiles of 256 px, as many as fit in `most_px` with their halo."""

    def __init__(self, net: Localizer, images: Tensor, most_px: int) -> None:
        self.net, self.images, self.cells = net, images, 256 // net.output_stride
        self.down, self.across = reach(net, (images.shape[2], images.shape[3]))
        lattice = images.shape[2] // 256
        places = np.stack(np.mgrid[:lattice, :lattice], -1).reshape(-1, 2)
        self.blocks = fewest_px(places, lambda block: self.spans(block)[1], most_px)

    def spans(self, block: Block) -> tuple[list[tuple[slice, slice, slice]], tuple[int, int]]:
        """(cells of the field, px to read, cells of the block) down and across, and the px."""
        found = []
        for axis, first, last in ((self.down, block.top, block.bottom), (self.across, block.left, block.right)):
            cells = slice(first * self.cells, last * self.cells)
            start, stop, skip = axis.span(cells.start, cells.stop)
            found.append((cells, slice(start, stop), slice(skip, skip + cells.stop - cells.start)))
        height, width = (px.stop - px.start for _, px, _ in found)
        return found, (height, width)

    def __call__(self) -> Tensor:
        """Class maps of the field."""
        out = torch.empty(1, len(self.net.head.bias), self.down.cells, self.across.cells)  # type: ignore[arg-type]
        for block in self.blocks:
            (y, read_y, in_y), (x, read_x, in_x) = self.spans(block)[0]
            out[..., y, x] = maps(self.net, self.images[..., read_y, read_x])[..., in_y, in_x]
        return out

    @property
    def read(self) -> float:
        """How many px are read for each px of the field."""
        return sum(h * w for _, (h, w) in map(self.spans, self.blocks)) / (self.images.shape[2] * self.images.shape[3])


def tiles(net: Localizer, images: Tensor) -> Tensor:
    """The peer: half of every tile is drawn again."""
    from monai.inferers import sliding_window_inference

    found: Tensor = sliding_window_inference(
        images, TILE, 4, lambda part: maps(net, part), overlap=0.5, mode="gaussian", padding_mode="reflect"
    )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048, help="px of the field, a multiple of 256")
    parser.add_argument("--net", default="resnet18", help="backbone")
    parser.add_argument("--stride", type=int, default=32, help="px per cell")
    parser.add_argument("--share", type=float, default=0.5, help="of the field, that fits in memory as one block")
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = build_localizer(args.net, "gap", 2, weights=None, output_stride=args.stride, generator=torch.Generator().manual_seed(0))
    net = net.eval().to(memory_format=torch.channels_last)
    images = field(args.side)
    ours = Blocks(net, images, int(args.share * args.side**2))
    seconds = timed({"whole": lambda: maps(net, images), "blocks": ours, "tiles": lambda: tiles(net, images)}, args.rounds)
    whole = maps(net, images)
    extent = float(whole.max() - whole.min())
    print(processor())
    print(f"{args.net}, {args.stride} px per cell, field of {args.side} px; {bytes_per_pixel(net):.0f} bytes per px")
    before, after = ours.down.before * args.stride, ours.down.after * args.stride
    print(f"halo {before} px before, {after} px after; {len(ours.blocks)} blocks that read {ours.read:.2f} px per px\n")
    print("| drawn | CPU time, whole field = 1 | largest difference to the whole field, of its range |")
    print("|---|---|---|")
    for name, found in (("blocks", ours()), ("tiles", tiles(net, images))):
        label = {"blocks": "blocks with the computed halo", "tiles": f"{TILE}-px tiles, overlap 0.5, Gaussian (MONAI)"}[name]
        print(f"| {label} | {seconds[name] / seconds['whole']:.2f} | {float((found - whole).abs().max()) / extent:.1e} |")
    print(f"\nblocks are {seconds['tiles'] / seconds['blocks']:.1f} times as quick")


if __name__ == "__main__":
    main()
