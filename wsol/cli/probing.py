"""The measurements of a probe: raw maps of all methods and of the controls, and what a classifier says about one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsol._names import closest
from wsol.cli.localize import draw
from wsol.cli.specimens import Specimen

if TYPE_CHECKING:
    import torch

    from wsol.models import Localizer

Map = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

CONTROLS = ("edges", "principal-component")
"""Maps that must fail the sanity checks; of the first nothing depends on the net, of the second nothing on its head."""

POINTING = ("pointing-game", "energy-pointing-game")
RANGES: dict[str, tuple[str, float, float]] = {
    "insertion": ("higher", 0, 1),
    "deletion": ("lower", 0, 1),
    "road": ("higher", -0.5, 0.5),
    "average-drop": ("lower", 0, 1),
    "average-increase": ("higher", 0, 1),
    "win-rate": ("higher", 0, 1),
    "adcc": ("higher", 0, 1),
    "saliency-metric": ("lower", -np.inf, np.inf),
    "pointing-game": ("higher", 0, 1),
    "energy-pointing-game": ("higher", 0, 1),
}
"""What can be asked for: which way is better, and the range of the number."""

STEPS, BATCH = 32, 16
SALIENCY_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Probed:
    """A trained net before its samples.

    Attributes:
        net: in evaluation mode.
        specimens: n images.
        methods: of the map set, with id, method and options.
        targets: class of each map, (n,); that of the trained net also where weights are randomized.
        probabilities: of the trained net, n times (k,).
        maps: raw, signed maps of the trained net by id, controls last.
    """

    net: Localizer
    specimens: Sequence[Specimen]
    methods: Sequence[dict[str, Any]]
    targets: Sequence[int]
    probabilities: Sequence[Map]
    maps: dict[str, list[Map]]

    @classmethod
    def of(
        cls, net: Localizer, specimens: Sequence[Specimen], methods: Sequence[dict[str, Any]], map_class: str, positive: int
    ) -> Probed:
        """Ask the net about every image, and draw its maps: of the positive class, the predicted, or the true one."""
        if taken := {m["id"] for m in methods} & set(CONTROLS):
            raise ValueError(f"{sorted(taken)} are names of controls; give the maps of this set other ids")
        asked = [classify(net, s.image[None])[0] for s in specimens]
        of_class = {"positive": lambda s, p: positive, "predicted": lambda s, p: int(p.argmax()), "truth": lambda s, p: s.label}
        if map_class not in of_class:
            raise ValueError(closest("map_class", map_class, of_class))
        targets = [of_class[map_class](s, p) for s, p in zip(specimens, asked, strict=True)]
        return cls(net, specimens, methods, targets, asked, draw_maps(net, [s.image for s in specimens], targets, methods))

    @property
    def device(self) -> torch.device:
        """Of the net."""
        return next(self.net.parameters()).device

    @property
    def patients(self) -> list[str]:
        """The patient of each specimen."""
        return [s.patient for s in self.specimens]

    def redrawn(self, net: Localizer, *, follow: bool = False) -> dict[str, list[Map]]:
        """The maps of another net of the same kind: of the same classes, or `follow`ing what it predicts."""
        targets: list[int | None] = [None if follow else t for t in self.targets]
        return draw_maps(net, [s.image for s in self.specimens], targets, self.methods)

    def score(self, name: str, raw: Map, size: tuple[int, int]) -> Map:
        """A raw map as a score (H, W) in [0, 1]: rectified where its method is, resized, min-max."""
        from wsol.cams import drawer, finish

        made = next((m for m in self.methods if m["id"] == name), None)
        relu = bool(made and drawer(made["method"], made.get("options", {})).rectified)
        return finish(raw, size, relu=relu, normalize="minmax")

    def zero(self) -> Map:
        """The color that is 0 in the net's normalized space, (3,), cut to [0, 1]."""
        import torch

        pair = torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)]).to(self.device)
        black, white = self.net.backbone.normalize(pair)[:, :, 0, 0].cpu().numpy()
        return np.clip(-black / (white - black), 0, 1)

    def rows(self) -> list[dict[str, Any]]:
        """What was probed, for the file."""
        return [
            {"sample": s.name, "patient": s.patient, "label": s.label, "window": list(s.window), "size": list(s.image.shape[1:]),
             "target": t, "probability": float(p[t])}
            for s, t, p in zip(self.specimens, self.targets, self.probabilities, strict=True)
        ]  # fmt: skip


