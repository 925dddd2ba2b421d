"""Tiles per CPU second from one slide, against named peers, in one run: `python benchmarks/read_tiles.py [SLIDE]`.

Prints ratios: CPU seconds (user + sys) of this process, best of the rounds, readers interleaved, files in the page cache, each
round with newly opened readers, whose caches are cold. The limit is the decoding of each native tile under the region once, with
nothing put together or scaled. Every reader's level 0 is scaled as ours is, by cv2.INTER_AREA; tiatoolbox scales by itself.

Without SLIDE, one is written to a temporary folder: a pyramid of 256-px JPEG tiles (4:2:0, quality 80; levels 1, 4, 16), a mosaic
of `--stock` (such as CMU-1-Small-Region.svs), else of a phantom.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import openslide
import simplejpeg
import tifffile

from wsol.slides import Box, open_slide

OUT = 256
OFFSET = 100
CASES = [
    (name, scale, offset)
    for offset in (0, OFFSET)
    for name, scale in (("native", 1.0), ("2x coarser", 2.0), ("1.4x coarser", 1.4))
]
COARSE = ("4x coarser, between the px of level 1", 4, OFFSET + 1)
"""Real pyramids have levels at 4.0001, where nearly every box lies so. Only against openslide-python: no other interpolates."""

Read = Callable[[int, int, int], Any]
"""(x, y, side in level-0 px) -> (OUT, OUT, 3)."""


def scaled(pixels: Any) -> Any:
    pixels = np.asarray(pixels)[..., :3]
    return pixels if pixels.shape[0] == OUT else cv2.resize(pixels, (OUT, OUT), interpolation=cv2.INTER_AREA)


@contextmanager
def ours(path: Path, mpp: float, fast: bool = True) -> Iterator[Read]:
    with open_slide(path, mpp=mpp, fast=fast) as slide:
        for down in slide.downsamples:
            slide.read(Box(0, 0, 1, 1), mpp * down)  # the probe, told apart
        yield lambda x, y, side: slide.read(Box(x, y, side, side), mpp * side / OUT)


@contextmanager
def openslide_python(path: Path, mpp: float) -> Iterator[Read]:
    with openslide.OpenSlide(path) as slide:
        level = {4 * OUT: 1}
        yield lambda x, y, side: scaled(
            slide.read_region((x, y), level.get(side, 0), (OUT, OUT) if side in level else (side, side)).convert("RGB")
        )


@contextmanager
def fastslide(path: Path, mpp: float) -> Iterator[Read]:
    import fastslide

    with fastslide.FastSlide.from_file_path(str(path)) as slide:
        yield lambda x, y, side: scaled(slide.read_region((x, y), 0, (side, side)).numpy())


@contextmanager
def pyvips(path: Path, mpp: float) -> Iterator[Read]:
    import pyvips

    pyvips.cache_set_max(0)
    region = pyvips.Region.new(pyvips.Image.tiffload(str(path)))
    yield lambda x, y, side: scaled(np.frombuffer(region.fetch(x, y, side, side), np.uint8).reshape(side, side, -1))


@contextmanager
def cucim(path: Path, mpp: float) -> Iterator[Read]:
    from cucim import CuImage

    slide = CuImage(str(path))
    yield lambda x, y, side: scaled(slide.read_region((x, y), (side, side), 0))


@contextmanager
def wsidata(path: Path, mpp: float) -> Iterator[Read]:
    from wsidata import open_wsi

    slide = open_wsi(str(path), store=None)
    yield lambda x, y, side: scaled(slide.reader.get_region(x, y, side, side, level=0))


@contextmanager
def tiatoolbox(path: Path, mpp: float) -> Iterator[Read]:
    from tiatoolbox.wsicore.wsireader import WSIReader

    slide = WSIReader.open(path)
    yield lambda x, y, side: slide.read_rect((x, y), (OUT, OUT), resolution=OUT / side, units="baseline")


PEERS = {f.__name__: f for f in (openslide_python, fastslide, pyvips, cucim, wsidata, tiatoolbox)}


def limit(path: Path, xs: list[tuple[int, int]], side: int) -> float:
    """CPU seconds of decoding each native tile of level 0 under the boxes once."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offsets, counts, tables = page.dataoffsets, page.databytecounts, page.jpegtables
        across, (width, height) = -(-page.imagewidth // page.tilewidth), (page.tilewidth, page.tilelength)
    head = tables[:-2] if tables else b"\xff\xd8"
    columns = sorted({c for x, _ in xs for c in range(x // width, -(-(x + side) // width))})
    rows = sorted({r for _, y in xs for r in range(y // height, -(-(y + side) // height))})
    file = os.open(path, os.O_RDONLY)
    start = time.process_time()
    for row in rows:
        for column in columns:
            i = row * across + column
            simplejpeg.decode_jpeg(head + os.pread(file, counts[i], offsets[i])[2:])
    seconds = time.process_time() - start
    os.close(file)
    return seconds


def mosaic(source: Path | None, side: int) -> Any:
    """Level 0 of the slide that is written: crops of a real one or of a phantom, turned so that hardly two tiles repeat."""
    generator = np.random.default_rng(0)
    if source is not None:
        with open_slide(source) as slide:
            stock = slide.read(Box(0, 0, *slide.size), slide.mpp)
    else:
        from wsol.data.sources.phantom_draw import draw_phantom

        stock, *_ = draw_phantom(2048, 0, positive=True)
    out = np.empty((side, side, 3), np.uint8)
    for y in range(0, side, 512):
        for x in range(0, side, 512):
            top, left = (int(generator.integers(0, n - 512)) for n in stock.shape[:2])
            out[y : y + 512, x : x + 512] = np.rot90(stock[top : top + 512, left : left + 512], int(generator.integers(4)))
    return out


def measured(path: Path, mpp: float, tiles: int, rounds: int) -> None:
    cost = {"opening": np.inf, "probing a level": np.inf}
    for _ in range(rounds):
        start = time.process_time()
        with open_slide(path, mpp=mpp) as slide:
            opened = time.process_time()
            slide.read(Box(0, 0, 1, 1), mpp)
            cost["probing a level"] = min(cost["probing a level"], time.process_time() - opened)
            cost["opening"] = min(cost["opening"], opened - start)
            (width, height), native, levels = slide.size, slide.tiles[0], slide.downsamples
    print(", ".join(f"{name}: {1e3 * seconds:.0f} ms" for name, seconds in cost.items()), "(once per open slide)")
    readers = {"ours": ours} | {name: reader for name, reader in PEERS.items() if imports(name)}
    coarse = [COARSE] if len(levels) > 1 and levels[1] == 4 else []
    for name, scale, offset in CASES + coarse:
        if (name, scale, offset) == COARSE:
            readers = {reader: readers[reader] for reader in ("ours", "openslide_python")}
        side = round(OUT * scale)
        steps = [offset + i * side for i in range(tiles)]
        boxes = [(x, y) for y in steps for x in steps if x + side <= width and y + side <= height]
        best: dict[str, float] = {}
        pixels: dict[str, Any] = {}
        for _ in range(rounds):
            if scale < 4:
                best["limit"] = min(best.get("limit", np.inf), limit(path, boxes, side))
            for reader, opened_by in readers.items():
                with opened_by(path, mpp) as read:
                    start = time.process_time()
                    for x, y in boxes:
                        read(x, y, side)
                    best[reader] = min(best.get(reader, np.inf), time.process_time() - start)
                    pixels[reader] = [np.array(read(x, y, side)) for x, y in boxes[:: max(1, len(boxes) // 40)]]
        aligned = native is not None and offset == 0 and side % native[0] == side % native[1] == 0
        print(f"\n{name}, {'on' if aligned else 'off'} the grid: {len(boxes)} boxes of {side} px from +{offset}")
        report(len(boxes), best, pixels)


def report(count: int, best: dict[str, float], pixels: dict[str, Any]) -> None:
    reference = "openslide_python"
    bare = f", {best['ours'] / best['limit']:.2f}x the time of bare decoding" if "limit" in best else ""
    print(f"  ours: {best[reference] / best['ours']:.1f}x openslide-python{bare}")
    for reader, seconds in best.items():
        pairs = zip(pixels.get(reader, []), pixels[reference], strict=reader in pixels)
        gap = max((int(np.abs(a.astype(int) - b).max()) for a, b in pairs), default=None)
        same = {None: "", 0: "identical"}.get(gap, f"differs by up to {gap}")
        print(f"  {reader:17s}{count / seconds:6.0f} tiles per CPU s {best[reference] / seconds:6.2f}x  {same}")


def imports(name: str) -> bool:
    if name == "openslide_python":
        return True
    try:
        __import__(name)
    except Exception as error:
        print(f"missing: {name}, {type(error).__name__}")
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?", help="a TIFF or SVS of JPEG tiles")
    parser.add_argument("--stock", type=Path, help="slide to make the mosaic of")
    parser.add_argument("--side", type=int, default=8192, help="px of the mosaic")
    parser.add_argument("--tiles", type=int, default=14, help="tiles per row and rows")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.slide is not None:
        with open_slide(options.slide) as slide:
            mpp = slide.mpp
        measured(options.slide, mpp, options.tiles, options.rounds)
        return
    from wsol.data.sources.phantom_tiff import write_pyramid

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.tiff"
        write_pyramid(mosaic(options.stock, options.side), path, 0.5, quality=80)
        measured(path, 0.5, options.tiles, options.rounds)


if __name__ == "__main__":
    main()
