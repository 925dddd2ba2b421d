"""AdamW with two learning rates, and its state as plain tensors by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def build_optimizer(
    net: nn.Module, strategy: nn.Module, *, lr: float, head_lr_factor: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over `net` and `strategy`.

    `net.head` and the strategy's own parameters start from nothing and learn `head_lr_factor` times faster than the pretrained
    rest. Norms and biases (parameters of at most one axis) do not decay: pulling a scale to zero is no regularization.
    Each group carries `peak_lr`, from which the schedule sets `lr`.

    Raises:
        ValueError: a setting is out of range or nothing is trainable.
    """
    for name, value in {"lr": lr, "head_lr_factor": head_lr_factor}.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive; got {value}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative; got {weight_decay}")
    head = getattr(net, "head", None)
    fast = {id(p) for module in (head, strategy) if isinstance(module, nn.Module) for p in module.parameters()}
    slow = {id(p) for p in net.parameters()} - ({id(p) for p in head.parameters()} if isinstance(head, nn.Module) else set())
    fast -= slow  # a strategy that holds the net does not speed it up
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for p in (*net.parameters(), *strategy.parameters()):
        if p.requires_grad and id(p) not in seen:
            seen.add(id(p))
            groups.setdefault((id(p) in fast, p.ndim > 1), []).append(p)
    if not groups:
        raise ValueError("nothing to train: no parameter of the net or the strategy requires a gradient")
    return torch.optim.AdamW(
        [
            {"params": members, "peak_lr": lr * (head_lr_factor if is_fast else 1.0), "weight_decay": weight_decay * decays}
            for (is_fast, decays), members in groups.items()
        ],
        lr=lr,
    )


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments and step counts by ``"<parameter number>.<name>"``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, entry in state.items() for name, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the moments back where `optimizer_tensors` took them, in the memory layout of their parameters.

    Layout matters for bit-equality: kernels may round differently on another stride order.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.state.clear()
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        p = parameters[int(number)]
        if value.shape == p.shape:
            value = torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)
        optimizer.state[p][name] = value
