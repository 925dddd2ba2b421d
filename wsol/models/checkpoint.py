"""A checkpoint is two files: `x.safetensors` with the weights, `x.json` with the recipe of the net and what is known of it.

Each is written under a temporary name and renamed. The card names the hash of its weights, so a pair that was torn by a kill
between the two renames, or mixed up by hand, is noticed instead of loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from wsol._files import atomic
from wsol.models.build import build_localizer
from wsol.models.localizer import Localizer
from wsol.models.weights import fit, read_state

FORMAT = 1


def save_checkpoint(net: Localizer, path: Path | str, meta: Mapping[str, Any] | None = None) -> tuple[Path, Path]:
    """Write `path` (`*.safetensors`) and the `.json` beside it; returns both paths.

    Args:
        net: a localizer from `build_localizer` (or `load_checkpoint`).
        path: its folder is made if needed.
        meta: anything JSON can hold: epoch, scores, code version, classes, ...

    Raises:
        ValueError: another suffix, or a net without a recipe.
        TypeError: `meta` holds something JSON cannot.
    """
    path = _checked(path)
    if net.recipe is None:
        raise ValueError("this localizer has no recipe to rebuild it from; make it with build_localizer")
    # .contiguous(): safetensors stores no strides, so channels_last weights are stored in the plain order.
    weights = save({key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()})
    card = {"format": FORMAT, "recipe": net.recipe, "sha256": hashlib.sha256(weights).hexdigest(), "meta": dict(meta or {})}
    text = json.dumps(card, indent=1, allow_nan=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, weights)
    _write(path.with_suffix(".json"), text.encode())
    return path, path.with_suffix(".json")


def load_checkpoint(path: Path | str) -> Localizer:
    """Rebuild the net of a checkpoint, in evaluation mode on the CPU; its outputs are those of the net that was saved.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file is damaged, or the two do not belong together.
    """
    path = _checked(path)
    card = _card(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["sha256"]:
        raise ValueError(
            f"{path} is not the file that {path.with_suffix('.json').name} describes (damaged, or of another save); "
            "write the checkpoint again"
        )
    state = read_state(path)
    net = build_localizer(**card["recipe"], weights=None)
    fit(net, state, str(path))
    return net.eval()


def checkpoint_recipe(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(recipe, meta) of a checkpoint, without its weights. Raises as `load_checkpoint`."""
    card = _card(_checked(path))
    return card["recipe"], card["meta"]


def _card(path: Path) -> dict[str, Any]:
    file = path.with_suffix(".json")
    if not file.is_file():
        raise FileNotFoundError(f"no recipe at {file}: it is written beside the weights and belongs to the checkpoint")
    try:
        card = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}; write the checkpoint again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT or not {"recipe", "sha256", "meta"} <= set(card):
        raise ValueError(f"{file} is no checkpoint card of format {FORMAT}; write the checkpoint again with this version")
    return card


def _checked(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"a checkpoint is named *.safetensors; got {path.name}")
    return path


def _write(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
