"""`train.embeddings`: a frozen backbone sees every tile once, the head trains on what it made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wsol.cli.config import Model, Train
from wsol.cli.progress import progress

if TYPE_CHECKING:
    import torch

    from wsol.data import BagBatches, EncodedBags, ImageBatches
    from wsol.models import Encoded, Localizer
    from wsol.training import Criterion

_STRATEGIES = ("classify", "inherit")
"""Those that ask for nothing but features: no pixels to hide or mix, no layers below the last to erase."""


def require_stored(net: Localizer, model: Model, how: Train, criteria: Mapping[str, Criterion], processes: int) -> None:
    """Raises ValueError where a training needs more than stored features of the last stage."""
    chosen = [name for name, c in criteria.items() if c.masks or c.source == "label-free"]
    where = f"train.embeddings: {how.embeddings}" if how.embeddings != "none" else f"backbone: {model.backbone}"
    refusals = {
        f"strategy {model.strategy!r} needs pixels; take one of {', '.join(_STRATEGIES)}": model.strategy not in _STRATEGIES,
        f"head {model.head!r} reads every stage, and only the last is stored": net.head.reads != "last",
        f"head {model.head!r} reads single cells; set embeddings: cells": how.embeddings == "tiles" and not net.head.affine,
        f"checkpoints {chosen} look at maps of pixels; keep b-cl or last": bool(chosen),
        "one process is enough for a head; set processes: 1": processes > 1,
    }
    for why, holds in refusals.items():
        if holds:
            raise ValueError(f"{where}: {why}")


def encoded(
    net: Localizer,
    drawn: ImageBatches | BagBatches,
    fixed: ImageBatches | BagBatches,
    tiles: Path | None,
    model: Model,
    how: Train,
    criteria: Mapping[str, Criterion],
    processes: int,
) -> tuple[Encoded, EncodedBags, EncodedBags, str]:
    """What trains in place of the net and its batches, and the name of the encoder. Slides that lack a file are encoded.

    The files are in `embeddings` below the folder of tile tables: models, folds and seeds with one encoder share them, and they
    may be deleted at any time. The backbone computes in float32 and evaluation mode, whatever `bf16` says.

    Raises:
        ValueError: images, or a head, strategy or checkpoint that needs more than features of the last stage.
    """
    import torch

    from wsol.data import BagBatches, EncodedBags, store_embeddings
    from wsol.models import Encoded
    from wsol.tracking import code_version, config_hash, file_hash
    from wsol.training import choose_device, weights_hash

    if tiles is None or not (isinstance(drawn, BagBatches) and isinstance(fixed, BagBatches)):
        raise ValueError("train.embeddings: images are drawn as fresh crops; only tiles of slides can be encoded once")
    require_stored(net, model, how, criteria, processes)
    folder, device = tiles / "embeddings", choose_device(how.device)
    recipe = net.recipe or {}
    facts = {"backbone": recipe["backbone"], "output_stride": recipe["output_stride"], "code": code_version()}
    encoder = config_hash({**facts, "weights": weights_hash(net.backbone), "per": how.embeddings})
    net.eval().to(device)

    @torch.inference_mode()
    def encode(images: torch.Tensor) -> torch.Tensor:
        last = net.encode(images.to(device)).last
        return last.mean((2, 3), keepdim=True) if how.embeddings == "tiles" else last

    def stored(bags: BagBatches) -> EncodedBags:
        files = {
            bags.rows["sample"][i]: store_embeddings(bags, i, encode, folder, encoder=encoder, content=file_hash)
            for i in progress(list(range(len(bags.rows))), "encode tiles")
        }
        return EncodedBags(bags, files)

    return Encoded(net), stored(drawn), stored(fixed), encoder
