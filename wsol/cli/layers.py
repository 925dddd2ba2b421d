"""Image, heat and mask of one sample at the size of a page, read when the report asks for them."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol.cli.plan import MAPS
from wsol.cli.scoring import Maps, Scale, score_surface

if TYPE_CHECKING:
    from wsol.data import Manifest, Masks
    from wsol.reporting import Layers

IMAGE_PX, SLIDE_PX = 640, 1600
"""Longest side of an image and of a slide on the page; heat and mask have half of it."""

Asked = Sequence[tuple[Mapping[str, Any], str]]


class Looker:
    """Layers of samples below a folder of results: pictures from the manifest, heat from the map files.

    Args:
        results: folder of the results.
        page: folder of the page, which paths of files at full resolution start from.
    """

    def __init__(self, results: Path, page: Path) -> None:
        self.results, self.page = results, page

    def __call__(self, asked: Asked, sample: str) -> Layers | None:
        """The layers of a sample; None where its manifest or its picture is no longer there, or cannot be read."""
        from wsol.reporting import Layers

        dataset = str(asked[0][0]["key"]["dataset"])
        seen = self._picture(dataset, sample)
        if seen is None:
            return None
        rgb, size, mpp = seen
        shape = (max(1, rgb.shape[0] // 2), max(1, rgb.shape[1] // 2))
        return Layers(
            image=rgb,
            heats=[self._heat(one, method, sample, shape) for one, method in asked],
            mask=self._mask(dataset, sample, size, shape),
            mpp=mpp,
            files=self._files(asked, sample),
        )

    def _picture(self, dataset: str, sample: str) -> tuple[npt.NDArray[np.uint8], tuple[int, int], float | None] | None:
        """RGB, (H, W) of the sample at level 0, and um per px of the RGB."""
        from wsol.slides import SlideError

        try:
            listing = self._listing(dataset)
            row = listing.sample(sample)
            return (_slide if listing.kind == "slides" else _image)(row)
        except (SlideError, OSError, ValueError, RuntimeError):
            return None

    def _heat(self, one: Mapping[str, Any], method: str, sample: str, shape: tuple[int, int]) -> npt.NDArray[np.float32] | None:
        """Scores of one map, NaN where nothing was drawn; None where its map file is no longer there."""
        from wsol.data import MapReader

        base = self.results / "localize" / MAPS.format(**one["key"]) / str(one["key"]["split"])
        try:
            path = Maps(base if base.is_dir() else Path(f"{base}.h5"), [sample]).file(sample)
            with MapReader(path) as reader:
                stored = reader.read(method, sample)
        except (OSError, ValueError, RuntimeError):
            return None
        surface = score_surface(stored, Scale(**one["methods"][method]["scale"]), shape, sample)
        everything = (0, shape[0]), (0, shape[1])
        score, covered = surface.read(*everything), surface.covered(*everything)
        return score if covered is None else np.where(covered, score, np.float32(np.nan))

    def _mask(self, dataset: str, sample: str, size: tuple[int, int], shape: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
        from wsol.slides import Box

        try:
            truth = self._masks(dataset)
            return truth.part(sample, size, Box(0, 0, size[1], size[0]), shape) if truth.has(sample) else None
        except (OSError, ValueError, RuntimeError):
            return None

    def _files(self, asked: Asked, sample: str) -> list[str]:
        """Paths from the page to the pyramids of the maps."""
        found = [(one["methods"][method]["samples"].get(sample) or {}).get("files") or {} for one, method in asked]
        return [os.path.relpath(files["ome_tiff"], self.page) for files in found if "ome_tiff" in files]

    @functools.cache  # noqa: B019 - one for a page
    def _listing(self, dataset: str) -> Manifest:
        from wsol.data import read_manifest

        return read_manifest(self.results / "prepare" / dataset / "manifest.parquet")

    @functools.cache  # noqa: B019
    def _masks(self, dataset: str) -> Masks:
        from wsol.data import read_masks

        return read_masks(self.results / "prepare" / dataset / "masks.parquet")


def _image(row: Any) -> tuple[npt.NDArray[np.uint8], tuple[int, int], float | None]:
    import cv2

    from wsol.data import read_image

    rgb = read_image(row.path)
    height, width = rgb.shape[:2]
    shrunk = min(1.0, IMAGE_PX / max(height, width))
    small = rgb if shrunk == 1 else cv2.resize(rgb, (round(width * shrunk), round(height * shrunk)), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), (height, width), float(row.mpp) / shrunk if row.mpp == row.mpp else None


def _slide(row: Any) -> tuple[npt.NDArray[np.uint8], tuple[int, int], float | None]:
    from wsol.slides import open_slide

    with open_slide(row.path, mpp=row.mpp if row.mpp == row.mpp else None) as slide:
        mpp = slide.mpp * max(1.0, max(slide.size) / SLIDE_PX)
        return slide.thumbnail(mpp), slide.size[::-1], mpp
