"""A training that is killed at any moment goes on where its last whole epoch ended.

The state is a folder: ``epoch-00007.safetensors`` (weights, moments, average), ``kept-<name>-00005.safetensors`` (the best epochs
so far) and ``state.json``, which names them. The json is renamed into place last, so the three are one atomic unit: a reader sees
the old epoch or the new one, whole. Files that the json does not name are leftovers and are swept. No pickle, and no random
state: randomness comes from (seed, epoch).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wsol._files import atomic
from wsol.training.history import Row

FORMAT = 1
POINTER = "state.json"


@dataclass
class Kept:
    """The epoch that a criterion holds best so far, and the net's weights of then (None: those of the end)."""

    epoch: int
    metrics: dict[str, float]
    weights: dict[str, Tensor] | None = None


@dataclass
class State:
    """All that a training is after a whole epoch."""

    epoch: int = 0
    ema_steps: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in plain memory order (safetensors stores neither strides nor shared memory)."""
    return {name: value.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def weights_hash(*modules: nn.Module) -> str:
    """A hash of all parameters and buffers, by which another start (seed, parent, pretrained file) is noticed."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(snapshot(module.state_dict()).items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.ndim else repr(value.item()).encode())
    return digest.hexdigest()


def write_state(folder: Path, state: State, settings: Mapping[str, Any]) -> None:
    """Replace the state in `folder` by `state`. Kept weights are written in the epoch that chose them and reused after."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = f"epoch-{state.epoch:05d}.safetensors"
    _write(folder / weights, save(state.tensors))
    kept: dict[str, dict[str, Any]] = {}
    for name, best in state.kept.items():
        kept[name] = {"epoch": best.epoch, "metrics": best.metrics, "file": None}
        if best.weights is not None:
            file = kept[name]["file"] = f"kept-{name}-{best.epoch:05d}.safetensors"
            if best.epoch == state.epoch or not (folder / file).is_file():
                _write(folder / file, save(best.weights))
    pointer = {
        "format": FORMAT,
        "settings": settings,
        "epoch": state.epoch,
        "ema_steps": state.ema_steps,
        "weights": weights,
        "kept": kept,
        "history": state.history,
    }
    _write(folder / POINTER, (json.dumps(pointer, indent=1) + "\n").encode())
    _sweep(folder, keep={weights, *(entry["file"] for entry in kept.values() if entry["file"])})


def read_state(folder: Path, settings: Mapping[str, Any]) -> tuple[State | None, str]:
    """The state in `folder` if it belongs to `settings`.

    Returns:
        (state, ""), or (None, why) where there is none; `why` is empty if the folder never held one.

    Raises:
        RuntimeError: the state is damaged; the message names the file and the remedy.
    """
    pointer = folder / POINTER
    if not pointer.is_file():
        return None, ""
    try:
        card = json.loads(pointer.read_text())
        if card["format"] != FORMAT:
            return None, f"the training state in {folder} is of format {card['format']}, not {FORMAT}; starting over"
        differing = _differing(card["settings"], json.loads(json.dumps(settings)))
        if differing:
            return None, f"the training state in {folder} belongs to other settings ({differing}); starting over"
        kept = {
            name: Kept(entry["epoch"], entry["metrics"], load_file(folder / entry["file"]) if entry["file"] else None)
            for name, entry in card["kept"].items()
        }
        return State(card["epoch"], card["ema_steps"], load_file(folder / card["weights"]), kept, card["history"]), ""
    except (ValueError, KeyError, TypeError, AttributeError, OSError, SafetensorError) as error:
        raise RuntimeError(f"the training state in {folder} is damaged ({error}); delete this folder to start over") from error


def clear_state(folder: Path | str) -> None:
    """Remove a training state that is no longer needed. Removes only files that this module writes, and the folder if empty."""
    folder = Path(folder)
    if not folder.is_dir():
        return
    (folder / POINTER).unlink(missing_ok=True)  # first: without it the rest is leftovers, whenever we are killed
    _sweep(folder, keep=set())
    if not any(folder.iterdir()):
        shutil.rmtree(folder)


def _differing(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The settings that differ, as ``name: old -> new``."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush to the disk, rename."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sweep(folder: Path, keep: set[str]) -> None:
    """Remove our files that nothing names any more."""
    for pattern in ("epoch-*.safetensors", "kept-*.safetensors", ".*.part.*"):
        for path in folder.glob(pattern):
            if path.name not in keep:
                path.unlink()
