"""`wsol localize`: one model and one map set become raw, signed maps at feature resolution."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.faults import draw_or_record
from wsol.cli.files import read_json
from wsol.cli.progress import progress
from wsol.cli.vectors import draw_vectors, is_stored

if TYPE_CHECKING:
    import torch

    from wsol.cams import Maps
    from wsol.cli.wholeslide import Lattice
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
    if listing.multilabel and choose != "positive":
        raise ValueError(f"localize.map_class: samples have several labels (multilabel), and {choose!r} names one; set positive")
    target = {"positive": listing.positive_index(), "predicted": None, "truth": -1}[choose]
    provenance = {
        "model": str(model),
        "map_class": choose,
        "methods": settings["methods"],
        "halo_px": int(settings.get("halo_px", 32)),
        "slides": settings.get("slides", "whole"),
        "resize": None if slide is not None else settings.get("resize"),
        "recipe": read_json(model.with_suffix(".json")),
    }
    if slide is not None:
        if tiles is None:
            raise ValueError("--slide needs --tiles, the tile table of that slide (`wsol tile`)")
        row = next(rows.itertuples(index=False))
        label = row.label if target == -1 else target
        by = draw_vectors if is_stored(net) else _slide
        draw = partial(by, net, row, label, settings, out, provenance, tiles)
        draw_or_record(draw, verb="localize", row=row, tiles=tiles, out=out, provenance=provenance)
        return
    with MapWriter(out, provenance) as writer:
        for row in progress(list(rows.itertuples(index=False)), f"localize {split}"):
            label = row.label if target == -1 else target
            _image(net, row, label, settings["methods"], writer, settings.get("resize"))


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
    images = as_images(pad_to_cells(image if side is None else to_square(image, side)), net)
    start = time.perf_counter()
    found, logits = draw(net, images, label, methods)
    seconds = (time.perf_counter() - start) / len(methods)
    target = int(logits[0].argmax()) if label is None else int(label)
    frame = Box(0, 0, images.shape[-1], images.shape[-2]) if side is None else Box(0, 0, width, height)
    for name, maps in found.items():
        writer.add(name, row.sample, maps[0].cpu().numpy(), target=target, frame=frame, size=(height, width), seconds=seconds)
    writer.predict(row.sample, logits[0].to(torch.float32).cpu().numpy())


def _slide(
    net: Localizer, row: Any, label: int | None, settings: dict[str, Any], out: Path, provenance: dict[str, Any], tiles: Path
) -> None:
    """All maps of one slide on one grid of cells, whole where it can be, else tile by tile; cells without tissue are not covered.

    The slide's logits are those of the bag of all its tiles, so that the slide is classified as it was trained.
    """
    import pandas as pd
    import torch

    from wsol.cli.wholeslide import WholeSlide, lattice, plan
    from wsol.data import MapWriter
    from wsol.slides import on_lattice, open_slide

    table, methods, halo = on_lattice(pd.read_parquet(tiles)), settings["methods"], int(settings.get("halo_px", 32))
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        grid = lattice(slide, table, net.output_stride)
        whole = settings.get("slides", "whole") == "whole"
        made = plan(net, grid, methods, whole=whole, memory_mb=int(settings.get("memory_mb", 2048)), halo=halo)
        by_tile = Tiles(slide, table, halo, made.batch)
        drawn = WholeSlide(net, grid, made, methods)
        if label is None and table.empty:
            label = 0  # no tissue, nothing to predict: the map is empty whatever its class
        elif label is None and made.blocks:
            drawn.look()
            label = int(_bag(net, drawn.states).argmax())
        elif label is None:
            label = int(_bag(net, [_state(net, images) for _, images in by_tile.batches(net)]).argmax())
        if made.blocks:
            drawn.draw(label)
        rest = [m for m in methods if m["id"] in made.ids("tile")]
        maps, states, seconds = by_tile.draw(net, grid, rest, label) if rest and not table.empty else ({}, [], 0.0)
        facts = {"target": label, "frame": grid.field.frame, "size": slide.size[::-1], "coverage": grid.covered}
        with MapWriter(out, {**provenance, **made.facts()}) as writer:
            for m in methods:
                name = m["id"]
                if name in maps:
                    writer.add(name, row.sample, maps[name], drawn="tile", seconds=seconds / len(rest), **facts)
                else:
                    each = drawn.seconds / max(1, len(drawn.maps))
                    writer.add(name, row.sample, drawn.maps[name], drawn="whole", seconds=each, **facts)
            if states := drawn.states or states:
                writer.predict(row.sample, _bag(net, states).to(torch.float32).cpu().numpy())


@dataclass(frozen=True)
class Tiles:
    """The tiles of a slide, to be looked at one by one.

    Attributes:
        slide: open.
        table: of its tiles.
        halo: px of context read on each side.
        batch: tiles at a time.
    """

    slide: Any
    table: Any
    halo: int
    batch: int

    def batches(self, net: Localizer, halo: int = 0) -> Iterator[tuple[list[Any], torch.Tensor]]:
        """(boxes without halo, images (b, 3, step + 2 halo, step + 2 halo))."""
        import torch

        from wsol.slides import Box

        step = int(self.table.attrs["tile_px"])
        mpp = int(self.table.attrs["side"]) * self.slide.mpp / step  # as the field of the slide is read
        margin = round(halo * mpp / self.slide.mpp)
        boxes = [Box(int(r.x), int(r.y), int(r.width), int(r.height)) for r in self.table.itertuples(index=False)]
        for i in range(0, len(boxes), self.batch):
            part = boxes[i : i + self.batch]
            wide = [Box(b.x - margin, b.y - margin, b.width + 2 * margin, b.height + 2 * margin) for b in part]
            exact = [to_square(self.slide.read(b, mpp), step + 2 * halo) for b in wide]  # rounding of mpp may leave a px or two
            yield part, torch.cat([as_images(p, net) for p in exact])

    def draw(
        self, net: Localizer, grid: Lattice, methods: list[dict[str, Any]], label: int
    ) -> tuple[dict[str, npt.NDArray[np.float32]], list[torch.Tensor], float]:
        """(maps by id, the head's states of the tiles, seconds): every tile by itself, with its halo, laid on the grid."""
        start = time.perf_counter()
        canvas = {m["id"]: np.zeros(grid.covered.shape, np.float32) for m in methods}
        side, cells, inner, states = grid.field.side, grid.cells, self.halo // net.output_stride, []
        for boxes, images in self.batches(net, self.halo):
            drawn, _ = draw(net, images, label, methods)
            states.append(net.head.bag_state(drawn.prediction))
            found = {name: to_cells(maps, cells + 2 * inner) for name, maps in drawn.items()}
            for i, box in enumerate(boxes):
                at = np.s_[round(box.y / side) * cells :, round(box.x / side) * cells :]
                for name, maps in found.items():
                    place = canvas[name][at][:cells, :cells]
                    place[:] = maps[i, inner : inner + cells, inner : inner + cells].cpu().numpy()[: len(place), : place.shape[1]]
        return canvas, states, time.perf_counter() - start


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


def as_images(image: RGB, net: Localizer) -> torch.Tensor:
    """Float RGB in [0, 1], (1, 3, H, W), on the net's device."""
    import torch

    device = next(net.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float().div_(255)


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
