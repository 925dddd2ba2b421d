"""The same study with all that files may hold: thresholds of all sources, scales, regions, and what is made beside the scores."""

from __future__ import annotations

import numpy as np
import pytest

LEVEL = {"accuracy": 0.925, "balanced_accuracy": 0.921, "auc": 0.967, "ece": 0.084, "brier": 0.1172, "interval": [0.861, 0.969]}
LEVELS = {
    "sample": {**LEVEL, "confusion": [[5, 1], [0, 6]], "samples": 12},
    "patient": {**LEVEL, "auc": 0.981, "ece": 0.123, "confusion": [[3, 0], [1, 2]], "samples": 6, "interval": [None, None]},
}
RELIABILITY = {"confidence": [None, 0.55, 0.72, 0.86, 0.97], "accuracy": [None, 0.5, 0.66, 0.9, 0.94], "count": [0, 2, 3, 3, 4]}
SOURCES = {
    "validation masks": ("validation masks (6)", 0.0), "fixed": ("fixed", 0.03), "otsu": ("label-free (otsu)", 0.02),
    "per-image otsu": ("label-free (per-image otsu)", 0.06), "prevalence-matched": ("prevalence-matched (6 masks)", 0.01),
    "test oracle": ("test oracle", -0.011),
}  # fmt: skip
REFUSED = "a marginal bound at level 0.95 needs 19 negative patients, got 4"
SCALES = {"fitted": 0.0, "probability": -0.013, "per-image min-max": -0.08, "temperature": -0.02}
BLOCKS = ["head", "stage4", "stage3", "stage2", "stem"]
RULE = "over-activated: activated area above 1.5 x the true area; under-activated: below 0.5 x"
HIT = "a lesion is hit when half of its area is flagged"


