"""The table of `configs/glas_leaderboard.yaml` in Markdown: a row per model and checkpoint, by the map that the model learned.

    python benchmarks/studies/leaderboard.py results/evaluate/glas

Every number comes from the files of the study: scores (accuracy, PxAP, Dice at the validation threshold, with 95 % intervals
over patients, or mean and deviation where a model was trained more than once), run records (seconds per epoch: training and its
validation) and Snakemake's benchmarks (peak memory of the training). Published: PxAP on the survey's fold 0, checkpoint chosen
on six masks, mean of VGG16, InceptionV3 and ResNet50 (Rony et al., MELBA 2023, table 1; DeiT for TS-CAM).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

OWN = ("cam", "native", "masker")
PUBLISHED = {
    "gap": 57.4, "max": 53.9, "lse": 61.9, "cam": 61.1, "has": 64.8, "wildcat": 57.0, "acol": 58.7, "spg": 57.7, "deep-mil": 64.3,
    "prm": 58.4, "adl": 59.9, "cutmix": 55.6, "ts-cam": 55.8, "maxmin": 68.4, "negev": 77.8, "unet": 96.2,
}  # fmt: skip


def percent(found: list[dict[str, Any]], name: str, interval: str = "") -> str:
    """A number in percent: with its interval if it is the only one, else mean and deviation."""
    values = [100 * one[name] for one in found if one.get(name) is not None]
    if not values:
        return "–"
    if len(values) > 1:
        return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    ends = found[0].get(interval) if interval else None
    return f"{values[0]:.1f}" + (f" ({100 * ends[0]:.1f}–{100 * ends[1]:.1f})" if ends and None not in ends else "")


def cost(scores: Path, key: dict[str, Any]) -> tuple[float, float] | None:
    """(seconds per epoch, peak memory in GB) of the training behind scores; None for floors."""
    results = next(p for p in scores.parents if p.name == "evaluate").parent
    run = f"train/{key['dataset']}/{key['model']}/fold{key['fold']}/seed{key['seed']}"
    record, measured = results / run / "run.json", results / "benchmark" / f"{run}.tsv"
    if not (record.is_file() and measured.is_file()):
        return None
    made = json.loads(record.read_text())
    header, line = (text.split("\t") for text in measured.read_text().splitlines()[:2])
    return made["seconds"] / made["epochs"], float(dict(zip(header, line, strict=True))["max_rss"]) / 1000


def collected(files: list[Path]) -> dict[tuple[str, str, str], list[tuple[Any, Any, Any]]]:
    """(model, checkpoint, method) -> what each of its runs says: the method's numbers, the classifier's, the cost."""
    rows: dict[tuple[str, str, str], list[tuple[Any, Any, Any]]] = defaultdict(list)
    for file in files:
        scores = json.loads(file.read_text())
        key = scores["key"]
        own = [m for m in OWN if m in scores["methods"]][:1]
        for name in scores["methods"] if key["model"] == "floors" else own:
            at = (key["model"], key["checkpoint"], name)
            rows[at].append((scores["methods"][name], scores.get("classification") or {}, cost(file, key)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluate", type=Path, help="results/evaluate/<dataset>")
    parser.add_argument("--split", default="test", choices=("valcl", "test"))
    options = parser.parse_args()
    files = sorted(options.evaluate.glob(f"*/fold*/seed*/*/*/{options.split}/scores.json"))
    if not files:
        raise SystemExit(f"no scores of split {options.split} below {options.evaluate}: run the study first")
    rows = collected(files)
    classes = json.loads(files[0].read_text())["classes"]
    print(f"| model | checkpoint | map | PxAP | {' | '.join(classes)} | Dice | accuracy | s/epoch | s/image | GB | published |")
    print("|---|---|---|" + "---:|" * (7 + len(classes)))
    ranked = sorted(
        rows, key=lambda at: (at[0] == "floors", -statistics.mean(m["groups"]["all"]["pxap"] for m, _, _ in rows[at]))
    )
    for at in ranked:
        maps, classifiers, costs = (list(part) for part in zip(*rows[at], strict=True))
        model, checkpoint, method = at
        over = {name: [m["groups"][name] for m in maps if name in m["groups"]] for name in ("all", *classes)}
        spent = [one for one in costs if one]
        cells = [
            "*floor*" if model == "floors" else model,
            checkpoint,
            method,
            *(percent(over[name], "pxap", "pxap_interval") for name in ("all", *classes)),
            percent(over["all"], "dice", "dice_interval"),
            percent(classifiers, "accuracy"),
            f"{statistics.mean(s for s, _ in spent):.0f}" if spent else "–",
            f"{statistics.mean(one['seconds'] for one in maps):.3f}",
            f"{max(g for _, g in spent):.1f}" if spent else "–",
            f"{PUBLISHED[model]:.1f}" if model in PUBLISHED else "–",
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
