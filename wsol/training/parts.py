"""What changes while a net trains, to and from a stored state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsol.training.ema import Ema
from wsol.training.optimizer import load_optimizer, optimizer_tensors
from wsol.training.resume import State, read_state, snapshot

if TYPE_CHECKING:
    from wsol.models import Localizer
    from wsol.training.strategies.base import Strategy


@dataclass
class Parts:
    """What changes while training and goes to and from a `State` as named tensors."""

    net: Localizer
    strategy: Strategy
    optimizer: torch.optim.Optimizer
    average: Ema | None

    def rate(self) -> float:
        """The present learning rate as a share of its peak."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group["peak_lr"])

    def into(self, state: State) -> None:
        """Copy the present values into `state`."""
        groups = {
            "net": self.net.state_dict(),
            "strategy": self.strategy.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "average": self.average.average if self.average else {},
        }
        state.tensors = snapshot({f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()})
        state.ema_steps = self.average.steps if self.average else 0

    def restore(self, state: State) -> None:
        """Set everything to what `state` holds."""
        groups: dict[str, dict[str, Tensor]] = {"net": {}, "strategy": {}, "optimizer": {}, "average": {}}
        for key, value in state.tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = value
        self.net.load_state_dict(groups["net"])
        self.strategy.load_state_dict(groups["strategy"])
        load_optimizer(self.optimizer, groups["optimizer"])
        if self.average is not None:
            self.average.steps = state.ema_steps
            for name, value in groups["average"].items():
                self.average.average[name].copy_(value)


def resumed(folder: Path | None, settings: Mapping[str, Any], parts: Parts, epochs: int, say: Callable[[str], None]) -> State:
    """The state to go on from, put into `parts`; a fresh one where there is none that fits. `say` tells the user."""
    if folder is None:
        return State()
    state, why_not = read_state(folder, settings)
    if state is None:
        if why_not:
            say(why_not)
        return State()
    parts.restore(state)
    say(f"continuing after epoch {state.epoch}/{epochs} from {folder}")
    return state
