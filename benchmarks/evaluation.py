"""Pixel and box metrics against named peers, in one run: `python benchmarks/evaluation.py [--maps 20]`.

Prints ratios, not absolute times: CPU seconds (user + sys) of this process at one thread, best of the rounds, the peers
interleaved with ours. The peers: wsolevaluation's mask evaluator (its `np.histogram` with explicit edges, written anew here,
since its own code stops at `np.float` on current numpy), its box evaluator (OpenCV's contours at each of 1000 thresholds, written
anew; the overlaps are taken threshold by threshold, which costs it less than all at once) and scikit-learn's
`average_precision_score` on all pixels at once.
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from wsol.evaluation import PixelCounts, PixelCurve, best_overlaps, pixel_intervals

SIZE = (522, 775)  # most GlaS images
BOX_SIZE = 224  # the field's box evaluation


def scene(generator: np.random.Generator) -> tuple[Any, Any]:
    """One smooth map, scaled to [0, 1], and a mask it half explains."""
    height, width = SIZE
    coarse = generator.standard_normal((17, 25))
    rows = np.linspace(0, 16, height).astype(int)
    columns = np.linspace(0, 24, width).astype(int)
    field = coarse[rows][:, columns] + 0.3 * generator.standard_normal(SIZE)
    low, high = field.min(), field.max()
    return ((field - low) / (high - low)).astype(np.float32), field + generator.standard_normal(SIZE) > 0.2


def wsolevaluation(pairs: list[tuple[Any, Any]]) -> float:
    """PxAP as the field's evaluator computes it."""
    grid = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
    true, false = np.zeros(1002), np.zeros(1002)
    for score, mask in pairs:
        score = score.astype(np.float64)  # it takes nothing else
        true += np.histogram(score[mask], bins=grid)[0]
        false += np.histogram(score[~mask], bins=grid)[0]
    tp, fp = np.cumsum(true[::-1]), np.cumsum(false[::-1])
    used = (tp + fp) != 0
    with np.errstate(invalid="ignore"):
        terms = (tp / (tp + fp))[1:] * np.diff(tp / tp[-1])
    return float(terms[used[1:]].sum())


def binned(pairs: list[tuple[Any, Any]]) -> float:
    curve = PixelCurve()
    for score, mask in pairs:
        curve.add(score, mask)
    return curve.result().pxap


def exact(pairs: list[tuple[Any, Any]]) -> float:
    curve = PixelCurve(exact=True)
    for score, mask in pairs:
        curve.add(score, mask)
    value = curve.exact_ap()
    assert value is not None
    return value


def sorting(pairs: list[tuple[Any, Any]]) -> float:
    from sklearn.metrics import average_precision_score

    truth = np.concatenate([mask.ravel() for _, mask in pairs])
    return float(average_precision_score(truth, np.concatenate([score.ravel() for score, _ in pairs])))


def box_scenes(generator: np.random.Generator, maps: int) -> dict[str, list[tuple[Any, Any]]]:
    """Maps of one kind each, scaled to [0, 1], and a true box: blobs as a CAM has them, and noise blurred over two pixels."""
    from scipy.ndimage import gaussian_filter

    scenes: dict[str, list[tuple[Any, Any]]] = {}
    for kind, sigma in (("smooth", 20), ("rough", 2)):
        scenes[kind] = []
        for _ in range(maps):
            field = gaussian_filter(generator.random((BOX_SIZE, BOX_SIZE)), sigma)
            score = ((field - field.min()) / (field.max() - field.min())).astype(np.float32)
            scenes[kind].append((score, np.array([[40, 50, 170, 160]])))
    return scenes


def contour_boxes(image: Any, level: int) -> Any:
    """Boxes of all contours of {image > level}, as wsolevaluation draws them."""
    import cv2

    height, width = image.shape
    _, mask = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return np.zeros((1, 4), int)
    x, y, w, h = np.array([cv2.boundingRect(contour) for contour in contours]).T
    return np.stack([x, y, np.minimum(x + w, width - 1), np.minimum(y + h, height - 1)], axis=1)


