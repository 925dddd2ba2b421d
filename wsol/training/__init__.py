"""Fit a localizer to batches: the loop, losses, strategies, checkpoint criteria, exact resume.

Epochs count from 1 everywhere. The room knows no dataset and no map method: batches, validation and saving come in as callables.
Names resolve late: importing the room imports no torch.
"""

from __future__ import annotations

from wsol._names import lazy

_WHERE = {
    "fit": "loop",
    "choose_device": "device",
    "CHECKPOINTS": "criteria",
    "Criterion": "criteria",
    "map_stability": "selection",
    "cross_entropy": "losses",
    "balanced_weights": "losses",
    "warmup_cosine": "schedule",
    "Strategy": "strategies.base",
    "build_strategy": "strategies.build",
    "seeded_generator": "randomness",
    "clear_state": "resume",
}

STRATEGIES = {"classify": "strategies.classify:Classify"}
"""Ways to train. Name -> class derived from `Strategy`; facts (`supervision`, `paper`) are class attributes."""

__all__ = ["STRATEGIES", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
