"""Where tensors live."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """The device behind ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: not one of these names.
        RuntimeError: CUDA is asked for and not available, or has no device of that number.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
        raise ValueError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees no CUDA device; use device: auto or cpu"
        )
    if number and int(number) >= torch.cuda.device_count():
        raise RuntimeError(
            f"device {name!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices, numbered from 0"
        )
    return torch.device(name)


def bf16_pays(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware there. Without (AVX2, older GPUs) it is emulated: right, and many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in checks if hasattr(torch.cpu, name))
