"""`wsol probe`: what happens to the class when the pixels a map points at are taken away, and to the map when weights are.

Beside the methods stand two controls, edges of the image and the first principal component of the features. They must fail the
sanity checks; where they are as faithful as a method, its numbers say nothing for it.
"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol._names import closest, resolve
from wsol.cli.files import write_json
from wsol.cli.probing import CONTROLS, POINTING, Probed, check_names, measure, summary, win_rates
from wsol.cli.progress import progress
from wsol.cli.specimens import specimens

if TYPE_CHECKING:
    import torch

    from wsol.models import Localizer
    from wsol.robustness import SanityCurve

SIMILARITIES = ("spearman", "absolute", "ssim", "hog")
FILLS = ("mean", "blur", "normalized-zero")


def probe(
    settings: dict[str, Any],
    *,
    model: Path,
    manifest: Path,
    masks: Path | None,
    key: dict[str, Any],
    out: Path,
    shuffled: Path | None = None,
    tiles: Path | None = None,
    threads: int = 1,
) -> None:
    """Probe every method of one map set on a few samples of a split; write one JSON.

    Args:
        settings: `methods`, `map_class`, `device`, and those of the section `probe`.
        model: the checkpoint.
        manifest: of the dataset.
        masks: opened for the pointing games alone.
        key: what it is about; its `split`, `fold` and `seed` choose the samples; the seed also randomizes weights and ties.
        out: the JSON.
        shuffled: checkpoint of the same kind of net, trained on shuffled labels.
        tiles: folder of tile tables, for slides.
        threads: of tensor work.

    Raises:
        ValueError: an unknown metric or order, a metric that needs masks without them, no samples.
    """
    import torch

    from wsol.data import read_manifest, read_masks
    from wsol.models import load_checkpoint
    from wsol.robustness import ORDERS
    from wsol.tracking import provenance

    torch.set_num_threads(threads)
    names, seed = list(settings.get("faithfulness", [])), int(key["seed"])
    check_names(names, masks is not None)
    orders = {o: resolve("order of randomization", o, ORDERS, "wsol.robustness") for o in settings.get("sanity", [])}
    listing = read_manifest(manifest)
    truth = read_masks(masks) if masks is not None and set(POINTING) & set(names) else None
    chosen = specimens(
        listing, split=key["split"], fold=int(key["fold"]), samples=int(settings.get("samples", 8)),
        size=int(settings.get("size", 224)), seed=seed, tiles=tiles, truth=truth,
    )  # fmt: skip
    net = load_checkpoint(model).eval().to(_device(settings.get("device", "auto")))
    probed = Probed.of(net, chosen, settings["methods"], settings.get("map_class", "positive"), listing.positive_index())
    work = [(name, i) for name in probed.maps for i in range(len(chosen))]
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in probed.maps}
    for name, i in progress(work if names else [], "probe: pixels"):
        generator = np.random.default_rng([seed, i])  # the same ties and noise for every method
        measured[name].append(measure(names, probed, name, i, fill=_fill(settings, probed), generator=generator))
    curves = {o: _randomized(o, randomize, probed, settings, seed) for o, randomize in orders.items()}
    labels = _shuffled(load_checkpoint(shuffled).eval().to(probed.device), probed) if shuffled else {}
    found = {
        "key": key,
        "settings": settings,
        "classes": listing.classes,
        "scale": "per-image min-max",
        **_entries(names, measured, curves, labels, probed, seed),
        "samples": probed.rows(),
        "masks_opened": sum(truth.kind(s) == "file" for s in truth.opened) if truth is not None else 0,
        "provenance": provenance(
            settings, inputs={"manifest": manifest, "model": model, **({"shuffled": shuffled} if shuffled else {})}, seed=seed
        ),
    }
    write_json(out, found)


def _entries(
    names: list[str],
    measured: dict[str, list[dict[str, Any]]],
    curves: dict[str, dict[str, SanityCurve]],
    labels: dict[str, SanityCurve],
    probed: Probed,
    seed: int,
) -> dict[str, Any]:
    """What is said about methods, and apart from them about the controls."""
    methods = [name for name in probed.maps if name not in CONTROLS]
    rates = win_rates(names, {name: measured[name] for name in methods})
    faithful = {name: summary(names, measured[name], probed.patients, rates.get(name, {}), seed) for name in probed.maps}
    sane = {name: {order: _plain(curve[name]) for order, curve in curves.items()} for name in probed.maps}
    return {
        "methods": {
            name: {
                "faithfulness": faithful[name],
                "sanity": {**sane[name], **({"labels": _plain(labels[name], single=True)} if labels else {})},
            }
            for name in methods
        },
        "controls": {name: sane[name] for name in CONTROLS},
        "control_faithfulness": {name: faithful[name] for name in CONTROLS},
        "win_rate": {name: {rival: float(np.nanmean(won)) if np.isfinite(won).any() else None for rival, won in of.items()}
                     for name, of in rates.items()},
    }  # fmt: skip


def _randomized(name: str, randomize: Any, probed: Probed, settings: dict[str, Any], seed: int) -> dict[str, SanityCurve]:
    """Method or control -> its curve over the blocks of the net; maps of one randomized net are drawn together."""
    import torch

    from wsol.models import build_localizer
    from wsol.robustness import blocks, sanity_curve

    def fresh(generator: torch.Generator) -> Localizer:
        return build_localizer(**(probed.net.recipe or {}), weights=None, generator=generator)

    steps = []
    # Not the seed of the run itself: its net would come back as it was before training, and a tuned head lies close to that.
    start = int(np.random.SeedSequence([seed, *b"sanity"]).generate_state(1)[0])
    nets = randomize(probed.net, torch.Generator().manual_seed(start), fresh=fresh)
    for _ in progress(blocks(probed.net), f"probe: weights, {name}"):
        block, net = next(nets)
        steps.append((block, probed.redrawn(net, follow=bool(settings.get("follow_prediction", False)))))
    return {one: sanity_curve(itemgetter(one), steps, probed.maps[one]) for one in probed.maps}


def _shuffled(other: Localizer, probed: Probed) -> dict[str, SanityCurve]:
    """Maps of a net trained on shuffled labels beside those of the net, of the same classes."""
    from wsol.robustness import compare_maps

    maps = probed.redrawn(other)
    return {name: compare_maps(maps[name], probed.maps[name], "labels") for name in probed.maps}


def _plain(curve: SanityCurve, *, single: bool = False) -> dict[str, Any]:
    """A curve for the file: medians over the samples at each block; one number each where there is a single step."""
    medians = {name: curve.medians(name).tolist() for name in SIMILARITIES}
    return {
        "blocks": list(curve.blocks),
        **({name: values[0] for name, values in medians.items()} if single else medians),
        "undefined": curve.undefined,
        "verdict": curve.verdict,
    }


def _fill(settings: dict[str, Any], probed: Probed) -> Any:
    """What deleted pixels become."""
    name = settings.get("fill", "mean")
    if name not in FILLS:
        raise ValueError(closest("fill", name, FILLS))
    return probed.zero() if name == "normalized-zero" else name


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
