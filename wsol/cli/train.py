"""`wsol train`: manifest and tiles become a localizer; the checkpoints asked for, a history and a record of what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol.cli.batch_picture import picture_batch
from wsol.cli.config import Model, Tile, Train, parse
from wsol.cli.embeddings import encoded, require_stored
from wsol.cli.files import write_json
from wsol.cli.parts import net_of, require_several, strategy_of, with_defects
from wsol.cli.supervision import Supervision, supervise
from wsol.cli.teacher import inherit
from wsol.cli.validation import validation
from wsol.cli.vectors import is_stored, stored_bags

if TYPE_CHECKING:
    import torch

    from wsol.data import BagBatches, Batch, ImageBatches, Manifest
    from wsol.models import Localizer
    from wsol.training import Criterion, Ranks, Strategy

FITTED = {
    "epochs", "lr", "head_lr_factor", "weight_decay", "warmup", "ema", "accumulate", "channels_last", "device",
}  # fmt: skip
"""Settings that go to `fit` as they are."""


def train(
    settings: dict[str, Any],
    *,
    manifest: Path,
    out: Path,
    fold: int,
    seed: int,
    tiles: Path | None,
    parents: list[Path],
    keep: list[str],
    threads: int,
    masks: Path | None = None,
    map_class: str = "positive",
) -> None:
    """Fit one localizer. A killed run goes on where it was: run the same command again.

    Args:
        settings: keys of `models.NAME`, with the full training settings under `train` and the tiles under `tile`.
        manifest: of `wsol prepare`.
        out: folder of the run.
        fold: of the split.
        seed: of the initial head, the order of samples, crops and jitter.
        tiles: folder of tile tables, for slide datasets.
        parents: checkpoints; the net starts from the weights of the first, and where it learns from maps, from those of all.
        keep: names of the checkpoints to write.
        threads: CPU threads.
        masks: of `wsol prepare`; of training samples they are opened only for a strategy that is supervised by masks,
            of validation samples only for checkpoints `masks-<n>`.
        map_class: whose map chooses epochs, as in `localize`.
    """
    import torch

    from wsol.data import read_manifest
    from wsol.models import save_checkpoint
    from wsol.tracking import file_hash, provenance
    from wsol.training import MASKED, bf16_pays, choose_device, clear_state, fit, keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    model, how = _parsed(settings, parents)
    ranks = _processes(how)
    listing = read_manifest(manifest)
    net = net_of(model, len(listing.classes), seed)
    teachers = _teachers(net, model, parents)
    told = supervise(listing, fold, model, "masks" if model.strategy in MASKED else "labels", masks, seed)
    drawn, fixed = _streams(listing, told, model, how, tiles, seed)
    strategy = strategy_of(model, how, teachers, _class_weights(how, drawn, len(listing.classes)))
    if listing.multilabel:
        require_several(net, strategy, model, map_class)
    criteria = _criteria(keep, strategy)
    learner, encoder = net, ""
    if is_stored(net):
        require_stored(net, model, how, criteria, ranks.count)
        drawn, fixed, encoder = stored_bags(net, drawn, fixed, tiles, model, how)
    elif how.embeddings != "none":
        learner, drawn, fixed, encoder = encoded(net, drawn, fixed, tiles, model, how, criteria, ranks.count)
    validate = validation(
        listing, fold, told, fixed, criteria,
        map_class=map_class, masks=masks, tiles=tiles, per_slide=4 * how.tiles_per_bag, side=how.validate_at,
    )  # fmt: skip
    inputs = {"manifest": manifest} | ({"masks": masks} if masks and (told.masks is not None or validate.opened) else {})
    batches = _shares(drawn, ranks)
    if ranks.first and not encoder:
        picture_batch(out / "batch.png", net, strategy, batches, listing.classes, seed)
    bf16 = bf16_pays(choose_device(how.device)) if how.bf16 == "auto" else how.bf16
    started = time.perf_counter()

    def save(name: str, _: Localizer, epoch: int, metrics: dict[str, float]) -> None:
        meta = {"epoch": epoch, "metrics": metrics, "classes": listing.classes, "settings": settings, "fold": fold, "seed": seed}
        meta |= {"positive": listing.positive, "task": listing.task}  # what a map of a new slide is of
        save_checkpoint(net, out / f"{name}.safetensors", meta)

    history = fit(
        learner, strategy, batches, steps=len(drawn), validate=validate, keep=criteria, save=save,
        **how.model_dump(include=FITTED), bf16=bf16, seed=seed, ranks=ranks,
        state_path=out / ".state", history_path=out / "history.csv",
        fingerprint={
            "settings": settings, "fold": fold, "parents": list(map(str, parents)), "map_class": map_class, "encoder": encoder,
            **{k: file_hash(path) for k, path in inputs.items()},
        },
    )  # fmt: skip
    seen = {"supervision": told.badge, "masks": told.count, **validate.record()}
    made = {"epochs": len(history), "bf16": bf16, "seconds": time.perf_counter() - started, "net": net.describe()}
    if ranks.first:
        facts = {"model": settings.get("name", ""), **seen, "settings": settings, **made}
        write_json(out / "run.json", {**facts, "provenance": provenance(settings, inputs=inputs, seed=seed)})
        clear_state(out / ".state")
    ranks.leave()


def _parsed(settings: dict[str, Any], parents: list[Path]) -> tuple[Model, Train]:
    """The settings of a run, checked."""
    from wsol.models import checkpoint_recipe

    model = parse(Model, {k: v for k, v in settings.items() if k not in ("train", "tile", "name")}, "settings")
    how = parse(Train, settings.get("train", {}), "settings.train")
    parse(Tile, settings.get("tile", {}), "settings.tile")
    told = [checkpoint_recipe(path)[1].get("settings", {}) for path in parents]
    return with_defects(model, [defect for one in told for defect in one.get("as_published", [])]), how


def _teachers(net: Localizer, model: Model, parents: list[Path]) -> list[Localizer]:
    """The models at `parents`; from now on the net has the weights of the first, unless it keeps a backbone of its own."""
    from wsol.models import load_checkpoint
    from wsol.training import UNTUNED

    teachers = [load_checkpoint(path) for path in parents]
    if teachers and model.strategy not in UNTUNED:
        inherit(net, teachers[0], str(parents[0]))
    return teachers


def _processes(how: Train) -> Ranks:
    """The processes that train together, as many as the settings say.

    Raises:
        ValueError: torchrun started another number of them.
    """
    from wsol.training import choose_device, join

    ranks = join(choose_device(how.device))
    if ranks.count != how.processes:
        raise ValueError(
            f"settings.train.processes is {how.processes}, but {ranks.count} run; start `torchrun --standalone --nproc-per-node "
            f"{how.processes} --no-python wsol train ...`, or set processes: {ranks.count}"
        )
    return ranks


def _shares(drawn: ImageBatches | BagBatches, ranks: Ranks) -> Callable[[int, torch.Generator], Iterable[Batch]]:
    """What `fit` trains on: of every batch the share of this process."""
    return lambda epoch, generator: drawn.epoch(generator, ranks.share)


def _class_weights(how: Train, drawn: ImageBatches | BagBatches, classes: int) -> list[float] | None:
    """Weights by which the loss balances the classes of what is drawn (slides without a tile are not), where it does."""
    from wsol.training import balanced_weights

    return balanced_weights(drawn.rows["label"].tolist(), classes) if how.balance == "loss" else None


def _criteria(keep: list[str], strategy: Strategy) -> dict[str, Criterion]:
    """Which epoch is kept under each name.

    A classifier that stays as it is says the same after every epoch, and what learns beside it learned most in the last.
    """
    from wsol.training import criterion

    found = {name: criterion(name) for name in keep}
    return {name: replace(one, later=one.later or strategy.needs_parent) for name, one in found.items()}


def _streams(
    listing: Manifest, told: Supervision, model: Model, how: Train, tiles: Path | None, seed: int
) -> tuple[ImageBatches | BagBatches, ImageBatches | BagBatches]:
    """Batches of training and of validation: images one by one, bags of tiles of slides, or tiles with labels of their own."""
    from wsol.data import BagBatches, ImageBatches, PixelCache, TileBatches, train_transform

    cache = PixelCache(how.cache_mb * 2**20)
    balanced, several = how.balance == "sampler", listing.multilabel
    drawn: ImageBatches | BagBatches
    fixed: ImageBatches | BagBatches
    if listing.kind == "slides":
        if tiles is None:
            raise ValueError("--tiles is needed: the folder of tile tables that `wsol tile` wrote for these slides")
        augment = train_transform(None, color=how.color_jitter, stain_jitter=how.stain_jitter)
        count: dict[str, Any] = {"transform": augment, "repeats": how.repeats, "balanced": balanced, "cache": cache}
        if model.tiles == "bags":
            bags = {"bags": how.batch_size, "tiles_per_bag": how.tiles_per_bag}
            drawn = BagBatches(told.rows, tiles, multilabel=several, **bags, **count)
        else:
            marked = [listing.classes.index(name) for name in listing.positive]
            drawn = TileBatches(
                told.rows, tiles, batch_size=how.batch_size, positives=marked, how=model.tiles, seed=seed, **count
            )
        fixed = BagBatches(told.checked, tiles, bags=1, tiles_per_bag=4 * how.tiles_per_bag, multilabel=several, cache=cache)
    else:
        augment = train_transform(how.crop, color=how.color_jitter, stain_jitter=how.stain_jitter)
        drawn = ImageBatches(
            told.rows,
            batch_size=how.batch_size,
            repeats=how.repeats,
            balanced=balanced,
            transform=augment,
            masks=told.masks,
            size=how.resize,
            multilabel=several,
            cache=cache,
        )
        fixed = ImageBatches(told.checked, batch_size=1, size=how.validate_at, multilabel=several, cache=cache)
    return drawn, fixed
