"""Tissue masks against known truth, ours beside simple peers: `python benchmarks/tissue.py [--slides 6] [--size 4096]`.

Draws flawed phantoms (`wsol.data.sources.phantom_flaws`: fat, mucin, a fold, blur, four markers, the edge of a coverslip, a
black border) and masks each at 8 um per px. Shares in percent, means over slides: IoU with the tissue; tissue lost, in all and of
fat and mucin alone; of what is no tissue, and of marker, coverslip edge and border alone, what was kept. Then CPU milliseconds.

A second table says of what is flagged how much is found, and how much is flagged elsewhere: px under marker and border, px of
folds (tissue away from marker and fold), tiles of 128 um out of focus (tiles in focus, half of them pale at most).

Peers, written out from their published descriptions: saturation > 8 after a median of 7 px, closed by 4 px (the defaults of
CLAM), the same with Otsu's threshold, and Otsu on blurred gray.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from wsol.data.sources.phantom_flaws import draw_flawed, small
from wsol.slides import Limits, pen_mask, tissue_mask
from wsol.slides.qc import fold_mask, sharpness

MPP, DOWN = 8.0, 16
LOST, KEPT = ("fat", "mucin"), ("pen", "coverslip", "border")


def saturation(rgb, otsu):
    blurred = cv2.medianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1], 7)
    mask = cv2.threshold(blurred, 8, 1, cv2.THRESH_BINARY + (cv2.THRESH_OTSU if otsu else 0))[1]
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((4, 4), np.uint8)) > 0


def gray_otsu(rgb):
    gray = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (5, 5), 0)
    return cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)[1] > 0


METHODS = {
    "wsol.tissue_mask": lambda rgb: tissue_mask(rgb, MPP),
    "saturation > 8": lambda rgb: saturation(rgb, otsu=False),
    "saturation, Otsu": lambda rgb: saturation(rgb, otsu=True),
    "gray, Otsu": gray_otsu,
}


def scores(mask, truth):
    """Percent: IoU, tissue lost, background kept, then lost and kept part by part."""
    tissue = truth["tissue"]
    lost = [(~mask & part).sum() / part.sum() for part in (tissue, *(truth[name] for name in LOST))]
    kept = [(mask & part).sum() / part.sum() for part in (~tissue, *(truth[name] for name in KEPT))]
    return 100 * np.array([(mask & tissue).sum() / (mask | tissue).sum(), *lost, *kept])


def flagged(rgb, thumbnail, truth):
    """Percent per flag: found, and flagged elsewhere."""
    pen, fold = pen_mask(thumbnail, MPP), fold_mask(thumbnail, MPP, tissue_mask(thumbnail, MPP))
    marks = truth["pen"] | truth["border"]
    away = cv2.dilate((marks | truth["fold"]).astype(np.uint8), np.ones((21, 21))) == 0
    found = {"pen": (pen[marks].mean(), pen[away].mean())}
    found["fold"] = (fold[truth["fold"] & ~pen].mean(), fold[truth["tissue"] & away].mean())
    fine, tiles = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), {True: [], False: []}
    for y in range(0, len(fine), 128):
        for x in range(0, len(fine), 128):
            part = {name: mask[y // 8 : y // 8 + 16, x // 8 : x // 8 + 16] for name, mask in truth.items()}
            blur, pale = part["blur"].mean(), (part["fat"] | part["mucin"]).mean()
            if part["tissue"].mean() > 0.9 and pale < 0.5 and (blur > 0.95 or blur == 0):
                seen = sharpness(fine[y : y + 128, x : x + 128], np.ones((128, 128), bool))
                tiles[blur > 0.95].append(seen < Limits().blur)
    return found | {"blur": tuple(np.mean(tiles[b]) if tiles[b] else np.nan for b in (True, False))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=6)
    parser.add_argument("--size", type=int, default=4096, help="side in px at 0.5 um per px")
    given = parser.parse_args()
    found = {name: [] for name in METHODS}
    seconds, flags = dict.fromkeys(METHODS, np.inf), []
    for seed in range(given.slides):
        rgb, masks = draw_flawed(given.size, seed, patient_seed=seed)
        thumbnail = cv2.resize(rgb, None, fx=1 / DOWN, fy=1 / DOWN, interpolation=cv2.INTER_AREA)
        truth = {name: small(mask, DOWN) for name, mask in masks.items()}
        for name, method in METHODS.items():
            start = time.process_time()
            mask = method(thumbnail)
            seconds[name] = min(seconds[name], time.process_time() - start)
            found[name].append(scores(mask, truth))
        flags.append(flagged(rgb, thumbnail, truth))
    heads = ["IoU", "lost", *(f"{n} lost" for n in LOST), "kept", *(f"{n} kept" for n in KEPT), "CPU ms"]
    print(f"{'%, ' + str(given.slides) + ' phantoms':<20}" + "".join(f"{h:>16}" for h in heads))
    for name, rows in found.items():
        print(f"{name:<20}" + "".join(f"{v:>16.1f}" for v in [*np.mean(rows, axis=0), 1000 * seconds[name]]))
    print(f"\n{'flag, %':<20}{'found':>16}{'elsewhere':>16}")
    for name in flags[0]:
        print(f"{name:<20}" + "".join(f"{100 * v:>16.1f}" for v in np.nanmean([f[name] for f in flags], axis=0)))


if __name__ == "__main__":
    main()