def classify(net: Localizer, images: Map) -> Map:
    """Softmax of the logits: float32 (n, 3, H, W) in [0, 1] -> (n, k)."""
    import torch

    with torch.inference_mode():
        return np.asarray(torch.softmax(net(_tensor(net, images)).logits.float(), 1).cpu().numpy())


def draw_maps(
    net: Localizer, images: Sequence[Map], targets: Sequence[int | None], methods: Sequence[dict[str, Any]]
) -> dict[str, list[Map]]:
    """Raw, signed maps by id, one per image; of the controls too."""
    import torch

    from wsol.robustness import edge_maps, principal_maps

    found: dict[str, list[Map]] = {name: [] for name in (*(m["id"] for m in methods), *CONTROLS)}
    for image, target in zip(images, targets, strict=True):
        tensor = _tensor(net, image[None])
        maps = draw(net, tensor, target, list(methods))[0] if methods else {}
        for name, one in maps.items():
            found[name].append(one[0].cpu().numpy())
        with torch.inference_mode():
            found["principal-component"].append(principal_maps(net.encode(tensor).last.float().cpu().numpy())[0])
        found["edges"].append(edge_maps(image[None])[0])
    return found


def _tensor(net: Localizer, images: Map) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images, np.float32)).to(next(net.parameters()).device)


def check_names(names: Sequence[str], masks: bool) -> None:
    """Raises ValueError for an unknown metric, or one that needs masks without any."""
    for name in names:
        if name not in RANGES:
            raise ValueError(closest("metric of faithfulness", name, RANGES))
        if name in POINTING and not masks:
            raise ValueError(f"{name} asks whether a map points at the mask: give --masks, or leave it out of probe.faithfulness")


def measure(
    names: Sequence[str], probed: Probed, name: str, index: int, *, fill: Any, generator: np.random.Generator
) -> dict[str, Any]:
    """All that is asked of one map of one specimen: metric -> number; under "curves" and "parts" what lies behind some of them.

    Args:
        names: keys of `RANGES`.
        probed: the net and its maps.
        name: of the method or control.
        index: of the specimen.
        fill: of deleted pixels; insertion starts from the blurred image whatever it is.
        generator: order of equal scores, noise of ROAD.
    """
    from wsol import evaluation as ev

    specimen, target = probed.specimens[index], probed.targets[index]
    image, mask = specimen.image, specimen.mask
    score = probed.score(name, probed.maps[name][index], (image.shape[1], image.shape[2]))
    ask = partial(classify, probed.net)
    found: dict[str, Any] = {}
    curves: dict[str, tuple[Any, Any]] = {}
    if "insertion" in names:
        put = ev.insertion(ask, image, score, target, steps=STEPS, batch=BATCH, generator=generator)
        found["insertion"], curves["insertion"] = put.auc, (put.fractions, put.probabilities)
    if "deletion" in names:
        cut = ev.deletion(ask, image, score, target, fill=fill, steps=STEPS, batch=BATCH, generator=generator)
        found["deletion"], curves["deletion"] = cut.auc, (cut.fractions, cut.probabilities)
    if "road" in names:
        road = ev.road(ask, image, score, target, batch=BATCH, generator=generator)
        found["road"] = road.value
        curves |= {"road-morf": (road.fractions, road.morf), "road-lerf": (road.fractions, road.lerf)}
    if "saliency-metric" in names:
        crops = ev.saliency_metric(ask, image, score, target, batch=BATCH)
        found["saliency-metric"] = crops.values[crops.thresholds == SALIENCY_THRESHOLD][0]
        curves["saliency-metric"] = (crops.thresholds, crops.values)
    if {"average-drop", "average-increase", "win-rate", "adcc"} & set(names):
        found |= _kept(names, probed, name, index, score, fill)
    if mask is not None:
        games = {"pointing-game": ev.pointing_game, "energy-pointing-game": ev.energy_pointing_game}
        found |= {game: play(score, mask) for game, play in games.items() if game in names}
    return {**found, "curves": curves}


