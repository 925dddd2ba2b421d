"""Do maps say what the network does: class score without the pixels they point at, and maps of networks that know nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsol.reporting.cells import EMPTY, Cell, Column, Grid, Line, cell
from wsol.reporting.part import Part
from wsol.reporting.svg import INK, MARKS, MAX_LINES, SERIES, inline, panels, style
from wsol.reporting.table import over

HIGHER, LOWER = "↑", "↓"
METRICS = {
    "insertion": (HIGHER, "Area under the class score while pixels are put back, most important first"),
    "deletion": (LOWER, "Area under the class score while pixels are taken away, most important first"),
    "average-drop": (LOWER, "Mean loss of class score when only the marked part is shown"),
    "average-increase": (HIGHER, "Share of images whose class score rises when only the marked part is shown"),
    "win-rate": (HIGHER, "Share of comparisons with other maps that lose less class score"),
    "adcc": (HIGHER, "Harmonic mean of coherency, small area and kept class score"),
    "pointing-game": (HIGHER, "Share of images whose highest point lies on the mask"),
    "energy-pointing-game": (HIGHER, "Share of the map's sum that lies on the mask"),
    "saliency-metric": (LOWER, "log(area of the tightest box) − log(class score in it), as it is"),
    "road": (HIGHER, "Class score lost with the most important pixels minus that with the least important ones, imputed"),
}
"""Metric -> (which way is better, what it says). Names as in the probe file; an unknown one has no direction."""

PLAIN = {"saliency-metric"}
"""Metrics that are no share and stand as they are."""

SHUFFLED = "labels"
"""Name of the check whose other network was trained on shuffled labels; all others randomize weights block by block."""


def section(part: Part) -> dict[str, Any] | None:
    """For each probed checkpoint: faithfulness, curves over randomized blocks, verdicts."""
    found = [_probe(probe, f"{part.id}-probe-{i}", part) for i, probe in enumerate(part.probes)]
    return {"probes": found} if found else None


def _probe(probe: Mapping[str, Any], name: str, part: Part) -> dict[str, Any]:
    key = probe["key"]
    kinds = list(dict.fromkeys(k for m in probe["methods"].values() for k in m.get("sanity") or {} if k != SHUFFLED))
    return {
        "name": f"{key['model']} ({key['checkpoint']})",
        "place": f"fold {key['fold']}, seed {key['seed']}, {len(probe.get('samples') or [])} images of split {key['split']}",
        "grid": _faithful(probe["methods"]),
        "figure": sanity_figure(probe, kinds, name, part.palette.methods),
        "verdicts": _verdicts(probe, kinds),
        "similar": _similar(probe, kinds),
        "shuffled": _shuffled(probe["methods"]),
    }


def _faithful(methods: Mapping[str, Any]) -> Grid | None:
    names = list(dict.fromkeys(k for m in methods.values() for k in m.get("faithfulness") or {}))
    if not names:
        return None
    columns = []
    for metric in names:
        arrow, words = METRICS.get(metric, ("", ""))
        better = {HIGHER: " Higher is better.", LOWER: " Lower is better."}.get(arrow, "")
        columns.append(Column(f"{metric} {arrow}".strip(), f"{words}.{better}" if words else ""))
    lines = [
        Line(method, "", [_value((facts.get("faithfulness") or {}).get(k), k) for k in names])
        for method, facts in methods.items()
    ]
    used = max(
        (int(one.get("samples") or 0) for m in methods.values() for one in (m.get("faithfulness") or {}).values()), default=0
    )
    caption = f"Percent (the saliency metric as it is), {used} images; below it the 95 % interval by patient. "
    return Grid(
        columns,
        lines,
        caption + f"{HIGHER} higher is better, {LOWER} lower is better. No mask is needed but for the pointing games.",
    )


def _value(one: Mapping[str, Any] | None, metric: str) -> Cell:
    return cell(over([one or {}], "value", "interval"), "plain" if metric in PLAIN else "percent")


def sanity_figure(probe: Mapping[str, Any], kinds: Sequence[str], name: str, methods: Sequence[str]) -> str:
    """Similarity (Spearman) to the trained network's map over randomized blocks, a panel for each kind; controls are dashed.

    Args:
        probe: content of a probe.json.
        kinds: of randomization, as named in it.
        name: of the figure within the page.
        methods: who has which color.
    """
    if not kinds:
        return ""
    lines = [(m, f.get("sanity") or {}, False) for m, f in list(probe["methods"].items())[:MAX_LINES]]
    lines += [(c, f, True) for c, f in (probe.get("controls") or {}).items()]
    with style():
        figure, axes = panels(len(kinds), height=3.4)
        for ax, kind in zip(axes, kinds, strict=True):
            blocks: list[str] = []
            for i, (method, sanity, control) in enumerate(lines):
                if kind not in sanity:
                    continue
                blocks = blocks or [str(b) for b in sanity[kind]["blocks"]]
                values = [float("nan") if v is None else float(v) for v in sanity[kind]["spearman"]]
                at = (list(methods).index(method) if method in methods else i) % MAX_LINES
                look: dict[str, Any] = {"color": SERIES[at], "marker": MARKS[at], "markersize": 5}
                if control:
                    look = {"color": INK, "dashes": (4, 3) if i % 2 else (1.5, 2), "linewidth": 1.2}
                ax.plot(range(len(values)), values, label=f"control: {method}" if control else method, **look)
            ax.set_xticks(range(len(blocks)), blocks, rotation=35 if max(map(len, blocks), default=0) > 7 else 0)
            ax.set(ylim=(min(-0.05, ax.get_ylim()[0]), 1.05), title=kind, ylabel="Similarity (Spearman)" if ax is axes[0] else "")
            ax.set_xlabel("randomized so far, logits first" if kind == "cascading" else "randomized block")
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
        return inline(figure, name, f"Similarity over randomized blocks of {', '.join(m for m, _, _ in lines)}")


def _verdicts(probe: Mapping[str, Any], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Method or control -> the verdict of each check."""
    lines = [(m, f.get("sanity") or {}, False) for m, f in probe["methods"].items()]
    lines += [(c, f, True) for c, f in (probe.get("controls") or {}).items()]
    found = []
    for name, sanity, control in lines:
        verdicts = [(kind, sanity[kind].get("verdict")) for kind in (*kinds, SHUFFLED) if kind in sanity]
        chips = [{"title": kind, "value": v, "mark": _mark(v, control), "words": _words(v, control)} for kind, v in verdicts if v]
        if chips:
            found.append({"name": f"control: {name}" if control else name, "chips": chips})
    return found


