"""What `benchmarks/cams.py` measures with: the peers that are there, a clock, and what the processor can do."""

from __future__ import annotations

import importlib
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGES = {
    "grad-cam": "pytorch_grad_cam",
    "torchcam": "torchcam.methods",
    "captum": "captum.attr",
    "monai": "monai.visualize",
}

_TAKEN = {  # what grad-cam imports of torchvision
    "torchvision": (),
    "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
    "torchvision.transforms.functional": ("resize",),
}


def peers() -> dict[str, Any]:
    """Name -> module, of those that import."""
    found = {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = with_stand_in(package) if name == "grad-cam" else importlib.import_module(package)
        except Exception as error:  # torchvision beside another torch raises what it likes
            print(f"missing: {name}, {type(error).__name__}: {error}")
    return found


def with_stand_in(package: str) -> ModuleType:
    """Import what imports torchvision; without one, beside names that stand for what it would take from it."""
    try:
        importlib.import_module("torchvision")
    except Exception:
        for name, inside in _TAKEN.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(dict.fromkeys(inside))
        try:
            return importlib.import_module(package)
        finally:
            for name in _TAKEN:
                del sys.modules[name]
    return importlib.import_module(package)


def timed(work: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Best CPU seconds of each, interleaved; the first round is not the best of caches, but with one round it is all there is."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in work.items():
            start = time.process_time()
            run()
            best[name] = min(best.get(name, float("inf")), time.process_time() - start)
    return best


def bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; without, it is computed in software and quick nowhere."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags())


def flags() -> set[str]:
    """What the kernel says the processor can do; nothing where it does not say."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    return set(next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), []))


def processor() -> str:
    """Its name and those of its instructions that matter here."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "bf16", "i8mm")
    return f"{name}; of {', '.join(known)} it has: {', '.join(f for f in known if f in flags()) or 'none'}"
