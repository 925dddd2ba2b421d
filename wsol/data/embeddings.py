"""What a frozen backbone made of every tile of a slide, once, on disk; and bags drawn from there instead of from pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch

from wsol._files import atomic
from wsol.data.batches import EncodedBatch
from wsol.data.tiles import _OPEN, BagBatches
from wsol.data.transforms import to_tensor
from wsol.slides import read_vectors

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
        with atomic(path) as temporary:
            _write(temporary, bags, number, encode, batch)
    return path


def _write(path: Path, bags: BagBatches, number: int, encode: Encode, batch: int) -> None:
    count, done = len(bags.boxes[bags.rows["sample"][number]]), 0
    with h5py.File(path, "w") as file:
        for made in encoded_tiles(bags, number, encode, batch):
            if not done:
                file.create_dataset("features", (count, *made.shape[1:]), np.float32, chunks=(1, *made.shape[1:]))
            file["features"][done : done + len(made)] = made
            done += len(made)


def encoded_tiles(bags: BagBatches, number: int, encode: Encode, batch: int = 16) -> Iterator[npt.NDArray[np.float32]]:
    """Features (b, c, h, w) of all tiles of one slide, in the order of its table, `batch` at a time; arguments as above."""
    row = bags.rows.iloc[number]
    slides: dict[str, Any] = {}
    count = len(bags.boxes[row["sample"]])
    try:
        for start in range(0, count, batch):
            tiles = range(start, min(start + batch, count))
            yield encode(to_tensor([bags._read(row, tile, slides) for tile in tiles])).float().cpu().numpy()
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
        return np.asarray(self._features(row["sample"], opened)[tile])

    def _features(self, sample: str, opened: dict[str, Any]) -> Any:
        """The dataset of a slide; few files are open at once."""
        if sample not in opened:
            if len(opened) >= _OPEN:
                opened.pop(next(iter(opened))).close()
            opened[sample] = h5py.File(self.files[sample], "r")
        return opened[sample]["features"]

    def _batch(self, tiles: list[Any], labels: torch.Tensor, samples: list[str], groups: torch.Tensor) -> EncodedBatch:
        return EncodedBatch(torch.from_numpy(np.stack(tiles)), labels, samples, groups)


class VectorBags(EncodedBags):
    """The bags of `bags` as features that somebody else made (`wsol.slides.read_vectors`), one vector (d, 1, 1) per tile.

    Args:
        bags: which slides and tiles are drawn; the tiles of a table are those of its file, in its order.
        files: of features, by sample.
        width: numbers per tile.

    Raises:
        ValueError: a file has vectors of another width, or of another number of tiles.
        SlideError: a file is missing or damaged.
    """

    def __init__(self, bags: BagBatches, files: Mapping[str, Path], width: int) -> None:
        super().__init__(bags, files)
        samples = list(bags.rows["sample"].unique())
        wanted = {sample: (len(bags.boxes[sample]), width) for sample in samples}
        found = {sample: (len(one.coords), one.width) for sample in samples for one in [read_vectors(files[sample])]}
        if odd := [sample for sample in samples if found[sample] != wanted[sample]]:
            told = [
                f"{files[s]} ({wanted[s][0]} tiles of {width} numbers expected, got {found[s][0]} of {found[s][1]})" for s in odd
            ]
            widths = sorted({found[sample][1] for sample in odd} - {width})
            remedy = (
                f"set backbone: stored:{widths[0]} if all are to be so, or make these anew"
                if widths
                else "they were made anew since"
            )
            raise ValueError(
                f"{len(odd)} of {len(samples)} files of features do not fit: {'; '.join(told[:10])}: {remedy}, and run "
                "`wsol tile` again"
            )

    def _tile(self, row: Any, tile: int, rng: np.random.Generator, opened: dict[str, Any]) -> npt.NDArray[np.float32]:
        stored = self._features(row["sample"], opened)
        vector = np.asarray(stored[0, tile] if stored.ndim == 3 else stored[tile], np.float32)
        if not np.isfinite(vector).all():
            raise ValueError(f"{self.files[row['sample']]}: the features of tile {tile} are not finite; make the file anew")
        return vector[:, None, None]
