"""Pixel metrics against named peers, in one run: `python benchmarks/evaluation.py [--maps 20]`.

Prints ratios, not absolute times: CPU seconds (user + sys) of this process at one thread, best of the rounds, the peers
interleaved with ours. The peers: wsolevaluation's mask evaluator (its `np.histogram` with explicit edges, written anew here,
since its own code stops at `np.float` on current numpy) and scikit-learn's `average_precision_score` on all pixels at once.
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

from wsol.evaluation import PixelCounts, PixelCurve
from wsol.evaluation.summary import pixel_intervals

SIZE = (522, 775)  # most GlaS images


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


def timed(
    work: dict[str, Callable[[Any], float]], pairs: list[tuple[Any, Any]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """(best CPU seconds, value) of each, interleaved."""
    best: dict[str, float] = {}
    value: dict[str, float] = {}
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


if __name__ == "__main__":
    main()