def contour_overlaps(score: Any, truth: Any) -> Any:
    """The best IoU at each of 1000 thresholds as the field's box evaluator has it."""
    image = (score.astype(np.float64) * 255).astype(np.uint8)
    truth_area = (truth[:, 2:] - truth[:, :2] + 1).prod(1)
    best = []
    for threshold in np.arange(0, 1, 0.001):
        boxes = contour_boxes(image, int(threshold * np.max(image)))[:, None]
        low, high = np.maximum(boxes[..., :2], truth[:, :2]), np.minimum(boxes[..., 2:], truth[:, 2:])
        shared = np.maximum(0, high - low + 1).prod(-1)
        best.append((shared / ((boxes[..., 2:] - boxes[..., :2] + 1).prod(-1) + truth_area - shared)).max())
    return np.array(best)


def swept(pairs: list[tuple[Any, Any]]) -> Any:
    return [best_overlaps(score, truth) for score, truth in pairs]


def contoured(pairs: list[tuple[Any, Any]]) -> Any:
    return [contour_overlaps(score, truth) for score, truth in pairs]


def report_boxes(generator: np.random.Generator, maps: int, rounds: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    for kind, pairs in box_scenes(generator, maps).items():
        swept(pairs[:1])
        fast, value = timed({"ours": swept, "contours": contoured}, pairs, rounds)
        equal = all(np.array_equal(a, b) for a, b in zip(value["ours"], value["contours"], strict=True))
        print(
            f"MaxBoxAccV2, 1000 thresholds, {kind} {BOX_SIZE}x{BOX_SIZE}: {fast['contours'] / fast['ours']:.1f}x findContours,"
            f" {fast['ours'] / maps * 1e3:.1f} ms per map, equal bit for bit at every threshold: {equal}"
        )


def timed(
    work: dict[str, Callable[[Any], Any]], pairs: list[tuple[Any, Any]], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """(best CPU seconds, value) of each, interleaved."""
    best: dict[str, float] = {}
    value: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in work.items():
            start = time.process_time()
            value[name] = run(pairs)
            best[name] = min(best.get(name, np.inf), time.process_time() - start)
    return best, value


def peak(run: Callable[[Any], float], pairs: list[tuple[Any, Any]]) -> float:
    """Peak bytes allocated on top of the maps."""
    tracemalloc.start()
    run(pairs)
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=20, help="775x522 maps; the official GlaS test set has 80")
    parser.add_argument("--box-maps", type=int, default=4, help="224x224 maps of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    pairs = [scene(generator) for _ in range(options.maps)]
    binned(pairs[:1]), exact(pairs[:1]), sorting(pairs[:1])  # compile and import outside the clock

    fast, value = timed({"ours": binned, "exact": exact, "wsolevaluation": wsolevaluation}, pairs, options.rounds)
    slow, sorted_value = timed({"scikit-learn": sorting}, pairs, 1)
    print(f"{options.maps} maps of {SIZE[1]}x{SIZE[0]}")
    equal = value["ours"] == value["wsolevaluation"]
    print(f"PxAP: {fast['wsolevaluation'] / fast['ours']:.1f}x wsolevaluation, equal bit for bit: {equal}")
    print(
        f"exact AP (and PxAP): {slow['scikit-learn'] / fast['exact']:.0f}x scikit-learn,"
        f" {abs(value['exact'] - sorted_value['scikit-learn']) * 100:.5f} percent points from it (bound: 0.001);"
        f" PxAP is {abs(value['ours'] - sorted_value['scikit-learn']) * 100:.3f} from it"
    )
    tops = {name: peak(run, pairs) for name, run in {"ours": binned, "exact": exact, "scikit-learn": sorting}.items()}
    print(
        f"peak memory: PxAP {tops['ours'] / 1e6:.2f} MB, exact AP {tops['exact'] / 1e6:.0f} MB,"
        f" scikit-learn {tops['scikit-learn'] / 1e6:.0f} MB ({tops['scikit-learn'] / tops['exact']:.1f}x exact)"
    )
    counts = [PixelCounts(*generator.integers(0, 400, (2, 1001))) for _ in range(1000)]
    start = time.perf_counter()
    pixel_intervals(counts, [f"patient-{i}" for i in range(1000)], 0.5, generator=generator, replicates=1000)
    seconds = time.perf_counter() - start
    print(f"bootstrap of PxAP and Dice, 1000 replicates of 1000 images, each its own patient: {seconds:.2f} s (bound: 2)")
    report_boxes(generator, options.box_maps, options.rounds)


if __name__ == "__main__":
    main()
