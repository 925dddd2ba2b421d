"""From a name to a strategy."""

from __future__ import annotations

import inspect
from typing import Any

from wsol._names import closest, resolve
from wsol.training import STRATEGIES
from wsol.training.strategies.base import Strategy


def build_strategy(name: str, **options: Any) -> Strategy:
    """The strategy `name` with `options`.

    Raises:
        ValueError: unknown name; the message names the nearest one.
        TypeError: an option that this strategy does not have; the message names the valid ones.
    """
    kind = resolve("strategy", name, STRATEGIES, "wsol.training")
    known = strategy_options(name)
    for option in options:
        if option not in known:
            raise TypeError(closest(f"option of strategy {name!r}", option, known))
    return kind(**options)


def strategy_options(name: str) -> list[str]:
    """The names of the strategy's options."""
    return list(inspect.signature(resolve("strategy", name, STRATEGIES, "wsol.training")).parameters)
