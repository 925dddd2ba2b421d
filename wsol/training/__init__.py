"""Fit a localizer to batches: the loop, losses, strategies, checkpoint criteria, exact resume.

Epochs count from 1 everywhere. The room knows no dataset and no map method: batches, validation and saving come in as callables.
Names resolve late: importing the room imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsol._names import lazy

if TYPE_CHECKING:
    from wsol.training.criteria import CHECKPOINTS as CHECKPOINTS
    from wsol.training.criteria import Criterion as Criterion
    from wsol.training.criteria import criterion as criterion
    from wsol.training.device import bf16_pays as bf16_pays
    from wsol.training.device import choose_device as choose_device
    from wsol.training.loop import Fit as Fit
    from wsol.training.loop import fit as fit
    from wsol.training.losses import balanced_weights as balanced_weights
    from wsol.training.losses import cross_entropy as cross_entropy
    from wsol.training.memory import keep_freed_memory as keep_freed_memory
    from wsol.training.parallel import Ranks as Ranks
    from wsol.training.parallel import join as join
    from wsol.training.randomness import seeded_generator as seeded_generator
    from wsol.training.resume import clear_state as clear_state
    from wsol.training.resume import weights_hash as weights_hash
    from wsol.training.schedule import warmup_cosine as warmup_cosine
    from wsol.training.selection import map_stability as map_stability
    from wsol.training.selection import rotation_stability as rotation_stability
    from wsol.training.selection import scale_consistency as scale_consistency
    from wsol.training.selection import seed_agreement as seed_agreement
    from wsol.training.selection import stain_stability as stain_stability
    from wsol.training.strategies.base import Strategy as Strategy
    from wsol.training.strategies.build import build_strategy as build_strategy
    from wsol.training.strategies.build import strategy_options as strategy_options

_WHERE = {
    "Fit": "loop",
    "fit": "loop",
    "bf16_pays": "device",
    "choose_device": "device",
    "CHECKPOINTS": "criteria",
    "Criterion": "criteria",
    "criterion": "criteria",
    "map_stability": "selection",
    "rotation_stability": "selection",
    "scale_consistency": "selection",
    "seed_agreement": "selection",
    "stain_stability": "selection",
    "cross_entropy": "losses",
    "balanced_weights": "losses",
    "warmup_cosine": "schedule",
    "Strategy": "strategies.base",
    "build_strategy": "strategies.build",
    "strategy_options": "strategies.build",
    "keep_freed_memory": "memory",
    "Ranks": "parallel",
    "join": "parallel",
    "seeded_generator": "randomness",
    "clear_state": "resume",
    "weights_hash": "resume",
}

STRATEGIES = {
    "classify": "strategies.classify:Classify",
    "inherit": "strategies.inherit:Inherit",
    "has": "strategies.has:HideAndSeek",
    "cutmix": "strategies.cutmix:CutMix",
    "adl": "strategies.adl:Adl",
    "maxmin": "strategies.maxmin:MaxMin",
    "masker": "strategies.masker:Masker",
    "negev": "strategies.negev:Negev",
    "pixelcam": "strategies.pixelcam:PixelCam",
    "f-cam": "strategies.fcam:FCam",
    "unet": "strategies.unet:UNet",
    "readout": "strategies.readout:Readout",
}
"""Ways to train. Name -> class derived from `Strategy`; facts (`supervision`, `paper`) are class attributes."""

MASKED = ("unet",)
"""Strategies whose `supervision` is masks: what a study has to open can be told without torch."""

INHERITED = ("inherit",)
"""Strategies that give every tile the label of its slide: a caution that a study can tell without torch."""

DECODED = {
    "masker": "masks", "negev": "pixels", "pixelcam": "pixels", "f-cam": "pixels", "unet": "pixels", "readout": "a readout",
}  # fmt: skip
"""Strategies that train the decoder of a head, and what it draws (`wsol.models.DECODERS`); no other strategy trains one."""

TAUGHT = ("masker", "negev", "pixelcam", "f-cam", "readout")
"""Strategies that need a trained model: one that they explain, or whose maps they learn from."""

UNTUNED = ("readout",)
"""Strategies whose net keeps a backbone of its own, and does not start from the weights of the trained model."""

__all__ = ["DECODED", "INHERITED", "MASKED", "STRATEGIES", "TAUGHT", "UNTUNED", *_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
