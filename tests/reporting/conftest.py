"""A made-up study that looks like a real one: scores follow from simulated pixels, overlays are drawn."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

VOID = {"meta", "img", "br", "link", "input"}
THRESHOLDS = np.linspace(0, 1, 101)
CODE = "0.1.0+g0123456789ab"
METHODS = {"cam": 0.9, "grad-cam": 0.9, "hirescam": 1.0, "layer-cam": 0.75}
CLASSIFICATION = {"accuracy": 0.925, "balanced_accuracy": 0.9213, "interval": [0.861, 0.969], "samples": 12, "patients": 6}
FLOORS = {"all-ones": 0.0, "random": 0.0, "hematoxylin": 0.3, "blue-minus-red": 0.36, "pixel-regression": 0.8}


def numbers(power: float, prevalence: float, generator: np.random.Generator, at: float, pixels: int = 3000) -> dict:
    """Metrics of simulated pixels whose positives score higher by `power` standard deviations."""
    truth = generator.random(pixels) < prevalence
    score = 1 / (1 + np.exp(-(generator.normal(size=pixels) + power * (truth - 0.5) * 2)))
    flagged = score[None] >= THRESHOLDS[:, None]
    tp, fp = (flagged & truth).sum(1), (flagged & ~truth).sum(1)
    precision, recall = tp / np.maximum(tp + fp, 1), tp / max(truth.sum(), 1)
    dice, iou = 2 * tp / (tp + fp + truth.sum()), tp / (fp + truth.sum())
    pxap = float(np.sum(-np.diff(recall, append=0) * precision))
    i, best = round(100 * at), int(np.argmax(dice))
    names = {"precision": precision, "recall": recall, "dice": dice, "iou": iou}
    return {
        "pxap": pxap, "pxap_interval": [pxap - 0.04, min(1.0, pxap + 0.035)], "ap": pxap + 0.001,
        "prevalence": float(truth.mean()),
        **{k: float(v[i]) for k, v in names.items()}, "dice_interval": [float(dice[i]) - 0.05, float(dice[i]) + 0.04],
        "oracle_dice": float(dice[best]), "oracle_iou": float(iou[best]), "samples": 12, "patients": 6,
        "oracle": best / 100, "curve": {"threshold": THRESHOLDS.tolist(), **{k: v.tolist() for k, v in names.items()}},
    }  # fmt: skip


def overlay(path: Path, seed: int, strength: float) -> None:
    """A tissue-like picture with glands and a heat blob."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:261, :388] / 60.0
    ground = np.stack([225 + 0 * x, 160 + 25 * np.sin(x * 2 + seed), 200 + 20 * np.cos(y * 3)], -1)
    heat = np.exp(-((x - 2 - seed % 3) ** 2 + (y - 2) ** 2) / 1.5)[..., None] * strength
    image = Image.fromarray(np.clip(ground * (1 - heat) + np.array([240, 80, 20]) * heat, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for cx, cy in generator.integers((30, 30), (350, 230), (7, 2)):
        draw.ellipse([cx - 30, cy - 24, cx + 30, cy + 24], outline=(0, 150, 70), width=3)
    image.save(path)


def badges(**changed: str) -> dict[str, str]:
    return {
        "supervision": "image label", "checkpoint": "validation labels (B-CL)", "threshold": "validation masks (6)",
        "map_class": "declared positive", "scale": "fitted on validation", "split_unit": "image",
        "drawn": "whole image", "code": CODE, **changed,
    }  # fmt: skip


def samples(power: float, folder: Path | None, tag: str, at: float, fold: int) -> dict:
    found = {}
    for i in range(12):
        label = ("benign", "malignant")[i % 2]
        seed = int(hashlib.sha256(f"{tag}{i}".encode()).hexdigest()[:6], 16)
        one = numbers(power * (0.3 + i / 8), 0.5, np.random.default_rng(seed), at, pixels=300)
        path = None
        if folder is not None:
            path = f"{tag}-{i}.png"
            overlay(folder / path, seed, 0.25 + i / 20)
        name = f"test{'AB'[i % 2]}_{i + 12 * fold}"
        found[name] = {k: one[k] for k in ("dice", "iou", "pxap", "prevalence")} | {
            "label": label,
            "patient": f"p{i % 6 + 6 * fold}",
            "overlay": path,
        }
    return found


def result(power: float, tag: str, folder: Path | None, fold: int, negatives: bool, **badge: str) -> dict:
    generator = np.random.default_rng(int(hashlib.sha256(tag.encode()).hexdigest()[:8], 16))
    at = 0.42 if power else 0.0
    pooled = numbers(power, 0.51, generator, at)
    curve, oracle = pooled.pop("curve"), pooled.pop("oracle")
    groups = {"all": pooled}
    for name, factor, prevalence in (("benign", 0.5, 0.5), ("malignant", 1.3, 0.52)):
        groups[name] = numbers(power * factor - 0.02, prevalence, generator, at)
        for extra in ("curve", "oracle"):
            groups[name].pop(extra)
    return {
        "badges": badges(**badge), "seconds": 0.1234, "threshold": {"value": at, "source": "validation masks"},
        "oracle": {"value": oracle, "source": "test oracle"}, "groups": groups,
        "negatives": {"flagged_area": 0.137, "interval": [0.101, 0.179], "samples": 8, "patients": 4} if negatives else None,
        "curve": curve, "samples": samples(power, folder, tag, at, fold),
    }  # fmt: skip


def one_file(model: str, powers: dict[str, float], folder: Path | None, *, fold=0, seed=0, split="test", negatives=False) -> dict:
    floor = model == "floors"
    methods = {}
    for name, power in powers.items():
        extra = (
            {"supervision": "masks (6)" if name == "pixel-regression" else "none", "checkpoint": "none", "map_class": "none"}
            if floor
            else {}
        )
        tag = f"{model}-{name}-{fold}-{seed}-{split}"
        methods[name] = result(power, tag, None if floor else folder, fold, negatives, **extra)
    return {
        "key": {
            "dataset": "glas", "model": model, "fold": fold, "seed": seed,
            "checkpoint": "none" if floor else "b-cl", "set": "floors" if floor else "fast", "split": split,
        },
        "classes": ["benign", "malignant"], "mask_means": "any-foreground",
        "note": "The label is the grade and the mask is any gland, benign or malignant.",
        "classification": None if floor else dict(CLASSIFICATION),
        "methods": methods, "supervision": "none" if floor else "image label",
        "provenance": {
            "code": CODE, "config": "a3f00c7725d1be42", "seed": seed, "created": "2026-11-23T11:02:03Z",
            "inputs": {"manifest": "11aa22bb33cc44dd"},
        },
    }  # fmt: skip


def history(model: str, fold: int = 0, seed: int = 0) -> dict:
    generator = np.random.default_rng(sum(map(ord, model)) + fold + seed)
    rows = [
        {
            "epoch": e, "train_loss": 0.7 * np.exp(-e / 6) + 0.02 * generator.random(),
            "val_loss": 0.7 * np.exp(-e / 8) + 0.1 + 0.03 * generator.random(),
            "val_accuracy": min(1.0, 0.5 + 0.04 * e + 0.05 * generator.random()),
            "val_pxap": 0.5 + 0.2 * np.sin(e / 6) + 0.05 * generator.random(), "lr": 1e-4, "seconds": 20.0,
        }
        for e in range(1, 16)
    ]  # fmt: skip
    return {"key": {"dataset": "glas", "model": model, "fold": fold, "seed": seed}, "rows": rows}


def study(
    folder: Path | None, folds: int = 1, seeds: int = 1, negatives: bool = False, splits: tuple[str, ...] = ("test",)
) -> list[dict]:
    """Two models with four maps each, one of which a stain map beats, and the floors."""
    models = {"gap": {m: 0.4 * p for m, p in METHODS.items()}, "lse": {m: 0.75 * p for m, p in METHODS.items()}}
    grid = [(f, s, split) for f in range(folds) for s in range(seeds) for split in splits]
    return [
        one_file(model, powers, folder, fold=f, seed=s, split=split, negatives=negatives)
        for f, s, split in grid
        for model, powers in {**models, "floors": FLOORS}.items()
    ]


class Balance(HTMLParser):
    """Fails on tags that are closed in the wrong order; collects attributes that load something, and ids."""

    def __init__(self):
        super().__init__()
        self.stack, self.loads, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.stack.append(tag)
        self.loads += [(tag, k, v) for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "xlink:href")]
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"</{tag}> at {self.getpos()}"


def checked_html(text: str) -> None:
    """Fails on a page that is not well nested, has an id twice, refers to none of its ids or loads anything."""
    found = Balance()
    found.feed(text)
    assert found.stack == []
    assert all(v.startswith(("data:image/", "#")) for _, _, v in found.loads), found.loads
    assert "http" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(found.ids) == len(set(found.ids))
    wanted = re.findall(r"url\(#([^)]*)\)", text) + [v[1:] for _, _, v in found.loads if v.startswith("#")]
    assert set(wanted) <= set(found.ids)


@pytest.fixture(scope="session")
def check_html():
    return checked_html


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("overlays")


@pytest.fixture(scope="session")
def scores(pictures) -> list[dict]:
    return study(pictures)


@pytest.fixture(scope="session")
def make_study():
    return study


@pytest.fixture(scope="session")
def make_history():
    return history
