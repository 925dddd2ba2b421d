"""What a training may look at: which samples, and their masks only where the strategy is declared to learn from masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsol.cli.config import Model

if TYPE_CHECKING:
    import pandas as pd

    from wsol.data import Manifest, Masks


@dataclass(frozen=True)
class Supervision:
    """The samples of one training, and what it is told of them.

    Attributes:
        rows: samples that are trained on.
        checked: validation samples, none of which is trained on.
        masks: of `rows`; None where training sees labels only.
        badge: what training was told, for the record of the run.
        count: mask files that training opens.
    """

    rows: pd.DataFrame
    checked: pd.DataFrame
    masks: Masks | None
    badge: str
    count: int


def supervise(listing: Manifest, fold: int, model: Model, kind: str, masks: Path | None, seed: int) -> Supervision:
    """The supervision of one training.

    Args:
        listing: the manifest.
        fold: of the split.
        model: its `train_on` is the role whose samples are trained on.
        kind: `supervision` of the strategy, "labels" or "masks".
        masks: the table of masks, opened for "masks" only.
        seed: of shuffled labels.

    Raises:
        ValueError: labels of one class only; or for "masks" no table, slides, shuffled labels, or no mask file.
    """
    from wsol.data import require_two_classes
    from wsol.training import INHERITED

    rows, checked = listing.rows(fold, model.train_on), listing.rows(fold, "valcl")
    checked = checked[~checked["sample"].isin(rows["sample"])].reset_index(drop=True)  # valpx lies within valcl
    if kind == "masks":
        return _masked(listing, rows, checked, model, masks)
    require_two_classes(rows)
    badge = f"{listing.kind.removesuffix('s')} label"
    if model.strategy in INHERITED and listing.kind == "images":
        raise ValueError(f"strategy {model.strategy!r} gives tiles the label of their slide; for images take classify")
    if model.tiles != "bags":
        return Supervision(rows, checked, None, "tile label from annotation", 0)
    if not model.shuffle_labels:
        return Supervision(rows, checked, None, badge + " (inherited by tiles)" * (model.strategy in INHERITED), 0)
    return Supervision(shuffled(rows, seed), checked, None, f"shuffled {badge}", 0)


def _masked(listing: Manifest, rows: pd.DataFrame, checked: pd.DataFrame, model: Model, masks: Path | None) -> Supervision:
    from wsol.data import read_masks

    who = f"strategy {model.strategy!r} learns from masks"
    if masks is None:
        raise ValueError(f"{who}: --masks is needed, the mask table that `wsol prepare` wrote")
    if listing.kind == "slides":
        raise ValueError(f"{who}, which are read for images only; export regions of the slides as images with masks")
    if model.shuffle_labels:
        raise ValueError(f"{who}; shuffle_labels would shuffle nothing that counts: take a strategy that learns from labels")
    truth = read_masks(masks)
    kept = rows[rows["sample"].isin(truth.samples)].reset_index(drop=True)
    count = sum(truth.kind(sample) == "file" for sample in kept["sample"])
    if not count:
        raise ValueError(
            f"{who}, but none of {len(rows)} samples of role {model.train_on!r} has a mask file in {masks}; set train_on to a "
            "role that has some (train, valpx)"
        )
    return Supervision(kept, checked, truth, f"masks ({count})", count)


def shuffled(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same samples with their labels dealt out at random: the control of Adebayo et al. (2018). Class counts stay."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.assign(**{name: rows[name].to_numpy()[order] for name in ("label", "labels")})
