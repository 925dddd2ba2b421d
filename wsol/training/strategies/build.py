"""From a name to a strategy."""

from __future__ import annotations

from typing import Any

from wsol._names import resolve
from wsol._options import check_options, options_of
from wsol.training import STRATEGIES
from wsol.training.strategies.base import Strategy


def build_strategy(name: str, **options: Any) -> Strategy:
    """The strategy `name` with `options`.

    Raises:
        ValueError: unknown name; the message names the nearest one.
        TypeError: an option that this strategy does not have (the message names the valid ones), or a value of another kind.
    """
    kind: Any = resolve("strategy", name, STRATEGIES, "wsol.training")
    check_options(f"strategy {name!r}", kind, options)
    made: Strategy = kind(**options)
    return made


def strategy_options(name: str) -> list[str]:
    """The names of the strategy's options."""
    return list(options_of(resolve("strategy", name, STRATEGIES, "wsol.training")))
