"""Randomness from (seed, epoch, stream) alone, so that a resumed epoch draws what the undisturbed one would have drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, epoch: int, stream: str) -> int:
    """A 63-bit seed; different streams and epochs are unrelated."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded_generator(seed: int, epoch: int, stream: str) -> torch.Generator:
    """A fresh CPU generator for one stream of one epoch, e.g. ``"batches"``, ``"loss"``."""
    return torch.Generator().manual_seed(derived_seed(seed, epoch, stream))


@contextmanager
def seeded_layers(seed: int, epoch: int, device: torch.device, stream: str = "layers") -> Iterator[None]:
    """Seed the random layers of one epoch and give the caller's random state back afterwards.

    Dropout and stochastic depth only know torch's global generator, so it is seeded here, within `with`, and nowhere else.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(seed, epoch, stream))
        yield
