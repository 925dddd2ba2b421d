"""The few validation masks that choose an epoch (B-LOC): which ones, and the PxAP of a net on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.scoring import at_size, fit_scale, score

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from wsol.data import Manifest, Masks, StoredMap
    from wsol.models import Localizer

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Opened:
    """A validation sample whose foreground is known.

    Attributes:
        sample: its name.
        label: its class.
        images: uint8 (t, H, W, 3): the image, padded to whole map cells, or tiles of the slide.
        masks: bool (h, w) of each; at most H x W, what is beyond is padding.
        file: whether a mask file was opened; the others are known, by their label, to be empty.
    """

    sample: str
    label: int
    images: RGB
    masks: Sequence[Mask]
    file: bool


def choose(rows: pd.DataFrame, count: int) -> list[str]:
    """`count` samples in the order in which they are worth opening: few of one patient, then few of one class, then as listed.

    The choice is nested: the first three of six are those of three.
    """
    patients, labels = list(rows["patient"]), list(rows["label"])
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        left = [i for i in range(len(rows)) if i not in chosen]
        # A sample whose patient is unknown stands for itself.
        met = {i: sum(patients[i] != "" and patients[i] == patients[j] for j in chosen) for i in left}
        alike = {i: sum(labels[i] == labels[j] for j in chosen) for i in left}
        chosen.append(min(left, key=lambda i: (met[i], alike[i], i)))
    return [str(s) for s in rows["sample"].iloc[chosen]]


def open_masks(
    listing: Manifest,
    rows: pd.DataFrame,
    truth: Masks,
    count: int,
    tiles: Path | None,
    per_slide: int,
    side: int | None = None,
) -> list[Opened]:
    """Open `count` mask files among `rows`, and take as many samples that are known to be empty, which cost no mask.

    Args:
        listing: the manifest.
        rows: of the role valpx, none of which is trained on.
        truth: the masks.
        count: mask files to open.
        tiles: folder of tile tables, for slides.
        per_slide: tiles taken of each slide.
        side: images are resized to (side, side) and their masks with them; None keeps sizes.

    Raises:
        ValueError: there are fewer mask files.
    """
    known = rows[rows["sample"].isin(truth.samples)]
    if listing.kind == "slides":
        known = known[known["sample"].map(lambda s: not _table(tiles, s).empty).astype(bool)]
    filed = np.array([truth.kind(s) == "file" for s in known["sample"]], bool)
    if filed.sum() < count:
        raise ValueError(
            f"checkpoint masks-{count} needs {count} validation samples (role valpx) with a mask file that are not trained on; "
            f"there are {filed.sum()}"
        )
    names = choose(known[filed], count) + choose(known[~filed], count)
    by_name = {row.sample: row for row in known.itertuples(index=False)}
    if listing.kind == "images":
        return [_image(by_name[name], truth, side) for name in names]
    return [_slide(by_name[name], truth, tiles, per_slide) for name in names]


def _image(row: Any, truth: Masks, side: int | None) -> Opened:
    from wsol.cli.localize import pad_to_cells, to_square
    from wsol.data import read_image

    image = read_image(row.path)
    mask = at_size(truth.open(row.sample, shape=(image.shape[0], image.shape[1])), side)
    image = image if side is None else to_square(image, side)
    return Opened(row.sample, int(row.label), pad_to_cells(image)[None], [mask], truth.kind(row.sample) == "file")


def _slide(row: Any, truth: Masks, tiles: Path | None, per_slide: int) -> Opened:
    """Tiles of a slide, up to half of them with foreground: a small lesion would else be missed by all."""
    import cv2

    from wsol.slides import Box, open_slide

    table, file = _table(tiles, row.sample), truth.kind(row.sample) == "file"
    boxes = table[["x", "y", "width", "height"]].to_numpy(np.int64)
    side = int(table.attrs["tile_px"])
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        parts = _parts(truth, row.sample, slide.size[::-1], boxes, side) if file else [np.zeros((side, side), bool)] * len(boxes)
        positive = np.array([part.any() for part in parts])
        found = spread(np.flatnonzero(positive), per_slide // 2)
        chosen = sorted([*found, *spread(np.flatnonzero(~positive), per_slide - len(found))])
        pixels = [slide.read(Box(*boxes[i].tolist()), boxes[i, 2] * slide.mpp / side) for i in chosen]
    images = np.stack([cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pixels]).astype(np.uint8)
    return Opened(row.sample, int(row.label), images, [parts[i] for i in chosen], file)


def _parts(truth: Masks, sample: str, shape: tuple[int, int], boxes: npt.NDArray[np.int64], side: int) -> list[Mask]:
    """The mask of a slide below each of its tiles, (side, side)."""
    from wsol.slides import Box

    if truth.drawn(sample):
        return [truth.part(sample, shape, Box(*box), (side, side)) for box in boxes.tolist()]
    whole = truth.open(sample, shape=shape)
    return [_shrunk(whole, box, side) for box in boxes]


def _shrunk(mask: Mask, box: npt.NDArray[np.int64], side: int) -> Mask:
    """The part of a level-0 mask below a tile, at the tile's size: foreground where half of the pixel is."""
    import cv2

    x, y, width, height = box.tolist()
    part = np.zeros((height, width), np.float32)
    inside = mask[max(y, 0) : y + height, max(x, 0) : x + width]
    part[: inside.shape[0], : inside.shape[1]] = inside
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) >= 0.5)


