"""What the input pipeline costs: `wsol train`'s images from PNG files, augmented, against the same steps on tensors at hand.

Ours is `fit` on `ImageBatches`, as `wsol train` puts them together: files decoded, cropped, turned, jittered in color and stain
by one thread that works ahead. Bare is a loop on the same net and optimizer over one random batch of the same shape: forward,
backward, step, and nothing else. Both run in turns, and ratios are those of their best rounds.

Two overheads are printed, in percent of the bare loop: in CPU seconds, all that the pipeline works (what one pays where every
core is taken), and on the clock, what is left of it where a second core is free. The clock means little on a busy machine.

The other ratios are of bare loops: memory given back to the kernel after each tensor, as it is by default, against kept; float32
against channels_last, and against bfloat16 with channels_last where the processor computes bfloat16.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import pandas as pd
import torch
from peers import bfloat16, processor
from PIL import Image
from torch.nn import functional

from wsol.data import ImageBatches, PixelCache, train_transform
from wsol.models import Localizer, build_localizer
from wsol.training import build_strategy, fit, keep_freed_memory
from wsol.training.optimizer import build_optimizer

SIZE = (522, 775)
"""Height and width of the files, in px: those of GlaS."""


def files(folder: Path, count: int) -> pd.DataFrame:
    """Rows of a manifest, and their images: smooth noise in the colors of H&E, which costs to decode what tissue costs."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(90, 255, (SIZE[0] // 6, SIZE[1] // 6, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC), np.int16) + rng.integers(-8, 9, (*SIZE, 3))
        Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        rows.append({"sample": str(i), "path": str(folder / f"{i}.png"), "label": i % 2})
    return pd.DataFrame(rows)


def net_of(options: argparse.Namespace) -> Localizer:
    """A net in training mode, in channels_last."""
    net = build_localizer(options.net, "gap", 2, weights=None, output_stride=16, generator=torch.Generator().manual_seed(0))
    return net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def bare(options: argparse.Namespace, bf16: bool = False, channels_last: bool = True) -> Callable[[], int]:
    """One step on tensors that are there; returns the number of images."""
    net, strategy = net_of(options), build_strategy("classify")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = build_optimizer(net, strategy, lr=1e-5, head_lr_factor=1, weight_decay=0)
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(options.batch, 3, options.crop, options.crop, generator=draws).contiguous(memory_format=layout)
    labels = torch.arange(options.batch) % 2

    def step() -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(images).logits
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        return len(images)

    def epoch() -> int:
        return sum(step() for _ in range(options.images * options.repeats // options.batch))

    return epoch


def alone(options: argparse.Namespace, keep: bool) -> float:
    """CPU seconds per image of the bare loop in this process; called in one of its own, since it cannot go back."""
    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    return timed({"bare": bare(options)}, options.rounds)["bare"][0]


def returned(options: argparse.Namespace) -> float:
    """CPU seconds with memory given back to the kernel, as it is by default, of those with memory kept."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        best = [min(pool.submit(alone, options, keep).result() for _ in range(2)) for keep in (False, True)]
    return best[0] / best[1]


def ours(options: argparse.Namespace, rows: pd.DataFrame) -> Callable[[], int]:
    """One epoch of `fit` on files; they are decoded in the first and cached, as in a training."""
    net, strategy = net_of(options), build_strategy("classify")
    loader = ImageBatches(rows, batch_size=options.batch, repeats=options.repeats, transform=train_transform(options.crop))

    def epoch() -> int:
        settings = {"epochs": 1, "steps": len(loader), "lr": 1e-5, "bf16": False, "device": "cpu", "progress": False}
        fit(net, strategy, lambda epoch, generator: loader.epoch(generator), **settings)
        return len(rows) * options.repeats

    return epoch


def pipeline(options: argparse.Namespace, rows: pd.DataFrame) -> Callable[[], int]:
    """The loader alone, which decodes every file every time: a data set larger than the cache."""
    loader = ImageBatches(
        rows,
        batch_size=options.batch,
        repeats=options.repeats,
        transform=train_transform(options.crop),
        cache=PixelCache(0),
        ahead=0,
    )
    draws = torch.Generator().manual_seed(0)
    return lambda: sum(len(batch) for batch in loader.epoch(draws))


def timed(work: dict[str, Callable[[], int]], rounds: int) -> dict[str, tuple[float, float]]:
    """Best CPU seconds and best seconds per image of each, in turns."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, run in work.items():
            cpu, clock = time.process_time(), time.perf_counter()
            images = run()
            found = (time.process_time() - cpu) / images, (time.perf_counter() - clock) / images
            best[name] = tuple(map(min, best.get(name, found), found))  # type: ignore[assignment]
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="efficientnet_lite0", help="a backbone of `wsol list backbones`")
    parser.add_argument("--crop", type=int, default=416, help="side of the crop in px")
    parser.add_argument("--batch", type=int, default=8, help="images per batch")
    parser.add_argument("--images", type=int, default=16, help="files")
    parser.add_argument("--repeats", type=int, default=1, help="times each is drawn per epoch")
    parser.add_argument("--rounds", type=int, default=4, help="epochs of each; the best one counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{processor()}; torch {torch.__version__}, one thread; {options.net}, {options.batch} x {options.crop} px")
    with tempfile.TemporaryDirectory() as folder:
        rows = files(Path(folder), options.images)
        work = {"bare": bare(options), "ours": ours(options, rows), "pipeline": pipeline(options, rows)}
        best = timed(work, options.rounds)
    for kind, what in enumerate(("CPU seconds", "the clock")):
        over = 100 * (best["ours"][kind] / best["bare"][kind] - 1)
        alone = 100 * best["pipeline"][kind] / best["bare"][kind]
        print(f"  training from files against the bare loop, by {what}: {over:+.0f} % (aim: at most +20 %)")
        print(f"  loader alone without a cache, in one thread, by {what}: {alone:.0f} % of the bare loop")
    layouts = {"float32": bare(options, channels_last=False), "channels_last": bare(options)}
    if bfloat16():
        layouts["bfloat16"] = bare(options, bf16=True)
    best = timed(layouts, options.rounds)
    print(f"  memory given back against kept: {returned(options):.2f}x")
    print(f"  float32 against float32 with channels_last: {best['float32'][0] / best['channels_last'][0]:.2f}x")
    if bfloat16():
        print(f"  float32 against bfloat16 with channels_last: {best['float32'][0] / best['bfloat16'][0]:.2f}x")
    else:
        print("  in bfloat16: not measured, this processor computes bfloat16 in software, and `bf16: auto` leaves it off")


if __name__ == "__main__":
    main()
