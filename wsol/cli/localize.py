"""`wsol localize`: one model and one map set become raw, signed maps at feature resolution."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.files import read_json

if TYPE_CHECKING:
    import torch

    from wsol.cams import Maps
    from wsol.models import Localizer

RGB = npt.NDArray[np.uint8]


def localize(
    settings: dict[str, Any],
    *,
    model: Path,
    manifest: Path,
    out: Path,
    split: str,
    fold: int,
    slide: str | None,
    tiles: Path | None,
    threads: int,
) -> None:
    """Draw every method of a map set for all samples of a split, or for one slide of it."""
    import torch

    from wsol.data import MapWriter, read_manifest
    from wsol.models import load_checkpoint

    torch.set_num_threads(threads)
    listing = read_manifest(manifest)
    rows = listing.rows(fold, split)
    if slide is not None:
        rows = rows[rows["sample"] == slide]
        if rows.empty:
            raise ValueError(f"{manifest}: no slide {slide!r} in split {split!r} of fold {fold}")
    net = load_checkpoint(model).eval().to(_device(settings.get("device", "auto")))
    choose = settings.get("map_class", "positive")
    target = {"positive": listing.positive_index(), "predicted": None, "truth": -1}[choose]
    provenance = {
        "model": str(model),
        "map_class": choose,
        "methods": settings["methods"],
        "halo_px": int(settings.get("halo_px", 32)),
        "resize": None if slide is not None else settings.get("resize"),
        "recipe": read_json(model.with_suffix(".json")),
    }
    with MapWriter(out, provenance) as writer:
        for row in progress(list(rows.itertuples(index=False)), f"localize {split}"):
            label = row.label if target == -1 else target
            if slide is None:
                _image(net, row, label, settings["methods"], writer, settings.get("resize"))
            elif tiles is not None:
                _slide(net, row, label, settings["methods"], writer, tiles, int(settings.get("halo_px", 32)))
            else:
                raise ValueError("--slide needs --tiles, the tile table of that slide (`wsol tile`)")


def _image(
    net: Localizer, row: Any, label: int | None, methods: list[dict[str, Any]], writer: Any, side: int | None = None
) -> None:
    """All maps of one image, padded by reflection to whole map cells; the frame says what the map covers.

    An image that is resized to (side, side), whole map cells, is covered exactly.
    """
    import torch

    from wsol.data import read_image
    from wsol.slides import Box

    image = read_image(row.path)
    height, width = image.shape[:2]
    images = _tensor(pad_to_cells(image if side is None else to_square(image, side)), net)
    start = time.perf_counter()
    found, logits = draw(net, images, label, methods)
    seconds = (time.perf_counter() - start) / len(methods)
    target = int(logits[0].argmax()) if label is None else int(label)
    frame = Box(0, 0, images.shape[-1], images.shape[-2]) if side is None else Box(0, 0, width, height)
    for name, maps in found.items():
        writer.add(name, row.sample, maps[0].cpu().numpy(), target=target, frame=frame, size=(height, width), seconds=seconds)
    writer.predict(row.sample, logits[0].to(torch.float32).cpu().numpy())


def _slide(
    net: Localizer, row: Any, label: int | None, methods: list[dict[str, Any]], writer: Any, tiles: Path, halo: int
) -> None:
    """All maps of one slide, drawn tile by tile with a halo and laid on one grid; cells without tissue are not covered.

    The slide's logits are those of the bag of all its tiles, so that the slide is classified as it was trained.
    """
    import pandas as pd
    import torch

    from wsol.slides import Box, open_slide

    table = pd.read_parquet(tiles)
    step, mpp = int(table.attrs["tile_px"]), float(table.attrs["mpp"])
    cells = step // net.output_stride
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        side = float(table.attrs["side"])  # level-0 px of one tile
        columns, lines = (int(np.ceil(s / side - 1e-6)) for s in slide.size)
        canvas = {m["id"]: np.zeros((lines * cells, columns * cells), np.float32) for m in methods}
        covered = np.zeros((lines * cells, columns * cells), bool)
        states = []
        start = time.perf_counter()
        if label is None and table.empty:
            label = 0  # no tissue, nothing to predict: the map is empty whatever its class
        elif label is None:
            label = int(_bag(net, [_state(net, t) for _, t in _tile_batches(slide, table, mpp, step, 0, net)]).argmax())
        for boxes, images in _tile_batches(slide, table, mpp, step, halo, net):
            drawn, _ = draw(net, images, label, methods)
            states.append(net.head.bag_state(drawn.prediction))
            inner = halo // net.output_stride
            found = {name: to_cells(maps, cells + 2 * inner) for name, maps in drawn.items()}
            for i, box in enumerate(boxes):
                at = np.s_[round(box.y / side) * cells :, round(box.x / side) * cells :]
                for name, maps in found.items():
                    canvas[name][at][:cells, :cells] = maps[i, inner : inner + cells, inner : inner + cells].cpu().numpy()
                covered[at][:cells, :cells] = True
        seconds = (time.perf_counter() - start) / len(methods)
        frame = Box(0, 0, round(columns * side), round(lines * side))
        for name, array in canvas.items():
            facts = {"target": label, "frame": frame, "size": slide.size[::-1], "coverage": covered, "seconds": seconds}
            writer.add(name, row.sample, array, drawn="tile", **facts)
        if states:
            writer.predict(row.sample, _bag(net, states).to(torch.float32).cpu().numpy())


def to_cells(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maps (b, h, w) of a finer stage, or of the image, as means over (b, side, side) cells: a slide has one grid for all."""
    from torch.nn import functional

    return maps if maps.shape[-1] == side else functional.adaptive_avg_pool2d(maps[:, None], side)[:, 0]


