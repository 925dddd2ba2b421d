"""Batches of single tiles that have labels of their own: supervision by annotations, not by slide labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsol.data.batches import Batch
from wsol.data.tile_labels import draw_tiles
from wsol.data.tile_tables import read_tables
from wsol.data.tiles import BagBatches
from wsol.data.transforms import to_tensor
from wsol.slides import Slide

if TYPE_CHECKING:
    import pandas as pd


class TileBatches(BagBatches):
    """Batches of tiles, each an image with its own label; each pass over it is one epoch of all tiles that are drawn.

    Which tiles these are is decided once, by `seed`, from all slides together.

    Args:
        rows: of a manifest (columns sample, path, mpp, label).
        tables: as for `BagBatches`, with the columns of `wsol.data.label_tiles`.
        batch_size: tiles per batch.
        positives: labels of slides that the annotations mark.
        how: of `wsol.data.tile_labels.DRAWS`.
        seed: of the draw.
        options: `transform`, `generator`, `repeats`, `balanced` (between the labels of tiles), `mpp`, `tile_px`, `cache` and
            `ahead` of `BagBatches`.

    Attributes:
        rows: one per tile: those of the manifest with the tile's `label` and its place `tile` in the table of its slide.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        tables: str | Path | Mapping[str, pd.DataFrame],
        *,
        batch_size: int,
        positives: Sequence[int],
        how: str = "labeled",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(rows, tables, bags=batch_size, tiles_per_bag=1, **options)
        found = read_tables(tables, self.rows["sample"])
        positive = dict(zip(self.rows["sample"], self.rows["label"].isin(list(positives)).tolist(), strict=True))
        drawn = draw_tiles(found, positive, how, np.random.default_rng(seed))
        tile = [drawn[sample] for sample in self.rows["sample"]]
        label = [found[sample]["label"].to_numpy()[drawn[sample]] for sample in self.rows["sample"]]
        if not sum(map(len, tile)):
            raise ValueError(f"none of the {len(self.rows)} slides has a labeled tile; look at their tables and annotations")
        repeated = self.rows.loc[np.repeat(np.arange(len(tile)), [len(t) for t in tile])].reset_index(drop=True)
        self.rows = repeated.assign(label=np.concatenate(label), tile=np.concatenate(tile))

    def _load(self, draws: Sequence[tuple[int, int]], slides: dict[str, Slide], shuffle: bool) -> Batch:
        if not draws:
            return Batch.empty()
        chosen = self.rows.iloc[[i for i, _ in draws]]
        images = [
            self._tile(row, int(row["tile"]), np.random.default_rng(seed), slides)
            for (_, row), (_, seed) in zip(chosen.iterrows(), draws, strict=True)
        ]
        return Batch(to_tensor(images), torch.tensor(chosen["label"].to_numpy(np.int64)), list(chosen["sample"]))