def around(result: dict) -> dict:
    """What newer files hold of a method beside what all hold, in step with the numbers of `result`."""
    pooled, at = result["groups"]["all"], result["threshold"]["value"]
    power = max(0.0, 2 * (pooled["pxap"] - 0.5))
    dice, pxap, best = pooled["dice"], pooled["pxap"], pooled["oracle_dice"]
    for group in result["groups"].values():
        group |= {"normalized_ap": 0.311, "auc": 0.723, "dice_background": 0.642, "specificity": 0.587}
    for i, one in enumerate(result["samples"].values()):
        true, active = 0.15 + 0.05 * i, 0.5 + 0.02 * power * i
        miss = 0.3 * true
        one |= {
            "true_area": true, "activated_area": active, "false_positive_area": max(0.0, active - true + miss),
            "false_negative_area": miss, "oracle_threshold": 0.3 + 0.02 * i, "oracle_dice": 0.7, "lesions": 4, "lesions_hit": 3,
        }  # fmt: skip
    few = {"threshold": [0.31, 0.52], "dice": [0.588, 0.671], "masks": 6, "patients": 4}
    words = "6 masks of 4 patients: the threshold may lie anywhere from 31 to 52, and the Dice from 58.8 to 67.1."
    spread = {"median": 0.44, "low_quartile": 0.36, "high_quartile": 0.555, "iqr": 0.195, "lost": 0.0432, "samples": 12}
    points = [{"fp": f, "sensitivity": min(1.0, 0.3 + 0.1 * i + 0.2 * power)} for i, f in enumerate((0.25, 0.5, 1, 2, 4, 8))]
    return result | {
        "scale": {"kind": "fitted"},
        "macro": {
            unit: {"pxap": pxap - 0.02 * i, "dice": dice - 0.03, "iou": 0.4, "units": 12 // i}
            for i, unit in ((1, "image"), (2, "patient"))
        },
        "thresholds": {
            name: {"value": at + loss, "badge": badge, "dice": dice - loss, "iou": 0.5, "precision": 0.6, "recall": 0.7,
                   "flagged_area": 0.137 + loss, "gap": best - dice + loss}
            for name, (badge, loss) in SOURCES.items()
        } | {"conformal": {"refused": REFUSED}},
        "transfer": {
            "gap": best - dice, "plateau": [0.33, 0.47], "plateau_width": 0.14, "oracle_spread": spread,
            "validation": few | {"sentence": words} if power else None,
        },
        "scales": {
            name: {"pxap": pxap + change * power, "ap": pxap, "dice": dice, "oracle_dice": best, "gap": best - dice, 
                   "threshold": at, "badge": {"fitted": "fitted on validation"}.get(name, name)}
            for name, change in SCALES.items()
        } | {"per slide": {"refused": "images have no slide"}},
        "activation": {
            "true_area": 0.425, "activated_area": 0.633, "false_positive_area": 0.294, "false_negative_area": 0.1275,
            "over": 0.4167, "under": 0.0833, "rule": RULE, "over_samples": 12,
            "quartiles": {"true_area": [0.28, 0.57], "activated_area": [0.55, 0.69], "false_positive_area": [0.19, 0.35]},
        },
        "regions": {
            "lesions": 48, "hit": min(1.0, 0.55 + 0.2 * power), "rule": HIT, "unit": "um2",
            "predicted": 61, "predicted_right": 0.623,
            "by_size": [
                {"low": 0, "high": 1000, "lesions": 20, "hit": 0.25 + 0.2 * power, "covered": 0.31},
                {"low": 1000, "high": 10000, "lesions": 18, "hit": 0.5 + 0.2 * power, "covered": 0.52},
                {"low": 10000, "high": None, "lesions": 10, "hit": 0.8, "covered": 0.78},
            ],
            "froc": {
                "score": sum(p["sensitivity"] for p in points) / 6, "points": points, "slides": 12, "negatives": 4,
                "curve": {"fp": [0, *(p["fp"] for p in points)], "sensitivity": [0.1, *(p["sensitivity"] for p in points)]},
            },
        },
        "boxes": {
            "max_box_acc": 0.583, "max_box_acc_v2": 0.4722, "at": {"0.3": 0.667, "0.5": 0.5, "0.7": 0.25}, "threshold": 0.37,
            "gt_known_error": 0.417, "top1_error": 0.458, "images": 12,
        },
    }  # fmt: skip


def filled(one: dict) -> dict:
    """A plain score file with all that a file may hold."""
    more = {"levels": LEVELS, "reliability": RELIABILITY, "temperature": 1.37}
    return one | {
        "protocol": "ours", "masks_opened": {"validation": 6, "scored": 12},
        "classification": one["classification"] and one["classification"] | more,
        "methods": {name: around(result) for name, result in one["methods"].items()},
    }  # fmt: skip


def pxap_of(scores: list[dict]) -> dict[str, float]:
    """Name of a map as the page calls it -> its PxAP."""
    return {
        m if one["key"]["model"] == "floors" else f"{m} of {one['key']['model']} (b-cl)": r["groups"]["all"]["pxap"]
        for one in scores
        for m, r in one["methods"].items()
        if m not in ("all-ones", "random")
    }


def differences(scores: list[dict]) -> list[dict]:
    """Every map against the best one: near ones cannot be told apart, one is apart only before the correction."""
    found = pxap_of(scores)
    reference, *others = sorted(found, key=lambda n: -found[n])
    rows = []
    for i, name in enumerate(others):
        mean = found[name] - found[reference]
        reach = abs(mean) / 2 if i > 1 else abs(mean) + 0.02
        p, adjusted = (0.013, 0.078) if i == 2 else (0.002, 0.016) if i > 2 else (0.4, 0.8)
        rows.append(
            {"name": name, "mean": mean, "low": mean - reach, "high": mean + reach, "p": p, "p_adjusted": adjusted, "wins": i % 3,
             "ties": 0, "patients": 6, "clusters": 6}
        )  # fmt: skip
    return [
        {"dataset": "glas", "split": "test", "fold": 0, "seed": 0, "reference": reference, "metric": "pxap", "rows": rows,
         "correction": "holm"}
    ]  # fmt: skip


def rankings(scores: list[dict]) -> list[dict]:
    """Ranks that follow from the curves."""
    curves = {
        m if one["key"]["model"] == "floors" else f"{m} of {one['key']['model']} (b-cl)": r["curve"]["dice"]
        for one in scores
        for m, r in one["methods"].items()
        if m not in ("all-ones", "random")
    }
    dice = np.array(list(curves.values()))
    ranks = 1 + (dice[None] > dice[:, None]).sum(1)
    return [
        {"dataset": "glas", "split": "test", "fold": 0, "seed": 0, "threshold": [i / 100 for i in range(101)],
         "tau": [0.5, 0.7, *[0.9] * 98, None],
         "ranks": dict(zip(curves, ranks.astype(float).tolist(), strict=True)), "changes": 17}
    ]  # fmt: skip


def probe(model: str = "gap") -> dict:
    """Four maps: one of them does not care about the weights; two controls."""

    def sanity(fall: float, verdict: str) -> dict:
        curve = [max(0.02, 1 - fall * (i + 1)) for i in range(len(BLOCKS))]
        one = {"blocks": BLOCKS, "spearman": curve, "ssim": [0.9 * c for c in curve], "hog": [*curve[:-1], None], "undefined": 1,
               "verdict": verdict}  # fmt: skip
        return {"cascading": one, "independent": {**one, "spearman": [1 - fall * 0.8] * len(BLOCKS)}}

    def faith(i: int) -> dict:
        values = {
            "insertion": 0.612,
            "deletion": 0.231,
            "average-drop": 0.187,
            "adcc": 0.554,
            "saliency-metric": 0.43,
            "road": 0.119,
        }
        return {k: {"value": v + 0.01 * i, "interval": [v - 0.05, v + 0.06], "samples": 8} for k, v in values.items()}

    fall = {"cam": 0.3, "grad-cam": 0.3, "hirescam": 0.25, "layer-cam": 0.02}
    methods: dict = {
        m: {"faithfulness": faith(i), "sanity": sanity(f, "passes" if f > 0.1 else "fails")}
        for i, (m, f) in enumerate(fall.items())
    }
    methods["cam"]["sanity"]["labels"] = {"spearman": 0.083, "ssim": 0.21, "hog": 0.17, "verdict": "passes"}
    key = {"dataset": "glas", "model": model, "fold": 0, "seed": 0, "checkpoint": "b-cl", "set": "fast", "split": "valcl"}
    controls = {"edges": sanity(0, "fails"), "eigen-cam": sanity(0.0, "fails")}
    return {"key": key, "methods": methods, "controls": controls, "samples": [f"valA_{i}" for i in range(8)]}


AUDIT = {
    "dataset": "glas", "unchecked": {"opened masks": "no record says which masks were opened"}, "errors": 1, "warnings": 1,
    "checked": ["shared patients", "valpx in training", "floors", "constant maps"],
    "findings": [
        {"check": "floors", "severity": "warning", "text": "no random floor", "remedy": "add the floor random", "where": "x"},
        {"check": "shared patients", "severity": "error", "text": "3 patients are in train and test: p1, p2, p3",
         "remedy": "split by patient", "where": "manifest.parquet, fold 0"},
        {"check": "valpx in training", "severity": "note", "text": "valpx lies inside valcl", "remedy": "", "where": "fold 0"},
    ],
}  # fmt: skip


@pytest.fixture(scope="session")
def full(make_study, pictures) -> list[dict]:
    """A study whose files hold all that a file may hold."""
    return [filled(one) for one in make_study(pictures, negatives=True)]


@pytest.fixture(scope="session")
def make_full(make_study):
    return lambda **options: [filled(one) for one in make_study(None, negatives=True, **options)]


@pytest.fixture(scope="session")
def beside(full) -> dict:
    """What else `write_report` may be given about that study."""
    return {"differences": differences(full), "rankings": rankings(full), "probes": [probe("gap"), probe("lse")], "audit": AUDIT}