def _mark(verdict: str, control: bool) -> str:
    """Class of the chip: methods have to pass, controls have to fail; anything else asks for care."""
    if control:
        return "" if verdict == "fails" else "careful"
    return {"passes": "good", "fails": "bad"}.get(verdict, "careful")


def _words(verdict: str, control: bool) -> str:
    if verdict not in ("passes", "fails"):
        return "no step can be compared: the maps are constant"
    if control:
        return (
            "a control has to fail: it does not know the model" if verdict == "fails" else "a control passes: the check is blind"
        )
    return "the map changes with the model" if verdict == "passes" else "the map stays similar although the model knows nothing"


def _similar(probe: Mapping[str, Any], kinds: Sequence[str]) -> Grid | None:
    """Similarities of the last step of each kind: everything randomized, or the last block alone."""
    measures = ("spearman", "ssim", "hog")
    columns = [Column(f"{kind}, {m}", "of the last step") for kind in kinds for m in measures]
    columns += [Column("Undefined", "Maps that are constant, so that nothing can be compared")]
    lines = []
    for method, facts in probe["methods"].items():
        sanity = facts.get("sanity") or {}
        cells = [_last(sanity.get(kind), m) for kind in kinds for m in measures]
        undefined = sum(int(sanity[k].get("undefined") or 0) for k in kinds if k in sanity)
        lines.append(Line(method, "", [*cells, Cell(str(undefined), sort=str(undefined))]))
    title = "Similarities after the last step"
    return (
        Grid(columns, lines, "Similarity to the map of the trained network; 1 is the same map.", title=title)
        if kinds and lines
        else None
    )


def _last(sanity: Mapping[str, Any] | None, measure: str) -> Cell:
    values = (sanity or {}).get(measure) or [None]
    return EMPTY if values[-1] is None else Cell(f"{values[-1]:.2f}", sort=repr(values[-1]))


def _shuffled(methods: Mapping[str, Any]) -> str:
    """Similarity to the maps of the network that was trained on shuffled labels, in words."""
    found = [(m, one) for m, f in methods.items() if (one := (f.get("sanity") or {}).get(SHUFFLED))]
    words = [f"{m} {one['spearman']:.2f}" for m, one in found if one.get("spearman") is not None]
    return f"Similarity (Spearman) to the maps of the network trained on shuffled labels: {', '.join(words)}." if words else ""
