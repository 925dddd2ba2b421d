"""How hard the phantom slides are: pixel average precision of stain filters against a supervised pixel model.

    python benchmarks/phantom_difficulty.py [--slides 6] [--size 4096] [--seed 0]

Prints, for each difficulty, over all px of whole positive slides (with glass, pooled, at 4 um per px): the prevalence; the
floors "blurred hematoxylin" and "blurred blue minus red"; the better of the two turned around; a linear pixel regression; and
boosted trees on multi-scale texture. The last two are fitted with masks on slides of other patients.
Needs scikit-learn (`pip install -e .[oracles]`).
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import cv2
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from wsol.data.sources.phantom_draw import LOOKS, MPP, draw_phantom
from wsol.slides import PixelRegression, floor_map, hematoxylin, rgb_to_od

WORK_MPP, SCORE_MPP = 1.0, 4.0
STEP = round(SCORE_MPP / WORK_MPP)


def slide(index, size, seed, difficulty, positive=True):
    rgb, mask, _ = draw_phantom(
        size, 1000 * seed + index, positive=positive, difficulty=difficulty, patient_seed=1000 * seed + index
    )
    small = cv2.resize(rgb, None, fx=MPP / WORK_MPP, fy=MPP / WORK_MPP, interpolation=cv2.INTER_AREA)
    truth = cv2.resize(mask.astype(np.float32), small.shape[1::-1], interpolation=cv2.INTER_AREA) >= 0.5
    return small, truth


def coarse(a):
    return cv2.resize(a.astype(np.float32), (a.shape[1] // STEP, a.shape[0] // STEP), interpolation=cv2.INTER_AREA)


def texture(rgb):
    """Mean, deviation and band energies of hematoxylin and optical density around each px: (h, w, features) at SCORE_MPP."""
    planes = [hematoxylin(rgb), *np.moveaxis(rgb_to_od(rgb), -1, 0)]
    maps = []
    for plane in planes:
        fine = [plane] + [cv2.GaussianBlur(plane, (0, 0), s) for s in (1, 2, 4, 8)]
        for band in [np.abs(a - b) for a, b in pairwise(fine)] + [plane, plane**2]:
            small = coarse(band)
            maps += [small] + [cv2.GaussianBlur(small, (0, 0), s) for s in (2, 5, 12)]
    return np.stack(maps, axis=-1)


def supervised(train, test):
    rng = np.random.default_rng(0)
    x, y = [], []
    for rgb, mask in train:
        features, truth = texture(rgb), coarse(mask) >= 0.5
        pick = rng.choice(truth.size, min(12_000, truth.size), replace=False)
        x.append(features.reshape(truth.size, -1)[pick])
        y.append(truth.ravel()[pick])
    trees = HistGradientBoostingClassifier(max_iter=150, random_state=0).fit(np.concatenate(x), np.concatenate(y))
    out = []
    for rgb, _ in test:
        features = texture(rgb)
        out.append(trees.predict_proba(features.reshape(-1, features.shape[-1]))[:, 1])
    return np.concatenate(out)


def measure(difficulty, slides, size, seed):
    train = [slide(i, size, seed, difficulty, positive=i % 4 != 3) for i in range(slides)]
    test = [slide(500 + i, size, seed, difficulty) for i in range(slides)]
    truth = np.concatenate([(coarse(mask) >= 0.5).ravel() for _, mask in test])

    def ap(name, model=None, sign=1):
        maps = [floor_map(name, rgb, WORK_MPP, model=model) for rgb, _ in test]
        return average_precision_score(truth, sign * np.concatenate([coarse(m).ravel() for m in maps]))

    regression = PixelRegression.fit(train, WORK_MPP, generator=np.random.default_rng(0))
    return {
        "prevalence": truth.mean(),
        "hematoxylin": ap("hematoxylin"),
        "blue-minus-red": ap("blue-minus-red"),
        "turned": max(ap("hematoxylin", sign=-1), ap("blue-minus-red", sign=-1)),
        "pixel-regression": ap("pixel-regression", regression),
        "supervised": average_precision_score(truth, supervised(train, test)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=6, help="for training, and as many positive ones for testing")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for i, difficulty in enumerate(LOOKS):
        row = measure(difficulty, options.slides, options.size, options.seed)
        if not i:
            print("difficulty", *row, sep="\t")
        print(difficulty, *(f"{v:.3f}" for v in row.values()), sep="\t", flush=True)


if __name__ == "__main__":
    main()
