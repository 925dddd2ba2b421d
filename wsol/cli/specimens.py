"""What a probe looks at: a few images, or tiles of a few slides, chosen by a seed, spread over labels and patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.localize import pad_to_cells

if TYPE_CHECKING:
    import pandas as pd

    from wsol.data import Manifest, Masks

CELL = 32
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Specimen:
    """One image to be probed.

    Attributes:
        name: of the sample, with the corner of the tile where it is one.
        patient: or the slide where no patient is known.
        label: index of the class.
        window: x, y, width, height of the image or tile whose middle it is, in px of level 0.
        image: float32 (3, H, W), RGB in [0, 1], H and W multiples of 32.
        mask: bool (H, W), or None: not opened, or the sample has none.
    """

    name: str
    patient: str
    label: int
    window: tuple[int, int, int, int]
    image: npt.NDArray[np.float32]
    mask: Bool | None


def specimens(
    listing: Manifest, *, split: str, fold: int, samples: int, size: int, seed: int, tiles: Path | None, truth: Masks | None
) -> list[Specimen]:
    """Up to `samples` images of a split, or tiles of its slides.

    At their own resolution, for a classifier knows one scale: the middle `size` px of an image or tile, less where it is smaller.

    Args:
        listing: the manifest.
        split: role.
        fold: fold.
        samples: how many.
        size: largest side in px, cut to a multiple of 32.
        seed: which; the choice does not depend on the order of the manifest.
        tiles: folder of tile tables; needed for slides.
        truth: opens masks where given.

    Raises:
        ValueError: an empty split, slides without `tiles`, or no tissue on any slide.
    """
    rows = listing.rows(fold, split)
    if rows.empty:
        raise ValueError(f"{listing.path}: no samples in split {split!r} of fold {fold}; probe another split")
    if listing.kind == "images":
        chosen = deal(spread(rows, seed), lambda row: [None], samples)
        return [_image(row, size, truth) for row, _ in chosen]
    if tiles is None:
        raise ValueError("slides are probed tile by tile: give --tiles, the folder of their tile tables (`wsol tile`)")
    tables: dict[str, pd.DataFrame] = {}

    def boxes(row: Any) -> list[Any]:
        import pandas as pd

        path = tiles / f"{row.sample}.parquet"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no tile table of slide {row.sample!r}; run `wsol tile` for it")
        tables[row.sample] = pd.read_parquet(path)
        found = list(tables[row.sample].itertuples(index=False))
        return [found[i] for i in _generator(seed, row.sample).permutation(len(found))]

    chosen = deal(spread(rows, seed), boxes, samples)
    if not chosen:
        raise ValueError(
            f"no tissue tile on any of the {len(rows)} slides of split {split!r}; look at the status files of `wsol tile`"
        )
    return [_tile(row, box, tables[row.sample].attrs, size, truth) for row, box in chosen]


def spread(rows: pd.DataFrame, seed: int) -> list[Any]:
    """The rows in a random order that takes turns between labels, and within a label between patients."""
    drawn = sorted(rows.itertuples(index=False), key=lambda row: _generator(seed, str(row.sample)).random())
    turns: dict[Any, int] = {}

    def turn(what: Any) -> int:
        turns[what] = turns.get(what, -1) + 1
        return turns[what]

    by_patient = sorted([(turn((row.label, _patient(row))), row) for row in drawn], key=lambda pair: pair[0])
    by_label = sorted([(turn(row.label), row) for _, row in by_patient], key=lambda pair: (pair[0], pair[1].label))
    return [row for _, row in by_label]


def deal(rows: Sequence[Any], parts: Callable[[Any], list[Any]], count: int) -> list[tuple[Any, Any]]:
    """Up to `count` pairs of a row and one of its parts: the first part of every row, then the second, ..."""
    hands: dict[str, list[Any]] = {}
    found: list[tuple[Any, Any]] = []
    for turn in range(count):
        for row in rows:
            if len(found) == count:
                return found
            hand = hands[row.sample] if row.sample in hands else hands.setdefault(row.sample, parts(row))
            if turn < len(hand):
                found.append((row, hand[turn]))
        if all(len(hand) <= turn + 1 for hand in hands.values()):
            break
    return found


def _image(row: Any, size: int, truth: Masks | None) -> Specimen:
    from wsol.data import read_image

    rgb = read_image(row.path)
    mask = truth.open(row.sample, shape=rgb.shape[:2]) if truth is not None and truth.has(row.sample) else None
    return _specimen(row, row.sample, (0, 0, rgb.shape[1], rgb.shape[0]), rgb, mask, size)


def _tile(row: Any, box: Any, attrs: Mapping[Any, Any], size: int, truth: Masks | None) -> Specimen:
    """The middle of a tile, at the resolution of the tiling; a mask is resized to it."""
    from wsol.slides import Box, open_slide

    window = Box(int(box.x), int(box.y), int(box.width), int(box.height))
    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        rgb = slide.read(window, float(attrs["mpp"]))
        shape = slide.size[::-1]
    mask = None
    if truth is not None and truth.has(row.sample):
        mask = truth.part(row.sample, shape, window, (rgb.shape[0], rgb.shape[1]))
    return _specimen(
        row, f"{row.sample}@{window.x},{window.y}", (window.x, window.y, window.width, window.height), rgb, mask, size
    )


def _specimen(
    row: Any, name: str, window: tuple[int, int, int, int], rgb: npt.NDArray[np.uint8], mask: Bool | None, size: int
) -> Specimen:
    top, left, height, width = _middle(rgb.shape[:2], size)
    cut = np.s_[top : top + height, left : left + width]
    image = pad_to_cells(rgb[cut], CELL).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    if mask is not None:
        mask = np.pad(mask[cut], ((0, -height % CELL), (0, -width % CELL)), mode="reflect")
    return Specimen(name, _patient(row), int(row.label), window, image, mask)


def _middle(shape: tuple[int, ...], size: int) -> tuple[int, int, int, int]:
    """Top, left, height, width of the middle `size` px, whole cells unless the image is smaller than one."""
    height, width = (min(side, max(CELL, min(side, size) // CELL * CELL)) for side in shape)
    return (shape[0] - height) // 2, (shape[1] - width) // 2, height, width


def _patient(row: Any) -> str:
    return str(row.patient or row.slide)


def _generator(seed: int, name: str) -> np.random.Generator:
    """Randomness of one sample, whatever the others are."""
    return np.random.default_rng([seed, *name.encode()])
