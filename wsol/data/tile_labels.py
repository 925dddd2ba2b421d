"""Labels of single tiles, from annotations by area, and the named ways to draw tiles to train on from all that are labeled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsol._names import closest

if TYPE_CHECKING:
    import pandas as pd

    from wsol.slides import AnnotatedRegion

UNLABELED = -1
"""Label of a tile that is neither: of a positive slide, with too little foreground."""

DRAWS = ("labeled", "camelyon16-survey", "camelyon16-survey-released")
"""Ways to draw tiles: all labeled ones; as the survey says; as its released code does."""

Draw = dict[str, npt.NDArray[np.int64]]


def label_tiles(
    table: pd.DataFrame, region: AnnotatedRegion | None, *, label: int, positive: bool, least: float = 0.2
) -> pd.DataFrame:
    """The table with columns `foreground` (share of the tile's area that is annotated) and `label` (int64).

    CAMELYON16's rule as the survey has it (Rony et al., MELBA 2023): a tile of a positive slide has the slide's label from a
    share of `least` on, and none (`UNLABELED`) below; tiles without foreground come from slides of other classes only, so that
    what an annotator overlooked is not taught as normal.

    Args:
        table: columns x, y, width, height in level-0 px.
        region: what is annotated on the slide; None: it is known that nothing is.
        label: of the slide.
        positive: whether this is a class that the annotations mark.
        least: share of the area, in (0, 1].

    Raises:
        ValueError: a positive slide without a region, or `least` outside (0, 1].
    """
    if not 0 < least <= 1:
        raise ValueError(f"least is a share of a tile's area in (0, 1]; got {least}")
    if positive and region is None:
        raise ValueError("a positive slide needs its annotation: without it no tile of it has a label; leave the slide out")
    corners = table[["x", "y"]].to_numpy(np.int64).reshape(-1, 2)
    shares = np.zeros(len(table))
    if region is not None and len(table):
        shares = region.shares(corners, int(table["width"].iloc[0]))
    labels = np.where(shares >= least - 1e-9, label, UNLABELED) if positive else np.full(len(table), label)
    out = table.assign(foreground=shares, label=labels.astype(np.int64))
    out.attrs = dict(table.attrs)
    return out


def draw_tiles(
    tables: Mapping[str, pd.DataFrame], positives: Mapping[str, bool], how: str, generator: np.random.Generator
) -> Draw:
    """Which tiles of each slide are trained on, as indices into its table, ascending.

    "labeled" takes all that have a label. The other two are the survey's CAMELYON16 sampling: of positive slides all tiles with a
    foreground of up to 0.5, and few of those above; as many tiles of normal slides, an equal share of each, at random without
    repetition, what one slide lacks taken from the next. "Few" is 1 % of the former in ten bins of foreground
    ("camelyon16-survey", as it is documented), or what a loop without its `break` makes of it, some 65 %
    ("camelyon16-survey-released": each draw of a bin keeps up to 100 of its tiles). Restated from the documentation and from
    counts of the released lists; tiles lie on a grid here, and do not creep along the border of the tumor px by px.

    Args:
        tables: by slide, with the columns of `label_tiles`.
        positives: by slide, whether it is positive.
        how: of `DRAWS`.
        generator: of the draw.

    Raises:
        ValueError: tables without labels, or an unknown way.
    """
    if how not in DRAWS:
        raise ValueError(closest("draw of tiles", how, DRAWS))
    for name, table in tables.items():
        if "label" not in table.columns:
            raise ValueError(f"the tile table of slide {name!r} has no labels; set tile.labels: annotation and tile it again")
    labeled = {name: np.flatnonzero(table["label"].to_numpy() != UNLABELED) for name, table in tables.items()}
    if how == "labeled":
        return labeled
    kept = _metastatic(tables, {n: i for n, i in labeled.items() if positives[n]}, how.endswith("released"), generator)
    wanted = sum(map(len, kept.values()))
    return kept | _normal({n: i for n, i in labeled.items() if not positives[n]}, wanted, generator)


def _metastatic(tables: Mapping[str, pd.DataFrame], labeled: Draw, released: bool, generator: np.random.Generator) -> Draw:
    """All tiles up to half full, and few of the fuller ones."""
    where = [(name, int(i)) for name, indices in labeled.items() for i in indices]
    share = np.array([tables[name]["foreground"].iloc[i] for name, i in where])
    chosen = set(np.flatnonzero(share <= 0.5).tolist())
    few = len(chosen) // 100
    bins: dict[int, list[int]] = {}
    for i in np.flatnonzero(share > 0.5).tolist():
        bins.setdefault(min(int((share[i] - 0.5) / 0.05), 9), []).append(i)
    for _ in range(few):
        left = sorted(bins if released else (b for b, held in bins.items() if not chosen.issuperset(held)))
        if not left:
            break
        held = bins[left[generator.integers(len(left))]]
        if released:
            chosen.update(held[k] for k in generator.integers(len(held), size=100))
        else:
            rest = [i for i in held if i not in chosen]
            chosen.add(rest[generator.integers(len(rest))])
    found: dict[str, list[int]] = {name: [] for name in labeled}
    for i in sorted(chosen):
        found[where[i][0]].append(where[i][1])
    return {name: np.array(indices, np.int64) for name, indices in found.items()}


def _normal(labeled: Draw, wanted: int, generator: np.random.Generator) -> Draw:
    """`wanted` tiles, an equal share of each slide; what a slide lacks is asked of those after it, then of the first again."""
    order = {name: generator.permutation(indices) for name, indices in labeled.items()}
    taken = dict.fromkeys(order, 0)
    wanted = min(wanted, sum(map(len, order.values())))
    while (missing := wanted - sum(taken.values())) > 0:
        for place, name in enumerate(order):
            ask = -(-missing // (len(order) - place))
            more = min(ask, len(order[name]) - taken[name])
            taken[name], missing = taken[name] + more, missing - more
    return {name: np.sort(indices[: taken[name]]).astype(np.int64) for name, indices in order.items()}