def _kept(names: Sequence[str], probed: Probed, name: str, index: int, score: Map, fill: Any) -> dict[str, Any]:
    """The metrics that look at what a map keeps of its image."""
    from wsol import evaluation as ev

    image, target = probed.specimens[index].image, probed.targets[index]
    masked = ev.masked_image(image, score, fill)
    full, kept = np.asarray(classify(probed.net, np.stack([image, masked])), np.float64)[:, target]
    found: dict[str, Any] = {
        "average-drop": float(ev.drops([full], [kept])[0]),
        "average-increase": ev.average_increase([full], [kept]),
    }
    if "adcc" in names:
        again = draw_maps(probed.net, [masked], [target], [m for m in probed.methods if m["id"] == name])[name][0]
        parts = ev.adcc(score, probed.score(name, again, (image.shape[1], image.shape[2])), full, kept)
        found |= {
            "adcc": parts.value,
            "parts": {"coherency": parts.coherency, "complexity": parts.complexity, "drop": parts.drop},
        }
    return found


def win_rates(names: Sequence[str], measured: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Floats]]:
    """Method -> rival -> for each specimen whether it drops strictly less, (n,) of 0 and 1, NaN where a drop is undefined."""
    if "win-rate" not in names:
        return {}
    lost = {name: np.array([one["average-drop"] for one in rows]) for name, rows in measured.items()}
    undefined = {name: np.isnan(values) for name, values in lost.items()}
    return {a: {b: np.where(undefined[a] | undefined[b], np.nan, lost[a] < lost[b]) for b in lost if b != a} for a in lost}


def summary(
    names: Sequence[str], rows: list[dict[str, Any]], patients: Sequence[str], won: dict[str, Floats], seed: int
) -> dict[str, Any]:
    """Metric -> mean, 95 percent interval by patient (Student's t of clusters, for there are few) and number of samples.

    Of metrics that are a curve, its mean too, and of ADCC its parts. The win rate is the mean over specimens of the share of
    rivals that drop more.
    """
    found: dict[str, Any] = {}
    for name in names:
        if name == "win-rate":
            values = _defined_mean(np.stack(list(won.values()))) if won else np.full(len(rows), np.nan)
        else:
            values = np.array([one.get(name, np.nan) for one in rows], np.float64)
        found[name] = _mean(values, patients, RANGES[name], seed)
        curves = {c: rows[0]["curves"][c][0] for c in rows[0]["curves"] if c.startswith(name)}
        if curves:
            found[name]["curves"] = {c: _mean_curve(x, [one["curves"][c] for one in rows]) for c, x in curves.items()}
        if name == "adcc":
            found[name]["parts"] = {
                part: _mean(np.array([one["parts"][part] for one in rows]), patients, ("", 0, 1), seed)
                for part in ("coherency", "complexity", "drop")
            }
    return found


def _mean(values: Floats, patients: Sequence[str], of: tuple[str, float, float], seed: int) -> dict[str, Any]:
    from wsol.evaluation import bootstrap, ratio

    defined = ~np.isnan(values)
    better, *ends = of
    if not defined.any():
        return {"value": None, "interval": [None, None], "samples": 0, "better": better}
    table = np.column_stack([values[defined], np.ones(int(defined.sum()))])
    clusters = [p for p, there in zip(patients, defined, strict=True) if there]
    generator = np.random.default_rng(seed)
    interval = bootstrap(table, clusters, ratio, generator=generator, kind="t", within=(ends[0], ends[1]))
    return {
        "value": float(values[defined].mean()), "interval": interval.ends, "samples": int(defined.sum()), "better": better,
    }  # fmt: skip


def _mean_curve(at: Floats, curves: list[tuple[Floats, Floats]]) -> dict[str, list[float]]:
    """Mean of curves at the places of the first; images of another size have theirs a pixel beside."""
    table = np.stack([np.interp(at, x, y) for x, y in curves])
    return {"x": at.tolist(), "y": _defined_mean(table).tolist()}


def _defined_mean(table: Floats) -> Floats:
    """Mean over the rows, undefined entries left out; NaN where a column has none."""
    there = ~np.isnan(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there, table, 0).sum(axis=0) / there.sum(axis=0)
