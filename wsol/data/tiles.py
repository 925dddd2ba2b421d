"""Rows of a manifest become batches: whole images, or bags of tiles sampled from slides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from wsol.data.batches import Batch, MaskedBatch
from wsol.data.feed import PixelCache, epoch_order, read_labels, seeds, shared, work_ahead
from wsol.data.pixels import image_shape, read_image
from wsol.data.tile_tables import agreed, read_tables
from wsol.data.transforms import Augmentation, Mask, Transform, to_tensor
from wsol.slides import Box, Slide, open_slide

if TYPE_CHECKING:
    import pandas as pd

    from wsol.data.masks import Masks

RGB = npt.NDArray[np.uint8]
_OPEN = 8
"""Slides held open at once."""


class ImageBatches:
    """Batches of images; each pass over it is one epoch.

    Every row is drawn, the last batch may be small. Images of one batch that differ in size come as several batches, one per
    size.

    Args:
        rows: of a manifest (columns sample, path, label).
        batch_size: images per batch.
        size: every image is resized to (size, size) first, as the survey does; None keeps sizes.
        transform: see `wsol.data.train_transform`; None leaves images as they are.
        generator: of the order and of the transforms; it moves on with each epoch. None: the order of the rows, the same draw
            every time.
        repeats: times each image is drawn per epoch.
        balanced: rarer classes are drawn as often as the most frequent one.
        cache: of decoded images; give one cache to several loaders to share it. None: one of its own of 1 GiB.
        ahead: batches prepared early in one background thread; 0: none.
        masks: supervision by masks: batches are `MaskedBatch`es. Every row must have one, and a transform must be able to take
            it along (`train_transform`).
        multilabel: the number of classes where a sample may have several (rows have a column `labels`); 0: each has one.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        *,
        batch_size: int,
        size: int | None = None,
        transform: Transform | None = None,
        generator: torch.Generator | None = None,
        repeats: int = 1,
        balanced: bool = False,
        cache: PixelCache | None = None,
        ahead: int = 2,
        masks: Masks | None = None,
        multilabel: int = 0,
    ) -> None:
        _positive(batch_size=batch_size, repeats=repeats, size=size)
        self.rows = _checked(rows)
        if masks is not None:
            _check_masks(self.rows, masks, transform)
        self.masks, self.multilabel = masks, multilabel
        self.batch_size, self.size, self.transform, self.generator = batch_size, size, transform, generator
        self.repeats, self.balanced, self.ahead = repeats, balanced, ahead
        self.cache = PixelCache() if cache is None else cache

    def __len__(self) -> int:
        """Batches per epoch when all images have one size."""
        return -(-len(_order(self, None)) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(self.generator)

    def epoch(self, generator: torch.Generator | None, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """One epoch drawn by `generator` instead of the loader's own; of each batch the `share` of one process (rank, count).

        Raises:
            ValueError: a share holds images of several sizes; one process can take them in batches, several would lose step.
        """
        order = _order(self, generator)
        draws = list(zip(order.tolist(), seeds(len(order), generator), strict=True))
        for batches in work_ahead([partial(self._load, part) for part in shared(draws, self.batch_size, share)], self.ahead):
            if len(batches) > 1 and share[1] > 1:
                sizes = [tuple(batch.images.shape[2:]) for batch in batches]
                raise ValueError(f"several processes need images of one size, got {sizes}; crop them, or train in one process")
            yield from batches or [Batch.empty()]

    def _load(self, draws: Sequence[tuple[int, int]]) -> list[Batch]:
        by_size: dict[tuple[int, ...], list[tuple[int, RGB, Mask | None]]] = {}
        for i, seed in draws:
            image, mask = self._drawn(i, np.random.default_rng(seed))
            by_size.setdefault(image.shape, []).append((i, image, mask))
        return [self._batch(found) for found in by_size.values()]

    def _drawn(self, i: int, rng: np.random.Generator) -> tuple[RGB, Mask | None]:
        path = self.rows["path"][i]
        image = self.cache.get((path, self.size), partial(self._read, path))
        if self.masks is None:
            return image if self.transform is None else self.transform(image, rng), None
        mask = self.cache.get((path, self.size, "mask"), partial(self._read_mask, i, path)).view(np.bool_)
        return self.transform.with_mask(image, mask, rng) if isinstance(self.transform, Augmentation) else (image, mask)

    def _read(self, path: str) -> RGB:
        image = read_image(path)
        return image if self.size is None else _resize(image, self.size)

    def _read_mask(self, i: int, path: str) -> npt.NDArray[np.uint8]:
        import cv2

        assert self.masks is not None
        mask = self.masks.open(self.rows["sample"][i], image_shape(path)).view(np.uint8)
        if self.size is None:
            return mask
        return np.asarray(cv2.resize(mask, (self.size, self.size), interpolation=cv2.INTER_NEAREST), np.uint8)

    def _batch(self, found: list[tuple[int, RGB, Mask | None]]) -> Batch:
        indices = [i for i, _, _ in found]
        labels = read_labels(self.rows, indices, self.multilabel)
        images, samples = to_tensor([image for _, image, _ in found]), [self.rows["sample"][i] for i in indices]
        masks = [mask for _, _, mask in found if mask is not None]
        if masks:
            return MaskedBatch(images, labels, samples, masks=torch.from_numpy(np.stack(masks)))
        return Batch(images, labels, samples)


class BagBatches:
    """Batches of bags: from each slide some tiles, the label on the bag; each pass over it is one epoch.

    Every slide that has tiles is drawn. Slides whose tile table is empty (no tissue) are left out with a warning; `empty` names
    them.

    Args:
        rows: of a manifest (columns sample, path, mpp, label).
        tables: the folder with `<sample>.parquet` as `wsol tile` writes them, or tables by sample (columns x, y, width, height in
            level-0 px).
        bags: slides per batch.
        tiles_per_bag: tiles drawn from each slide without replacement, or all if it has fewer.
        mpp: um per px of the tiles, to within the rounding of their sides; None: as the tables say.
        tile_px: side of a tile at `mpp`; None: as the tables say.
        transform: applied to each tile; see `wsol.data.train_transform(crop=None)`.
        generator: of the order, the tiles and the transforms. None: the order of the rows, tiles evenly spread over each table.
        repeats: times each slide is drawn per epoch, with other tiles.
        balanced: slides of rarer classes are drawn as often as those of the most frequent one.
        cache: of tile pixels; None: one of its own of 1 GiB.
        ahead: batches prepared early in one background thread; 0: none.
        multilabel: as for `ImageBatches`.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        tables: str | Path | Mapping[str, pd.DataFrame],
        *,
        bags: int,
        tiles_per_bag: int,
        mpp: float | None = None,
        tile_px: int | None = None,
        transform: Transform | None = None,
        generator: torch.Generator | None = None,
        repeats: int = 1,
        balanced: bool = False,
        cache: PixelCache | None = None,
        ahead: int = 2,
        multilabel: int = 0,
    ) -> None:
        _positive(bags=bags, tiles_per_bag=tiles_per_bag, repeats=repeats, tile_px=tile_px)
        rows = _checked(rows)
        found = read_tables(tables, rows["sample"])
        self.empty = [sample for sample, table in found.items() if table.empty]
        if len(self.empty) == len(rows):
            raise ValueError(f"none of {len(rows)} slides has a tile; look at the thumbnails and lower min_tissue")
        if self.empty:
            named = ", ".join(self.empty[:5])
            warnings.warn(
                f"{len(self.empty)} of {len(rows)} slides have no tile and are left out: {named}; their tile status says why",
                stacklevel=2,
            )
        self.rows = rows[~rows["sample"].isin(self.empty)].reset_index(drop=True)
        self.mpp = float(mpp if mpp is not None else agreed(found, "mpp"))
        self.tile_px = int(tile_px if tile_px is not None else agreed(found, "tile_px"))
        self.boxes = {s: table[["x", "y", "width", "height"]].to_numpy(np.int64) for s, table in found.items()}
        self.bags, self.tiles_per_bag, self.transform, self.generator = bags, tiles_per_bag, transform, generator
        self.repeats, self.balanced, self.ahead, self.multilabel = repeats, balanced, ahead, multilabel
        self.cache = PixelCache() if cache is None else cache

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(_order(self, None)) // self.bags)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(self.generator)

    def epoch(self, generator: torch.Generator | None, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """One epoch drawn by `generator` instead of the loader's own; of each batch the `share` of one process (rank, count)."""
        order = _order(self, generator)
        draws = list(zip(order.tolist(), seeds(len(order), generator), strict=True))
        parts = shared(draws, self.bags, share)
        slides: dict[str, Slide] = {}  # touched by the one thread that works ahead, and here when it is done
        try:
            yield from work_ahead([partial(self._load, part, slides, generator is not None) for part in parts], self.ahead)
        finally:
            for slide in slides.values():
                slide.close()

    def _load(self, draws: Sequence[tuple[int, int]], slides: dict[str, Slide], shuffle: bool) -> Batch:
        if not draws:
            return Batch.empty()
        images: list[Any] = []
        groups: list[int] = []
        for bag, (i, seed) in enumerate(draws):
            row, rng = self.rows.iloc[i], np.random.default_rng(seed)
            count = len(self.boxes[row["sample"]])
            drawn = min(self.tiles_per_bag, count)
            chosen = rng.permutation(count)[:drawn] if shuffle else (np.arange(drawn) * 2 + 1) * count // (2 * drawn)
            for tile in chosen.tolist():
                images.append(self._tile(row, tile, rng, slides))
                groups.append(bag)
        labels = read_labels(self.rows, [i for i, _ in draws], self.multilabel)
        return self._batch(images, labels, [self.rows["sample"][i] for i, _ in draws], torch.tensor(groups))

    def _tile(self, row: Any, tile: int, rng: np.random.Generator, slides: dict[str, Slide]) -> npt.NDArray[Any]:
        key = (row["path"], self.mpp, self.tile_px, *self.boxes[row["sample"]][tile].tolist())
        image = self.cache.get(key, partial(self._read, row, tile, slides))
        return image if self.transform is None else self.transform(image, rng)

    def _batch(self, tiles: list[Any], labels: torch.Tensor, samples: list[str], groups: torch.Tensor) -> Batch:
        return Batch(to_tensor(tiles), labels, samples, groups)

    def _read(self, row: Any, tile: int, slides: dict[str, Slide]) -> RGB:
        if row["path"] not in slides:
            if len(slides) >= _OPEN:
                slides.pop(next(iter(slides))).close()
            slides[row["path"]] = open_slide(row["path"], mpp=row["mpp"])
        slide, box = slides[row["path"]], Box(*self.boxes[row["sample"]][tile].tolist())
        # Sides are whole px of level 0, and may be aligned to stored tiles: to read at `mpp` itself would miss by a px or two.
        return _resize(slide.read(box, box.width * slide.mpp / self.tile_px), self.tile_px)


def _order(loader: ImageBatches | BagBatches, generator: torch.Generator | None) -> npt.NDArray[np.int64]:
    return epoch_order(loader.rows["label"].to_numpy(np.int64), generator, repeats=loader.repeats, balanced=loader.balanced)


def _checked(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        raise ValueError("no rows to load; the fold has no samples of this role")
    return rows.reset_index(drop=True)


def _check_masks(rows: pd.DataFrame, masks: Masks, transform: Transform | None) -> None:
    """Raise where a row has no mask, or where a transform would leave the mask behind."""
    if absent := [sample for sample in rows["sample"] if not masks.has(sample)]:
        raise ValueError(f"{len(absent)} of {len(rows)} samples have no mask, the first is {absent[0]!r}; leave them out")
    if not (transform is None or isinstance(transform, Augmentation)):
        raise TypeError("this transform changes the image and would leave its mask behind; use train_transform")


def _positive(**sizes: int | None) -> None:
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")


def _resize(image: RGB, side: int) -> RGB:
    import cv2

    if image.shape[:2] == (side, side):
        return image
    way = cv2.INTER_AREA if min(image.shape[:2]) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=way), np.uint8)
