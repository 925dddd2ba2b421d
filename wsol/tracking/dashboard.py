"""What the MLflow page of a study shows first: its description, its saved views, and the links that open them.

A saved view is what the page's button "Share" makes: a tag of the experiment with columns, order and grouping as JSON, found by
the key in the link (tried with MLflow 3.17; an older one ignores the key and shows its own columns). Any order in a link would
override the view, so a link has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

VIEW = "mlflow.sharedViewState."
"""Tag of an experiment, followed by the key of the view."""

DESCRIPTION = """\
**One row is one map method on one trained model** (dataset, model, checkpoint, fold, seed, method, protocol).
All rates are in percent.

- `test/pxap`: area under the pixel precision-recall curve, pooled. `_low`, `_high`: its 95 % interval over patients.
- `test_<class>/...`: the same for the samples of one class.
- `test/dice`: at the threshold whose origin is the tag `threshold_source`.
- `test/oracle_dice`: at the best threshold on the test masks themselves: a bound, not a result.
- `test/patient_pxap`, `test/image_pxap`: mean over patients or images, each counting once.
- `test/normalized_ap`: 0 is a random map, whatever the prevalence. `test/auc`: pixels, ROC.
- `test/over_activated`, `test/under_activated`: share of images marked far too much, far too little.
- `test/lesions_hit`, `test/froc`, `test/max_box_acc_v2`: lesions, points and boxes that are found.
- `test/ece`, `test/brier`: calibration of the class probabilities, lower is better; Brier is no percentage.
- `test/plateau_pct`: share of all thresholds within 95 % of the best Dice: wide is good.
- `test/dice_lost_to_threshold`: oracle minus chosen.
- `threshold_pct/...`: whole curves, the step is the threshold in percent. A curve's last value is not a score.
- Rows with tag `kind` = `floor` need no training; a localizer below them has learned nothing useful about place.
- Tags `badge.*` say under which rules a number was made; `audit.errors` says whether the auditor objects.
- The weights of a run's net are a logged model (Models, to the left); the description of the run says how they are loaded.
"""

COLUMNS = (
    "pxap", "pxap_low", "pxap_high", "patients", "prevalence", "dice", "dice_lost_to_threshold", "plateau_pct", "flagged_area",
    "accuracy",
)  # fmt: skip
"""Metrics shown first: which localizes best, how sure that is, how much hangs on the threshold."""

WORDS = {"params": ("method", "model", "checkpoint"), "tags": ("kind", "threshold_source", "audit.errors")}
"""Parameters and tags shown beside them."""

CURVES = ("dice", "iou", "precision", "recall")


def views(splits: Sequence[str]) -> dict[str, str]:
    """Key of a saved view -> its JSON, for the tags `VIEW` + key.

    Args:
        splits: that were scored; the first is shown ("test" where it is among them).

    Returns:
        ``wsol``: all runs, best map first; ``wsol-methods``: means by map method; ``wsol-models``: by model; ``wsol-curves``:
        Dice over the threshold and the training curves, beside bars of the scores; ``wsol-overlays``: the overlays of all runs.
    """
    split = "test" if "test" in splits or not splits else splits[0]
    table = _state(split)
    short = {name: value for name, value in table.items() if name != "columnOrder"}  # a tag of older servers holds 5000 letters
    found = {
        "wsol": table,
        "wsol-methods": table | _grouped("method"),
        "wsol-models": table | _grouped("model"),
        "wsol-curves": short | _charts(split),
        "wsol-overlays": short | _overlays(split),
    }
    return {key: json.dumps(state, separators=(",", ":")) for key, state in found.items()}


def _state(split: str) -> dict[str, Any]:
    metrics = [f"metrics.`{split}/{name}`" for name in COLUMNS]
    words = [f"{kind}.`{name}`" for kind, names in WORDS.items() for name in names]
    columns = [*words[:3], *metrics, *words[3:], "attributes.`Dataset`"]
    return {
        "selectedColumns": columns, "columnOrder": ["attributes.`Run Name`", *columns], "orderByKey": f"metrics.`{split}/pxap`",
        "orderByAsc": False, "runsHiddenMode": "FIRST_20_RUNS",
    }  # fmt: skip


def _grouped(param: str) -> dict[str, Any]:
    """Rows of one value of a parameter under a row of their means."""
    return {"groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": param}]}}


def _charts(split: str) -> dict[str, Any]:
    """Sections of charts: scores as bars, curves over the threshold, curves of training."""
    over = "threshold_pct" if split == "test" else f"threshold_pct_{split}"
    sections = {
        "scores": ("Scores", [("BAR", f"{split}/{name}") for name in ("pxap", "dice", "dice_lost_to_threshold", "plateau_pct")]),
        "threshold": ("Over the threshold (percent)", [("LINE", f"{over}/{name}") for name in CURVES]),
        "training": ("Training (epochs)", [("LINE", name) for name in ("train/loss", "val/accuracy", "val/loss")]),
    }
    charts = [_chart(kind, metric, section) for section, (_, some) in sections.items() for kind, metric in some]
    shown = [{"uuid": key, "name": name, "display": True, "isReordered": False} for key, (name, _) in sections.items()]
    return {"compareRunCharts": charts, "compareRunSections": shown, "isAccordionReordered": True}


def _overlays(split: str) -> dict[str, Any]:
    """The pictures of all runs side by side, with one slider."""
    section = {"uuid": "overlays", "name": "Overlays", "display": True, "isReordered": False, "columns": 1, "cardHeight": 800}
    chart = {"uuid": "wsol-overlays", "type": "IMAGE", "imageKeys": [pictures_key(split)], "step": 0, "runsCountToCompare": 20}
    chart |= {"metricSectionId": "overlays", "deleted": False, "isGenerated": False}
    return {"compareRunCharts": [chart], "compareRunSections": [section], "isAccordionReordered": True}


def pictures_key(split: str) -> str:
    """The name under which the overlays of a split are logged, from the worst Dice to the best."""
    return f"{split} worst to best"


def _chart(kind: str, metric: str, section: str) -> dict[str, Any]:
    chart = {
        "uuid": f"wsol-{metric}", "type": kind, "metricKey": metric, "metricSectionId": section, "runsCountToCompare": 20,
        "deleted": False, "isGenerated": False,
    }  # fmt: skip
    if kind == "LINE":
        chart |= {
            "selectedMetricKeys": [metric], "xAxisKey": "step", "selectedXAxisMetricKey": "", "scaleType": "linear",
            "xAxisScaleType": "linear", "lineSmoothness": 0, "yAxisKey": "metric", "yAxisExpressions": [], "range": {},
            "useGlobalLineSmoothing": False, "useGlobalXaxisKey": False,
        }  # fmt: skip
    return chart


def links(address: str, experiment_id: str) -> Mapping[str, str]:
    """What a view shows -> its link on the server at `address`; all open in machine-learning mode, which is not the default."""
    page = f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey="
    return {
        "runs, best map first": f"{page}wsol",
        "means by map method": f"{page}wsol-methods",
        "means by model": f"{page}wsol-models",
        "curves over threshold and epochs": f"{page}wsol-curves&compareRunsMode=CHART",
        "overlays, worst to best": f"{page}wsol-overlays&compareRunsMode=CHART",
    }
