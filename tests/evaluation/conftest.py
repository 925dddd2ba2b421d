"""Scenes of scores and masks, and the field's evaluator written slowly."""

from __future__ import annotations

import numpy as np
import pytest


def scene(seed, shape=(40, 50), levels=None, prevalence=0.3):
    """A score map that half explains its mask; `levels` quantizes it, so that ties are common."""
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < prevalence
    score = np.clip(0.3 * generator.random(shape) + 0.35 * mask * generator.random(shape) + 0.4 * generator.random(shape), 0, 1)
    if levels:
        score = np.round(score * levels) / levels
    return score.astype(np.float32), mask


class SlowEvaluator:
    """wsolevaluation's mask evaluator, step by step: explicit edges, float64 scores, np.histogram, cumulate from the top."""

    def __init__(self):
        self.edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
        self.true = np.zeros(len(self.edges) - 1)
        self.false = np.zeros(len(self.edges) - 1)

    def add(self, score, mask):
        score = score.astype(np.float64)
        self.true += np.histogram(score[mask], bins=self.edges)[0]
        self.false += np.histogram(score[~mask], bins=self.edges)[0]

    def pxap(self):
        tp, fp = self.true[::-1].cumsum(), self.false[::-1].cumsum()
        fn = self.true.sum() - tp
        defined = (tp + fp) != 0
        with np.errstate(invalid="ignore"):
            precision = tp / (tp + fp)
        recall = tp / (tp + fn)
        return (precision[1:] * np.diff(recall))[defined[1:]].sum()


@pytest.fixture
def make_scene():
    return scene


@pytest.fixture
def slow():
    return SlowEvaluator()