def spread(places: Sequence[int] | npt.NDArray[np.int64], count: int) -> list[int]:
    """`count` of the places, evenly spread; all where there are not more."""
    count = min(count, len(places))
    return [int(places[(2 * i + 1) * len(places) // (2 * count)]) for i in range(count)]


def _table(tiles: Path | None, sample: str) -> pd.DataFrame:
    import pandas as pd

    if tiles is None:
        raise ValueError("--tiles is needed: the folder of tile tables that `wsol tile` wrote for these slides")
    return pd.read_parquet(tiles / f"{sample}.parquet")


def mask_scores(
    net: Localizer, samples: Sequence[Opened], map_class: str, positive: int, counts: Sequence[int]
) -> dict[int, float]:
    """PxAP of the net's own map on the first n masks, and the first n known-empty samples, for each n of `counts`.

    As `wsol evaluate` has it: one scale for all maps, fitted on them without their masks; all pixels pooled over 1000 thresholds.
    """
    from wsol.evaluation import PixelCounts, count_pixels

    drawn = {one.sample: _maps(net, one, map_class, positive) for one in samples}
    found = {}
    for n in counts:
        some = [one for kind in (True, False) for one in [s for s in samples if s.file is kind][:n]]
        scale = fit_scale("fitted", [m for one in some for m in drawn[one.sample]], rectified=False)
        pairs = [pair for one in some for pair in zip(drawn[one.sample], one.masks, strict=True)]
        found[n] = float(PixelCounts.total([count_pixels(score(m, scale, mask.shape), mask) for m, mask in pairs]).pxap)
    return found


def own_map(net: Localizer) -> str:
    """The method that draws what a net learned: `native`, or the mask that it learned to draw beside a frozen class map."""
    return "masker" if hasattr(type(net.head), "mask") else "native"


def _maps(net: Localizer, one: Opened, map_class: str, positive: int) -> list[StoredMap]:
    import torch

    from wsol.cams import cam
    from wsol.data import StoredMap, to_tensor
    from wsol.slides import Box

    images = to_tensor(list(one.images)).to(next(net.parameters()).device)
    target = {"positive": positive, "truth": one.label, "predicted": -1}[map_class]
    if target < 0:
        target = _decided(net, images)
    maps = cam(own_map(net), net, images, torch.full((len(images),), target, device=images.device)).cpu().numpy()
    frame = Box(0, 0, images.shape[-1], images.shape[-2])
    return [
        StoredMap(m, target, frame, (mask.shape[0], mask.shape[1]), None, "whole", 0.0)
        for m, mask in zip(maps, one.masks, strict=True)
    ]


def _decided(net: Localizer, images: torch.Tensor) -> int:
    """The class of the bag that the tiles form; of one image its class."""
    import torch

    with torch.no_grad():
        logits = net(images, groups=torch.zeros(len(images), dtype=torch.int64, device=images.device)).logits
    return int(logits[0].argmax())
