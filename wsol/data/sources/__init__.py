"""Sources of samples, one module each, imported when asked for. A new one is a module and a line in `wsol.data.SOURCES`."""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = ("camelyon16", "glas", "glas_patient", "images", "phantom", "slides", "tiles")


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no source {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
