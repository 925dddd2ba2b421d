"""`batch.png` of a run: images of the first step as the net sees them, for a look at what augmentation and strategy do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsol.cli.files import atomic
from wsol.cli.validation_masks import spread

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from wsol.data import Batch
    from wsol.models import Localizer
    from wsol.training import Strategy

COUNT, COLUMNS, SIDE, LINE = 8, 4, 224, 18
"""Images shown and side by side; longest side of each and height of the text below, in px."""


def picture_batch(
    path: Path,
    net: Localizer,
    strategy: Strategy,
    batches: Callable[[int, torch.Generator], Iterable[Batch]],
    classes: Sequence[str],
    seed: int,
) -> None:
    """Write images of the first step of `fit(..., seed=seed)`, their own label and sample below.

    Pixels are those after augmentation and strategy. Where features are erased (ADL's layers, ACoL's branch B) the image is
    darkened by as much of them as is taken away, cell by cell. Net and strategy are as before.
    """
    from wsol.training import seeded_generator

    batch = next(iter(batches(1, seeded_generator(seed, 1, "batches"))), None)
    if batch is None:
        return  # training says what is wrong
    shown = spread(range(len(batch.images)), COUNT)  # of bags the first tiles would all be of one slide
    images = _seen(net, strategy, batch, seed)[shown]
    owner = range(len(batch.labels)) if batch.groups is None else batch.groups.tolist()
    held = batch.labels.tolist()
    names = [
        " + ".join(c for c, has in zip(classes, one, strict=True) if has) if isinstance(one, list) else classes[one]
        for one in held
    ]
    texts = [f"{names[owner[i]]} | {batch.samples[owner[i]]}" for i in shown]
    with atomic(path) as temporary:
        _sheet(images, texts).save(temporary, "PNG")


def _seen(net: Localizer, strategy: Strategy, batch: Batch, seed: int) -> torch.Tensor:
    """The images (b, 3, H, W) as the net sees them in its first step."""
    import torch
    from torch.nn import functional

    from wsol.training import seeded_generator

    twin, plan = copy.deepcopy(net).train(), copy.deepcopy(strategy)  # batch norm moves when it looks
    plan.attach(twin)
    draws = seeded_generator(seed, 1, "loss")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        images = plan.seen(twin, batch, draws)
        kept = plan.kept(twin, replace(batch, images=images), draws)
    if kept is not None:
        images = images * functional.interpolate(kept.float(), size=images.shape[-2:])
    return images


def _sheet(images: torch.Tensor, texts: Sequence[str]) -> Image:
    """One picture of all images, each over its text."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = images.shape[-2:]
    zoom = SIDE / max(height, width)
    wide, tall = max(1, round(width * zoom)), max(1, round(height * zoom))
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (min(len(images), COLUMNS) * (wide + 4), rows * (tall + LINE + 4)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for i, text in enumerate(texts):
        x, y = i % COLUMNS * (wide + 4), i // COLUMNS * (tall + LINE + 4)
        sheet.paste(Image.fromarray(pixels[i]).resize((wide, tall), Image.Resampling.BOX), (x, y))
        room = next(n for n in range(len(text), -1, -1) if pen.textlength(text[:n], font) <= wide)
        pen.text((x, y + tall + 2), text[:room], fill="black", font=font)
    return sheet
