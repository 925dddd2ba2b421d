"""What a frozen backbone made of every tile of a slide, once, on disk; and bags drawn from there instead of from pixels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch

from wsol.data.batches import EncodedBatch
from wsol.data.tiles import _OPEN, BagBatches
from wsol.data.transforms import to_tensor

Encode = Callable[[torch.Tensor], torch.Tensor]
"""Images (b, 3, H, W) in [0, 1] -> features (b, c, h, w)."""
_FORMAT = 1


def store_embeddings(
    bags: BagBatches, number: int, encode: Encode, folder: Path, *, encoder: str, content: Callable[[str], str], batch: int = 16
) -> Path:
    """The file with the features of all tiles of one slide: float32 `features` (tiles, c, h, w), in the order of its table.

    Its name is a hash of all that the features depend on, so a file that is there is right and is taken as it is, and another
    encoder, tiling or slide makes another file. Tiles are read as `bags` reads them, without its transform, `batch` at a time.

    Args:
        bags: knows slide and tiles.
        number: of the slide, a row of `bags.rows`.
        encode: from images to features, without a graph.
        folder: of the files.
        encoder: names `encode` and the weights behind it, never two of them alike.
        content: path of a slide -> a hash of what is in it.
        batch: tiles encoded at a time.
    """
    row = bags.rows.iloc[number]
    boxes = bags.boxes[row["sample"]]
    facts = [_FORMAT, encoder, content(row["path"]), str(float(row["mpp"])), bags.mpp, bags.tile_px, boxes.tolist()]
    path = folder / f"{hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()}.h5"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.stem}.{os.getpid()}.part")
        try:
            _write(beside, bags, row, len(boxes), encode, batch)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    return path


def _write(path: Path, bags: BagBatches, row: Any, count: int, encode: Encode, batch: int) -> None:
    slides: dict[str, Any] = {}
    try:
        with h5py.File(path, "w") as file:
            for start in range(0, count, batch):
                tiles = range(start, min(start + batch, count))
                made = encode(to_tensor([bags._read(row, tile, slides) for tile in tiles])).float().cpu().numpy()
                if start == 0:
                    file.create_dataset("features", (count, *made.shape[1:]), np.float32, chunks=(1, *made.shape[1:]))
                file["features"][start : start + len(made)] = made
    finally:
        for slide in slides.values():
            slide.close()


class EncodedBags(BagBatches):
    """The bags of `bags` by the same draws (slides, tiles, order), as `EncodedBatch`es of stored features.

    No tile is augmented: there are no pixels. One tile is in memory at a time, beside the batches worked out ahead.

    Args:
        bags: which slides and tiles are drawn, how many and how often.
        files: of `store_embeddings`, by sample.
    """

    def __init__(self, bags: BagBatches, files: Mapping[str, Path]) -> None:
        vars(self).update(vars(bags))
        self.files = dict(files)

    def _tile(self, row: Any, tile: int, rng: np.random.Generator, opened: dict[str, Any]) -> npt.NDArray[np.float32]:
        sample = row["sample"]
        if sample not in opened:
            if len(opened) >= _OPEN:
                opened.pop(next(iter(opened))).close()
            opened[sample] = h5py.File(self.files[sample], "r")
        return np.asarray(opened[sample]["features"][tile])

    def _batch(self, tiles: list[Any], labels: torch.Tensor, samples: list[str], groups: torch.Tensor) -> EncodedBatch:
        return EncodedBatch(torch.from_numpy(np.stack(tiles)), labels, samples, groups)
