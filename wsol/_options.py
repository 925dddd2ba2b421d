"""Options of what a method table names (heads, strategies, map methods, sources): defaults, meanings, and what fits them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any

from wsol._names import closest

_PLAIN: dict[str, tuple[type | tuple[type, ...], tuple[str, str]]] = {
    "int": (Integral, ("an integer", "integers")),
    "float": (Real, ("a number", "numbers")),
    "bool": (bool, ("true or false", "true or false")),
    "str": (str, ("text", "texts")),
    "Path": ((str, PathLike), ("a path", "paths")),
}
"""Annotation -> what a value must be, and how that is said of one and of several. The constructor judges all others."""


class OptionError(TypeError, ValueError):
    """An option that is not known, is missing, or has a value of another kind: a wrong call, and a wrong value of a setting."""


def options_of(thing: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Options by name: all arguments of a function; the keyword-only ones of a class, or those with a default if none is."""
    known = dict(inspect.signature(thing).parameters)
    if not inspect.isclass(thing):
        return known
    keywords = {name: p for name, p in known.items() if p.kind is p.KEYWORD_ONLY}
    return keywords or {name: p for name, p in known.items() if p.default is not p.empty}


def check_options(of: str, thing: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise unless `thing(..., **given)` has every option it needs, knows those that are given, and each is of its kind.

    Args:
        of: what `thing` is, for the message: "strategy 'has'".
        thing: a class or a function.
        given: its options.

    Raises:
        OptionError: an option that it does not have (the nearest one is named), a value of another kind, a missing option.
    """
    known = options_of(thing)
    for name, value in given.items():
        if name not in known:
            raise OptionError(closest("option", str(name), known, of=of))
        kind = _kind(known[name])
        if kind is not None and not _fits(kind, value):
            raise OptionError(f"{of}: {name} must be {_said(kind)}; got {value!r}")
        if isinstance(value, float) and value != value:
            raise OptionError(f"{of}: {name} must be a number; got NaN")
    missing = [name for name, p in known.items() if p.default is p.empty and name not in given]
    if missing:
        raise OptionError(f"{of} needs {missing[0]!r}; options: {', '.join(known)}")


def _kind(parameter: inspect.Parameter) -> ast.expr | None:
    """The annotation as syntax; None without one."""
    written = parameter.annotation
    if written is parameter.empty:
        return None
    text = written if isinstance(written, str) else getattr(written, "__name__", "")
    return ast.parse(text, mode="eval").body if text else None


def _fits(kind: ast.expr, value: Any) -> bool:
    """Whether a value is of a kind that an annotation names."""
    match kind:
        case ast.BinOp(left=left, right=right):
            return _fits(left, value) or _fits(right, value)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in _PLAIN:
            # bool is an int to Python, and no number to anybody else
            return isinstance(value, _PLAIN[name][0]) and (name == "bool" or not isinstance(value, bool))
        case ast.Subscript(value=ast.Name(id="Mapping")):
            return isinstance(value, Mapping)
        case ast.Subscript(value=ast.Name(id="Sequence"), slice=item):
            return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(item, v) for v in value)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=words):  # which of them, constructors say
            return isinstance(value, str) or "'" not in ast.unparse(words)
    return True


def _said(kind: ast.expr, several: bool = False) -> str:
    """What an annotation asks for, in words."""
    match kind:
        case ast.BinOp(left=left, right=right):
            return f"{_said(left, several)} or {_said(right, several)}"
        case ast.Name(id=name) if name in _PLAIN:
            return _PLAIN[name][1][several]
        case ast.Subscript(value=ast.Name(id="Mapping")):
            return "mappings" if several else "a mapping"
        case ast.Subscript(value=ast.Name(id="Sequence"), slice=item):
            return f"{'lists' if several else 'a list'} of {_said(item, True)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=words):
            return f"one of {ast.unparse(words).strip('()')}"
    return ast.unparse(kind)


def meanings(thing: Callable[..., Any]) -> dict[str, str]:
    """Option -> what its docstring says of it, "" where it says nothing.

    An entry under `Args:`, else the clause of the constructor's docstring that names it in backticks. What is said to be as for a
    base class is looked up there.
    """
    docs = [_entries(part) for part in _documented(thing)]
    found = {}
    for name in options_of(thing):
        said = [doc[name] for doc in docs if name in doc]
        found[name] = next((text for text in said if not text.startswith("as for `")), said[0] if said else "")
    return found


def _documented(thing: Callable[..., Any]) -> list[Any]:
    """What may say something of the options: a function; a class and its bases, each constructor before its class."""
    if not inspect.isclass(thing):
        return [thing]
    return [part for kind in thing.__mro__[:-1] for part in (vars(kind).get("__init__"), kind) if part is not None]


def _entries(part: Any) -> dict[str, str]:
    """Name -> text, as a docstring has it."""
    text = inspect.cleandoc(part.__doc__ or "")
    _, section, rest = text.partition("Args:\n")
    if not section:
        prose = " ".join(text.split("\n\n")[0].split()) if inspect.isfunction(part) else ""
        clauses = re.split(r"(?<=[;.]) (?=[`A-Z])", prose)
        return {name: clause.rstrip(";") for clause in reversed(clauses) for name in re.findall(r"`(\w+)`", clause)}
    block = inspect.cleandoc("\n" + rest.split("\n\n")[0])
    return {name: " ".join(text.split()) for name, text in re.findall(r"^(\w+): (.*(?:\n .*)*)", block, re.MULTILINE)}
