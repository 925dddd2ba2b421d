"""What the maps look like: telling samples first, then others from best to worst, their layers to be switched by the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsol.reporting.export import percent
from wsol.reporting.gallery import Found, evenly, found, ranked, telling
from wsol.reporting.layers import Layers, data_uri, heat_uri, image_uri, mask_uri
from wsol.reporting.part import Part
from wsol.reporting.svg import MAX_LINES
from wsol.reporting.table import Row

PAGE = 12
"""Samples that are shown at once."""


def section(part: Part) -> dict[str, Any] | None:
    """Cards of samples, from best to worst by the best map, and what a reader may lay over them."""
    if not part.best:
        return None
    rows = _rows(part)
    places = [found(row) for row in rows]
    order = ranked(part.best[0])
    ranks = _ranks(part)
    cards: dict[str, dict[str, Any]] = {}
    unseen = 0
    for sample in _wanted(order, list(ranks), part.album.pictures):
        if part.album.budget < 0:
            break
        card = _card(part, rows, [place.get(sample) for place in places], sample)
        if card is None:
            unseen += 1
        elif part.album.spend(card["image"], card["mask"], *filter(None, card["heats"])):
            cards[sample] = card | {"ranks": ranks.get(sample, [])}
    if not cards:
        return None
    shown = sorted(cards.values(), key=lambda card: order.index(card["sample"]))
    return {
        "cards": shown,
        "page": PAGE,
        "maps": [{"method": r.method, "model": "floor" if r.floor else f"{r.model} ({r.checkpoint})"} for r in rows],
        "layered": any(card["heats"] for card in shown),
        "words": _words(part, rows, len(shown), len(order), unseen),
        "data": [{k: v for k, v in card.items() if k not in ("image", "caption")} for card in shown],
    }


def _rows(part: Part) -> list[Row]:
    """The maps that can be laid over an image, best first: up to eight, the best of each model among them; the best stain map."""
    others = [row for row in part.trained if not any(row is one for one in part.best)]
    chosen = [*part.best, *others][:MAX_LINES]
    return [row for row in part.table if any(row is one for one in chosen)] + ([part.stain] if part.stain else [])


def _ranks(part: Part) -> dict[str, list[str]]:
    """Sample -> why it is telling, for the best map of each model."""
    ranks: dict[str, list[str]] = {}
    for row in part.best:
        for name, sample in telling(row).items():
            ranks.setdefault(sample, []).append(name if len(part.best) == 1 else f"{name} of {row.model}")
    return ranks


def _wanted(order: Sequence[str], first: Sequence[str], count: int) -> list[str]:
    """The telling samples, then others evenly from best to worst, until there are `count`."""
    known = set(order)
    chosen = [s for s in first if s in known][:count]
    rest = [s for s in order if s not in set(chosen)]
    return chosen + (evenly(rest, count - len(chosen)) if count > len(chosen) else [])


def _card(part: Part, rows: Sequence[Row], values: Sequence[Found | None], sample: str) -> dict[str, Any] | None:
    """One sample; None where no picture of it can be had."""
    known = [one for one in values if one is not None]
    asked = [(one.one, row.method) for one, row in zip(values, rows, strict=True) if one is not None]
    layers = part.album.look(asked, sample) if part.album.look else None
    pictures = _overlay(part, known) if layers is None else _layered(layers, values)
    if pictures is None:
        return None
    return {
        "sample": sample,
        "label": str(known[0].values.get("label", "")),
        "patient": str(known[0].values.get("patient") or ""),
        "run": f"fold {known[0].one['key']['fold']}, seed {known[0].one['key']['seed']}",
        "numbers": [_numbers(one) for one in values],
        "caption": caption(_numbers(known[0])),
        **pictures,
    }


def _overlay(part: Part, known: Sequence[Found]) -> dict[str, Any] | None:
    """The overlay of the best map that has one, where there are no layers."""
    drawn = next((one.values["overlay"] for one in known if one.values.get("overlay")), None)
    if drawn is None or not Path(part.root, drawn).is_file():
        return None
    return {"image": data_uri(part.root / drawn), "heats": [], "mask": "", "mpp": None, "files": []}


def _layered(layers: Layers, values: Sequence[Found | None]) -> dict[str, Any]:
    heats = iter(layers.heats)
    drawn = [next(heats) if one is not None else None for one in values]
    return {
        "image": image_uri(layers.image),
        "heats": [None if heat is None else heat_uri(heat) for heat in drawn],
        "mask": "" if layers.mask is None else mask_uri(layers.mask),
        "mpp": layers.mpp,
        "files": list(layers.files),
    }


def _numbers(one: Found | None) -> dict[str, Any] | None:
    """What the caption says of one map of one sample; fractions."""
    if one is None:
        return None
    rates = {name: one.values.get(name) for name in ("dice", "pxap", "flagged_area")}
    return {**rates, "threshold": one.threshold}


def _words(part: Part, rows: Sequence[Row], shown: int, total: int, unseen: int) -> list[str]:
    """What is shown and what is left out, openly."""
    said = [
        f"{shown} of {total} samples{': all of them' if shown == total else ''}, from the best Dice to the worst by "
        f"{part.best[0].name}, then those without foreground."
    ]
    if shown < total:
        said.append("The best, the median and the worst of each model are among them; the others are spread evenly.")
    if len(part.trained) > len([r for r in rows if not r.floor]):
        said.append(f"Of {len(part.trained)} maps the {len([r for r in rows if not r.floor])} best can be shown.")
    if part.album.budget < 0:
        said.append("More pictures would make this page too large.")
    if unseen:
        said.append(f"Of {unseen} more no picture could be read.")
    return said


def colors() -> str:
    """The 256 colors of heat, six hex digits each: viridis, which is told apart without red and green too."""
    from matplotlib import colormaps

    return "".join("".join(f"{v:02x}" for v in color[:3]) for color in colormaps["viridis"](range(256), bytes=True))


def caption(numbers: Mapping[str, Any] | None) -> str:
    """The numbers of a map in words, as long as nobody has moved anything."""
    if numbers is None:
        return ""
    if numbers["dice"] is None:
        return f"flagged area {percent(numbers['flagged_area'] or 0.0)}"
    return f"Dice {percent(numbers['dice'])}" + (f" · PxAP {percent(numbers['pxap'])}" if numbers["pxap"] is not None else "")