def draw(net: Localizer, images: torch.Tensor, label: int | None, methods: list[dict[str, Any]]) -> tuple[Maps, torch.Tensor]:
    """Maps by id, and logits: one encode for all methods. An id with options of its own is a method under its id."""
    import torch

    from wsol.cams import cams

    targets = None if label is None else torch.full((len(images),), int(label), device=images.device)
    named = {m["id"]: m["method"] for m in methods}
    options = {m["id"]: m["options"] for m in methods if m["options"]}
    return cams(named, net, images, targets, options=options, return_logits=True)


def _state(net: Localizer, images: torch.Tensor) -> torch.Tensor:
    """What the head keeps of each tile for the bag, without a graph."""
    import torch

    with torch.inference_mode():
        return net.head.bag_state(net(images))


def _bag(net: Localizer, states: list[torch.Tensor]) -> torch.Tensor:
    """Logits (k,) of the bag that all tiles of a slide form, from what the head kept of each batch of them."""
    import torch

    state = torch.cat(states)
    return net.head.pool_bags(state, torch.zeros(len(state), dtype=torch.int64, device=state.device))[0]


def _tile_batches(
    slide: Any, table: Any, mpp: float, step: int, halo: int, net: Localizer, batch: int = 16
) -> Iterator[tuple[list[Any], torch.Tensor]]:
    """Batches of tiles read with a halo on each side: (boxes without halo, images (b, 3, step + 2 halo, step + 2 halo))."""
    import torch

    from wsol.slides import Box

    margin = round(halo * mpp / slide.mpp)
    boxes = [Box(int(r.x), int(r.y), int(r.width), int(r.height)) for r in table.itertuples(index=False)]
    for i in range(0, len(boxes), batch):
        part = boxes[i : i + batch]
        pixels = [slide.read(Box(b.x - margin, b.y - margin, b.width + 2 * margin, b.height + 2 * margin), mpp) for b in part]
        exact = [to_square(p, step + 2 * halo) for p in pixels]  # rounding of mpp may leave a pixel or two
        yield part, torch.cat([_tensor(p, net) for p in exact])


def to_square(pixels: RGB, side: int) -> RGB:
    """Resized to (side, side), whatever the aspect ratio: area means where both sides shrink, else bilinear."""
    import cv2

    if pixels.shape[:2] == (side, side):
        return pixels
    way = cv2.INTER_AREA if min(pixels.shape[:2]) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=way), np.uint8)


def pad_to_cells(image: RGB, cell: int = 32) -> RGB:
    """Pad bottom and right by reflection to a multiple of `cell` px, so that map cells and pixels line up exactly."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % cell), (0, -width % cell), (0, 0)), mode="reflect")


def _tensor(image: RGB, net: Localizer) -> torch.Tensor:
    """Float RGB in [0, 1], (1, 3, H, W), on the net's device."""
    import torch

    device = next(net.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float().div_(255)


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def progress(items: list[Any], title: str) -> Iterator[Any]:
    """A bar on a terminal; in a log, nothing but the work."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, title, console=console, disable=not console.is_terminal)
