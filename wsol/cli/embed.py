"""`wsol embed`: the features of the tiles of one slide, in a file that other tools read too."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def embed(
    *,
    manifest: Path,
    slide: str,
    tiles: Path,
    out: Path,
    backbone: str = "efficientnet_lite0",
    weights: str = "imagenet",
    model: Path | None = None,
    output_stride: int = 32,
    device: str = "auto",
    threads: int = 1,
) -> str:
    """Write what a backbone makes of every tile of a slide: the mean over the cells of its last stage.

    Tiles are read as in training, and encoded in float32.

    Args:
        manifest: of `wsol prepare`.
        slide: its name there.
        tiles: its table, of `wsol tile`.
        out: the file (see `wsol.slides.vectors`).
        backbone: its name.
        weights: "imagenet", or a file with its state dict.
        model: a checkpoint whose backbone is taken instead.
        output_stride: of the backbone; that of the checkpoint where one is given.
        device: "auto", "cpu" or "cuda[:n]".
        threads: CPU threads.

    Returns:
        What was written, in words.

    Raises:
        ValueError: the slide has no tiles, or the net reads features itself.
    """
    import pandas as pd
    import torch

    from wsol.data import BagBatches, encoded_tiles, read_manifest
    from wsol.models import build_localizer, load_checkpoint
    from wsol.slides import open_slide, write_vectors
    from wsol.training import choose_device, weights_hash

    torch.set_num_threads(threads)
    rows = read_manifest(manifest).samples
    rows = rows[rows["sample"] == slide].head(1)
    table = pd.read_parquet(tiles)
    if rows.empty or table.empty:
        raise ValueError(f"slide {slide!r}: {'not in ' + str(manifest) if rows.empty else 'no tiles in ' + str(tiles)}")
    if model is None:
        net = build_localizer(backbone, "gap", 2, weights=weights, output_stride=output_stride)
    else:
        net = load_checkpoint(model)
    if net.backbone.inputs != 3:
        raise ValueError(f"{net.describe()['backbone']} reads features, not images; take a backbone that reads images")
    net = net.eval().to(choose_device(device))
    name = f"{net.describe()['backbone']}:{weights_hash(net.backbone)[:12]}"
    bags = BagBatches(rows, {slide: table}, bags=1, tiles_per_bag=1)
    with open_slide(rows["path"].iloc[0], mpp=rows["mpp"].iloc[0]) as opened:
        level0_mpp = opened.mpp
    coords, side = bags.boxes[slide][:, :2], int(bags.boxes[slide][0, 2])
    known: dict[str, Any] = {"tile_px": bags.tile_px, "side": side, "mpp": side * level0_mpp / bags.tile_px}

    @torch.inference_mode()
    def encode(images: torch.Tensor) -> torch.Tensor:
        return net.encode(images.to(next(net.parameters()).device)).last.mean((2, 3))

    write_vectors(out, encoded_tiles(bags, 0, encode), coords, **known, level0_mpp=level0_mpp, encoder=name, name=slide)
    return f"{len(coords)} tiles of {net.backbone.channels[-1]} numbers by {name}"
