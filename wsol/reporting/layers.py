"""The pictures of one sample that lie on each other, and their way into a page whose size is bounded."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

SIDE = 720
"""Longest side in px of a picture that is read from a file."""


@dataclass(frozen=True, eq=False)
class Layers:
    """What lies on each other in one sample, all of the same field of view; sizes may differ.

    Attributes:
        image: uint8 (H, W, 3) RGB, as large as it is to be shown.
        heats: for each map that was asked for scores in [0, 1], float32 (h, w), NaN where nothing was drawn; None: no map.
        mask: bool (h, w), or None: the sample has none.
        mpp: um per px of `image`, None where unknown.
        files: where its files at full resolution lie.
    """

    image: npt.NDArray[np.uint8]
    heats: Sequence[npt.NDArray[np.float32] | None]
    mask: npt.NDArray[np.bool_] | None = None
    mpp: float | None = None
    files: Sequence[str] = ()


Look = Callable[[Sequence[tuple[Mapping[str, Any], str]], str], Layers | None]
"""(content of a scores.json, method) of each map, and a sample -> its layers; None where its picture cannot be had."""


@dataclass
class Album:
    """How many pictures a page may hold, and who has them.

    Attributes:
        look: gives the layers of a sample; None: there are only the overlays that `wsol heatmap` drew.
        pictures: samples of each split that are shown.
        budget: characters that all pictures of the page may still take; below 0 no further sample is shown.
    """

    look: Look | None = None
    pictures: int = 48
    budget: int = 24_000_000

    def spend(self, *uris: str) -> bool:
        """Takes pictures off the budget, unless they are more than is left."""
        cost = sum(map(len, uris))
        if cost > self.budget:
            self.budget = -1
            return False
        self.budget -= cost
        return True


def data_uri(path: str | Path, side: int = SIDE, quality: int = 82) -> str:
    """A picture file, made smaller than `side` px, as a JPEG ``data:`` URI.

    Raises:
        FileNotFoundError: no such file.
    """
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        return _encoded(small, "JPEG", quality=quality, optimize=True)


def image_uri(rgb: npt.NDArray[np.uint8], quality: int = 78) -> str:
    """RGB (H, W, 3) as JPEG."""
    from PIL import Image

    return _encoded(Image.fromarray(rgb), "JPEG", quality=quality, optimize=True)


def heat_uri(score: npt.NDArray[np.float32], quality: int = 85) -> str:
    """Scores in [0, 1], (h, w), as a gray WebP (255 is 1), transparent where they are NaN.

    WebP loses up to some steps of 255: good to look at, not to compute with.
    """
    import numpy as np
    from PIL import Image

    drawn = np.isfinite(score)
    gray = np.round(np.where(drawn, score, 0) * 255).astype(np.uint8)
    picture = Image.fromarray(gray).convert("RGB")
    if not drawn.all():
        picture.putalpha(Image.fromarray(drawn.astype(np.uint8) * 255))
    return _encoded(picture, "WEBP", quality=quality, method=4)


def mask_uri(mask: npt.NDArray[np.bool_]) -> str:
    """A mask (h, w) as a PNG of one bit per px."""
    from PIL import Image

    return _encoded(Image.fromarray(mask), "PNG", optimize=True)


def _encoded(picture: Image, kind: str, **how: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
