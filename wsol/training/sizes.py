"""Size of a region as a constraint: the extended log-barrier, finite on both sides, so that any start will do."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_barrier(z: Tensor, t: float) -> Tensor:
    """psi_t(z) for the constraint z <= 0, value by value.

    ``-log(-z) / t`` for ``z <= -1 / t^2``, else its tangent there, ``t z - log(1 / t^2) / t + 1 / t``: value and slope are
    continuous, and the slope is never above t. The larger t, the closer to a hard constraint. A region of size s is kept from
    vanishing by z = -s, between two bounds by z = low - s and z = s - high.

    Kervadec et al., "Constrained Deep Networks: Lagrangian Optimization via Log-Barrier Extensions", 2019.

    Args:
        z: any float tensor; the result is at least float32.
        t: > 0.

    Raises:
        ValueError: t is not positive and finite.
    """
    if not 0 < t < math.inf:
        raise ValueError(f"t is the strength of the barrier, positive and finite; got {t}")
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    edge = 1 / t**2
    # Clamped, since the branch that `where` leaves out still gets a gradient, and 0 times infinity is no number.
    inside = -(-z).clamp_min(edge).log() / t
    return torch.where(z <= -edge, inside, t * z - math.log(edge) / t + 1 / t)


def barrier_strength(epoch: int, start: float = 5.0, end: float = 10.0, growth: float = 1.01) -> float:
    """The t of an epoch (from 1): ``start * growth^(epoch - 1)``, at most `end`; the defaults are MAXMIN's.

    It hangs on the epoch alone, so that a resumed training has the t of an undisturbed one.
    """
    if not (0 < start <= end < math.inf and growth >= 1):
        raise ValueError(f"expected 0 < start <= end and growth >= 1; got start {start}, end {end}, growth {growth}")
    steps = math.log(end / start) / math.log(growth) if growth > 1 else math.inf
    return end if epoch - 1 >= steps else start * growth ** (epoch - 1)
