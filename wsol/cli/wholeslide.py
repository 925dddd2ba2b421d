"""The maps of one slide as if it were one image: features block by block, weights of the slide, tiles only where it must be.

What the backbone says of a block, halo taken off, is what it says of the whole slide (`wsol.models.reach`). Methods whose map is
local are drawn at once, those that need all cells from the features of all tissue tiles, the rest tile by tile; `plan` decides,
and the map file says which and why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.progress import progress

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from wsol.cams import Route
    from wsol.models import Localizer, Reach
    from wsol.slides import Block, Field, Slide

WORKSPACE = 1.5
"""Measured peak of an encode over what its tensors take: 1.0 to 1.4 on a CPU."""

COPIES = 6
"""Times the features of a slide that drawing from all of them at once takes: the features, slopes, products."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the tiles of a slide lie, and which cells they cover.

    Attributes:
        field: the slide at the tiles' resolution.
        places: int64 (n, 2), (row, column) of each tile.
        cells: along the side of a tile.
        covered: bool (h, w), the cells of the tiles.
    """

    field: Field
    places: npt.NDArray[np.int64]
    cells: int
    covered: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Plan:
    """How each method of a slide is drawn.

    Attributes:
        routes: id -> route.
        reach: of the backbone (down, across); None where it is global.
        blocks: to be encoded; none where nothing is drawn by blocks.
        batch: tiles in a batch, for what is drawn tile by tile.
    """

    routes: dict[str, Route]
    reach: tuple[Reach, Reach] | None
    blocks: list[Block]
    batch: int

    def ids(self, kind: str) -> list[str]:
        """Ids of the methods of one route."""
        return [name for name, route in self.routes.items() if route.kind == kind]

    def facts(self) -> dict[str, Any]:
        """As plain JSON, for the map file."""
        halo = None if self.reach is None else [max(r.before, r.after) * r.stride for r in self.reach]
        drawn = {name: {"from": route.kind, "reason": route.reason} for name, route in self.routes.items()}
        return {"drawn": drawn, "reach_px": halo, "blocks": len(self.blocks)}


def lattice(slide: Slide, table: pd.DataFrame, stride: int) -> Lattice:
    """The lattice of a tile table, at `stride` px per cell."""
    from wsol.slides import Field

    step, side = int(table.attrs["tile_px"]), int(table.attrs["side"])
    field = Field(slide, step=step, side=side, cell=stride)
    places = np.round(table[["y", "x"]].to_numpy(np.float64).reshape(-1, 2) / side).astype(np.int64)
    cells = step // stride
    covered = np.zeros((field.size[0] // stride, field.size[1] // stride), bool)
    for row, column in places:
        covered[row * cells : (row + 1) * cells, column * cells : (column + 1) * cells] = True
    return Lattice(field, places, cells, covered)


def plan(net: Localizer, grid: Lattice, methods: list[dict[str, Any]], *, whole: bool, memory_mb: int, halo: int) -> Plan:
    """How each method is drawn: whole where net, method and memory allow, else by tiles with the reason.

    Raises:
        ValueError: `memory_mb` does not hold one tile with its halo.
    """
    from wsol.cams import Route, route
    from wsol.models import GlobalReachError, bytes_per_pixel, reach
    from wsol.slides import fewest_px

    given, per_px = memory_mb * 2**20, WORKSPACE * bytes_per_pixel(net)
    batch = max(1, min(16, int(given / per_px) // (grid.field.step + 2 * halo) ** 2))
    if not len(grid.places):
        return Plan({m["id"]: Route("cells", "no tissue") for m in methods}, None, [], batch)
    if not whole:
        return Plan({m["id"]: Route("tile", "localize.slides: tiles") for m in methods}, None, [], batch)
    try:
        seen = reach(net, grid.field.size)
        if (seen[0].cells, seen[1].cells) != grid.covered.shape:
            raise GlobalReachError(f"it makes {seen[0].cells} x {seen[1].cells} cells of {grid.field.size} px")
    except GlobalReachError as error:
        return Plan({m["id"]: Route("tile", f"the backbone: {error}") for m in methods}, None, [], batch)
    routes = {m["id"]: route(m["method"], net, m["options"]) for m in methods}
    stored = 4 * net.backbone.channels[-1] * int(grid.covered.sum())
    if COPIES * stored > given:
        reason = f"the features of its tissue take {COPIES * stored >> 20} MB, more than localize.memory_mb: {memory_mb}"
        routes = {name: Route("tile", reason) if r.kind == "slide" else r for name, r in routes.items()}
    if any(r.kind == "slide" for r in routes.values()):
        given -= stored
    try:
        return Plan(routes, seen, fewest_px(grid.places, lambda block: _read(grid, seen, block), int(given / per_px)), batch)
    except ValueError as error:
        raise ValueError(
            f"localize.memory_mb: {memory_mb} is too little to draw slides whole: {error}. Raise it, take smaller tiles, or set "
            "localize.slides: tiles"
        ) from error


def _kept(grid: Lattice, block: Block) -> tuple[slice, slice]:
    """The cells of a block."""
    rows, columns = (block.top, block.bottom), (block.left, block.right)
    height, width = grid.covered.shape
    return (
        slice(rows[0] * grid.cells, min(rows[1] * grid.cells, height)),
        slice(columns[0] * grid.cells, min(columns[1] * grid.cells, width)),
    )


def _spans(grid: Lattice, seen: tuple[Reach, Reach], block: Block) -> list[Any]:
    return [axis.span(part.start, part.stop) for axis, part in zip(seen, _kept(grid, block), strict=True)]


def _read(grid: Lattice, seen: tuple[Reach, Reach], block: Block) -> tuple[int, int]:
    """(H, W) px that a block reads."""
    down, across = _spans(grid, seen, block)
    return down.stop - down.start, across.stop - across.start


def features(net: Localizer, grid: Lattice, made: Plan) -> Iterator[tuple[tuple[slice, slice], torch.Tensor]]:
    """(cells, features (1, c, h, w) of the last stage) of every block, as the whole slide has them."""
    import torch

    from wsol.cli.localize import as_images

    assert made.reach is not None
    for block in progress(made.blocks, "blocks of the slide"):
        kept, (down, across) = _kept(grid, block), _spans(grid, made.reach, block)
        images = as_images(grid.field.read((down.start, down.stop), (across.start, across.stop)), net)
        with torch.inference_mode():
            last = net.encode(images).last
        height, width = (part.stop - part.start for part in kept)
        yield kept, last[..., down.skip : down.skip + height, across.skip : across.skip + width].clone()


class WholeSlide:
    """Draws the methods of a plan that are drawn whole, in one pass over the blocks.

    Attributes:
        maps: id -> float32 (h, w).
        states: what the head keeps of each tile for the bag: cut out of the features of the slide, with its surroundings seen.
        seconds: that it took.
    """

    def __init__(self, net: Localizer, grid: Lattice, made: Plan, methods: list[dict[str, Any]]) -> None:
        self.net, self.grid, self.plan = net, grid, made
        self.named = {m["id"]: (m["method"], m["options"]) for m in methods}
        self.maps = {name: np.zeros(grid.covered.shape, np.float32) for name in (*made.ids("cells"), *made.ids("slide"))}
        self.states: list[torch.Tensor] = []
        self.seconds = 0.0
        self._tiles = {(int(r), int(c)) for r, c in grid.places}

    def look(self) -> None:
        """Only the states of all tiles: what the slide is predicted from."""
        for kept, cells in features(self.net, self.grid, self.plan):
            self._keep(kept, cells)

    def draw(self, label: int) -> None:
        """All maps of one class; the states, too, unless there are some."""
        start = time.perf_counter()
        count, looked = int(self.grid.covered.sum()), bool(self.states)
        local = {name: self.named[name] for name in self.plan.ids("cells")}
        store = self._store(count)
        for kept, cells in features(self.net, self.grid, self.plan):
            if not looked:
                self._keep(kept, cells)
            self._draw_local(kept, cells, local, label, count)
            if store is not None:
                inside = self.grid.covered[kept]
                store[0, :, self._numbers[kept][inside], 0] = cells[0][:, inside].to(store.dtype)
        if store is not None:
            self._draw_slide(store, label)
        self.seconds = time.perf_counter() - start

    def _store(self, count: int) -> torch.Tensor | None:
        """Room for the features of all covered cells, (1, c, n, 1), if a method needs it."""
        import torch

        if not self.plan.ids("slide"):
            return None
        self._numbers = np.cumsum(self.grid.covered).reshape(self.grid.covered.shape) - 1
        device = next(self.net.parameters()).device
        return torch.empty((1, self.net.backbone.channels[-1], count, 1), device=device)

    def _keep(self, kept: tuple[slice, slice], cells: torch.Tensor) -> None:
        """The head's states of the tiles of a block."""
        import torch

        from wsol.models import Features

        side = self.grid.cells
        with torch.inference_mode():
            for row in range(kept[0].start // side, -(-kept[0].stop // side)):
                for column in range(kept[1].start // side, -(-kept[1].stop // side)):
                    if (row, column) in self._tiles:
                        y, x = row * side - kept[0].start, column * side - kept[1].start
                        tile = cells[..., y : y + side, x : x + side]
                        self.states.append(self.net.head.bag_state(self.net.head(Features((tile,)))))

    def _draw_local(
        self,
        kept: tuple[slice, slice],
        cells: torch.Tensor,
        local: Mapping[str, tuple[str, Mapping[str, Any]]],
        label: int,
        count: int,
    ) -> None:
        from wsol.cams import draw_cells

        inside = self.grid.covered[kept]
        for name, drawn in draw_cells(self.net, local, cells, label, count).items():
            self.maps[name][kept][inside] = drawn.cpu().numpy()[inside]

    def _draw_slide(self, store: torch.Tensor, label: int) -> None:
        """Logits, slopes and weights of the slide, its tissue cells pooled as the head pools those of an image."""
        import torch

        from wsol.cams import cam
        from wsol.models import Features

        target = torch.full((1,), label, dtype=torch.int64, device=store.device)
        for name in self.plan.ids("slide"):
            method, options = self.named[name]
            drawn = cam(method, self.net, None, target, features=Features((store,)), **options)
            self.maps[name][self.grid.covered] = drawn[0, :, 0].cpu().numpy()
