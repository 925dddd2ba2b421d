"""Names that resolve late: lazy room faces, method tables, and errors that name the nearest known word."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def closest(kind: str, name: str, known: Iterable[str], of: str = "") -> str:
    """The message for an unknown `name` (of something): what it was, the nearest known name, all known names."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{f' of {of}' if of else ''}{hint} (known: {', '.join(names) or 'none'})"


def resolve(kind: str, name: str, table: Mapping[str, str], package: str) -> Any:
    """The object behind `table[name]`, written as ``"module:Object"`` relative to `package`.

    Raises:
        ValueError: the name is not in the table; the message names the nearest one.
    """
    if name not in table:
        raise ValueError(closest(kind, name, table))
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), attribute)


def lazy(package: str, where: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a room's face (PEP 562): `where` maps a public name to its module in the room."""

    def getattr_(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{where[name]}"), name)

    return getattr_, lambda: sorted(where)
